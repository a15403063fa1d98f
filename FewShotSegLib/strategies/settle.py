"""Carried labels settle: every cell of the query asks the cells around it, in its own scan, that look like it.

Each cell was labelled by itself, after a support that looks a little different. Cells of one scan know each other better: one
that was taken for a neighbouring organ, or for background, lies among cells of its own kind that were not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures, Window, attend, cell_positions
from FewShotSegLib.methods.match import MatchConfig

SEEN = 0.02  # fraction of all organs from which a cell, or one beside it, is asked


def settle(query: ScanFeatures, values: Tensor, config: MatchConfig, thin: Sequence[int] = ()) -> Tensor:
    """Fractions (n, v, h, w) after `config.settle_passes` rounds; those of `thin` organs, which would be outvoted, stay.

    In each round the fractions are squared and shared out anew, so that the surer cells tell the others.
    """
    n, _, h, w = query.features.shape
    place = cell_positions(n, h, w, values.device).T.reshape(3, n, h, w)
    window = Window(config.settle_temperature, config.sigma, config.radius, config.reach_mm, query.slice_mm, query.cell_mm)
    seen = F.max_pool3d((1 - values[:, :1]).transpose(0, 1), 3, 1, 1)[0] > SEEN
    wanted = seen & query.inside
    keep = [1 + organ for organ in thin]
    share = [v for v in range(values.shape[1]) if v not in keep]
    for _ in range(config.settle_passes):
        surer = values.clamp(min=0).square()
        surer = surer / surer.sum(1, keepdim=True).clamp(min=1e-6)
        found = attend(query.features, query.features, place, surer, window, wanted).values[:, share]
        left = (1 - values[:, keep].sum(1, keepdim=True)).clamp(min=0)
        found = found * left / found.sum(1, keepdim=True).clamp(min=1e-6)
        settled = values.clone()
        settled[:, share] = torch.where(wanted[:, None], found, values[:, share])
        values = settled
    return values
