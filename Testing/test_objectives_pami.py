from __future__ import annotations

import torch
from test_objectives_rpt import two_sides

from fewshotseg_training.objectives.pami import coarse_loss
from fewshotseg_training.objectives.regional import Pixels, Task


def test_the_coarse_prototype_of_the_query_must_explain_it() -> None:
    features, mask = two_sides()
    thresholds = torch.tensor([-10.0])
    good, bad = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    task = Task(features, mask, features, mask)
    assert coarse_loss(Pixels(), task, good, thresholds) < 0.1 < coarse_loss(Pixels(), task, bad, thresholds)
