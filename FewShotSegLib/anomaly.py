"""ADNet's anomaly score and its threshold, on which Q-Net, RPT, PAMI and QAMP stand too.

Source: ADNet (Hansen et al., Medical Image Analysis 2022), adnet_qnet_rpt_pami_qamp.md sections 4.2 and 5.
A cell's anomaly score is S = -20 cosine(cell, prototype); it belongs to the organ where S < T. With the steepness 0.5 the
organ's probability is 1 - sigmoid(0.5 (S - T)), and `margin` is its logit. Axes: n slices, c channels, h w cells.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALE = 20.0
STEEPNESS = 0.5
START = -10.0  # of a threshold that learned nothing: half of the best similarity
ALLOWANCE = 1.0  # scores rise from the drawn scan to another: a twentieth of the cosine


def similarity(features: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine (n h w) of every cell with its prototype: features (n c h w), prototypes (c) for all slices or (n c)."""
    prototypes = prototypes.expand(len(features), -1)
    return F.cosine_similarity(features, prototypes[:, :, None, None], dim=1)


def anomaly(features: Tensor, prototypes: Tensor) -> Tensor:
    """Anomaly scores (n h w), -20 = surely the organ, 20 = surely not; arguments as `similarity`."""
    return -SCALE * similarity(features, prototypes)


def margin(scores: Tensor, threshold: Tensor) -> Tensor:
    """Logits (n h w) of the organ over background: anomaly scores (n h w), one threshold or one per slice (n)."""
    return STEEPNESS * (threshold.reshape(-1, 1, 1) - scores)


def two_class(margins: Tensor) -> Tensor:
    """Logits (n 2 h w), background 0, from margins (n h w): what `Method.score` returns."""
    return torch.stack([torch.zeros_like(margins), margins], 1)


def probabilities(margins: Tensor, size: tuple[int, int]) -> Tensor:
    """Published output (n 2 H W), background first: the organ's probability, upsampled from corner to corner."""
    organ = F.interpolate(margins.sigmoid()[:, None], size, mode="bilinear", align_corners=True)
    return torch.cat([1 - organ, organ], 1)


def calibrated_threshold(scores: Tensor, fractions: Tensor) -> Tensor:
    """The threshold () that separates the organ best, by Dice, on the support itself: scores and fractions (s h w), 0..1.

    It stands in for a learned one. Half-way between the scores on both sides of the cut; `START` when the organ has no cell.
    """
    order = scores.flatten().argsort()
    ordered, organ = scores.flatten()[order], fractions.flatten()[order]
    if not organ.any():
        return scores.new_tensor(START)
    taken = torch.arange(1, len(organ) + 1, device=organ.device)
    best = int((2 * organ.cumsum(0) / (taken + organ.sum())).argmax())
    return ordered[best : best + 2].mean()


def lenient_threshold(learned: Tensor, support: Tensor) -> Tensor:
    """Learned thresholds (n), never stricter than what the drawing asks for, its own calibrated one (), and `ALLOWANCE`.

    A threshold learned on small, even regions loses most of an uneven organ, a liver, even on the slice where it is drawn.
    Mean Dice of 3 queries, organs' extents told, of ADNet: chaos_t2 73.4 -> 81.3, cmr 76.7 -> 77.4, sabs_ct 44.7 -> 62.5,
    prostate 46.4 -> 51.0; of RPT: 71.1 -> 81.3, 74.6 -> 76.8, 41.7 -> 60.0, 43.7 -> 49.8. The allowance was chosen among 0,
    0.5, 1, 1.5 and 2 on these scans; on 8 others ADNet gained 8.6 (chaos_t2), 2.3 (cmr) and 16.8 (sabs_ct).
    """
    return torch.maximum(learned, support + ALLOWANCE)


def query_thresholds(learn: Callable[[Tensor], Tensor] | None, features: Tensor, support: Tensor, *, lenient: bool) -> Tensor:
    """The threshold (n) of every query (n c h w): the learned one, led by the support's () if `lenient`, or that alone."""
    if learn is None:
        return support.expand(len(features))
    learned = learn(features)
    return lenient_threshold(learned, support) if lenient else learned


class ConstantThreshold(nn.Module):
    """ADNet's threshold: one learned number for all scans; features (n c h w) -> (n)."""

    def __init__(self, start: float = START) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.tensor(start))

    def forward(self, features: Tensor) -> Tensor:
        return self.t.expand(len(features))


class ImageThreshold(nn.Module):
    """The threshold of every slice, predicted from its mean feature: features (n c h w) -> (n).

    Starts as ADNet's constant. As Q-Net published it, there is a hidden layer of 1000, and the start is random; there is no
    activation in between either way.
    """

    def __init__(self, channels: int, *, hidden: int = 0, start: float = START) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, hidden) if hidden else nn.Identity()
        self.out = nn.Linear(hidden or channels, 1)
        if not hidden:
            nn.init.zeros_(self.out.weight)
            nn.init.constant_(self.out.bias, start)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.hidden(features.mean((2, 3))))[:, 0]
