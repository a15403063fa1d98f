"""The carry objective: every supervoxel of one slice is carried to its neighbour (dense_matching.md, section 1).

For each cell of one slice, a softmax over all cells of the other (cosine similarity times a learned temperature) gathers
the area fractions of *all* supervoxels there; cross entropy against the fractions of the slice itself. One pair of slices
teaches some thirty regions and their borders, where an episode of the published methods teaches one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.encoders import STRIDE

TARGET_STRIDE = 4
BACKGROUND_WEIGHT = 0.5


def region_fractions(index: Tensor, regions: int, stride: int) -> Tensor:
    """Area fraction of every region in every cell: index (h, w), -1 = none -> (regions, h/stride, w/stride)."""
    one_hot = F.one_hot(index.clamp(min=0), regions).float() * (index >= 0)[..., None]
    return F.avg_pool2d(one_hot.permute(2, 0, 1)[None], stride)[0]


def carry_regions(source: Tensor, source_ids: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
    """Ids (8h, 8w) that the regions of `source` have when they are carried to `target`; both unit features (c, h, w)."""
    ids, index = torch.unique(source_ids, return_inverse=True)
    values = region_fractions(index, len(ids), STRIDE).flatten(1)
    attention = (target.flatten(1).T @ source.flatten(1) * temperature).softmax(1)
    carried = (attention @ values.T).T.reshape(1, len(ids), *target.shape[1:])
    return ids[F.interpolate(carried, source_ids.shape, mode="bilinear")[0].argmax(0)]


def carry_loss(source: Tensor, source_ids: Tensor, target: Tensor, target_ids: Tensor, temperature: Tensor) -> Tensor:
    """Loss of carrying the regions of `source` to `target`: unit features (c, h, w), region ids (8h, 8w).

    Regions that the source slice does not show are ignored in the target; id 0 (outside the body) counts half.
    """
    ids = torch.unique(source_ids)
    lookup = torch.full((int(max(source_ids.max(), target_ids.max())) + 1,), -1, device=ids.device)
    lookup[ids] = torch.arange(len(ids), device=ids.device)
    values = region_fractions(lookup[source_ids], len(ids), STRIDE).flatten(1)
    wanted = region_fractions(lookup[target_ids], len(ids), TARGET_STRIDE)
    attention = (target.flatten(1).T @ source.flatten(1) * temperature).softmax(1)
    carried = (attention @ values.T).T.reshape(1, len(ids), *target.shape[1:])
    carried = F.interpolate(carried, wanted.shape[1:], mode="bilinear")[0]
    weight = 1 / wanted.sum((1, 2)).clamp(min=8).sqrt()
    if ids[0] == 0:
        weight[0] *= BACKGROUND_WEIGHT
    weighted = weight[:, None, None] * wanted
    return -(weighted * (carried + 1e-4).log()).sum() / weighted.sum().clamp(min=1e-3)
