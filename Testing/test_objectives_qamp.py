from __future__ import annotations

import pytest
import torch
from test_objectives_regional import episodes, made
from torch import nn

from fewshotseg_training.objectives.qamp import agreement_loss


def rows(*vectors: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([vectors], dtype=torch.float32)


def test_agreement_of_support_and_query() -> None:
    """The first row of a bank is the segmented slice's own, the second the teacher's."""
    organ, background = rows((1, 0), (1, 0)), rows((0, 1), (0, 1))
    assert agreement_loss(organ, organ, background, background, (1, 1)) == pytest.approx(0, abs=1e-6)
    assert agreement_loss(organ, organ, organ, organ, (1, 1)) == pytest.approx(2, abs=1e-6)
    split = rows((0, 1), (1, 0)), rows((1, 0), (0, 1))  # the support says one thing, the query another
    assert agreement_loss(*split, *split, (1, 1)) == pytest.approx(2 + 2, abs=1e-6)


def test_without_a_predicted_organ_nothing_is_swapped() -> None:
    objective, encoder = made("qamp")
    nn.init.constant_(objective.head.threshold.out.bias, -60.0)
    terms = objective.loss(encoder, episodes(), torch.Generator())
    assert terms["alignment"] == 0 and terms["agreement"] == 0
    assert terms["query"] > 0
