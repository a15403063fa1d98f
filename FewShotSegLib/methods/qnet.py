"""Q-Net (Shen et al., IntelliSys 2023): prototypes at two scales, a threshold for every query, and refinement at test.

adnet_qnet_rpt_pami_qamp.md section 5. As published the scales are two layers of Q-Net's own encoder (`encoders_qnet.py`); on
any other encoder the coarse scale is the mean of 2 x 2 cells. Axes: s support slices, n query slices, c channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.anomaly import ImageThreshold, anomaly, calibrated_threshold, margin, query_thresholds, two_class
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.base import LearnedMethod
from FewShotSegLib.prototypes import area_fractions, masked_average, published_average

HIDDEN = 1000  # between the image's mean feature and its threshold, as published
STEP = 0.01  # of Adam, in the refinement
TINY = 1e-4


@dataclass(frozen=True)
class QnetConfig:
    """Options of Q-Net.

    alpha: weight of the fine scale (0.9 in the paper's setting 1, 0.6 in setting 2). channels: of the encoder's features.
    lenient: the learned threshold is never stricter than the drawing asks for, see `lenient_threshold`. faithful: as published:
    pooling at image resolution, the threshold network, the refinement, the learned threshold alone.
    refine: steps that lead the prototypes to every query slice, see `refined` (7 in the paper; 0 = none). Off, because they
    gain nothing: mean Dice with 0, 1, 3, 7 steps, released head, 2 queries of fold 0, extents told: cmr 73.9, 74.0, 74.0,
    74.0; chaos_t2 82.1, 81.9, 81.9, 80.6 (not lenient: cmr 74.4, 74.6, 75.1, 75.5; chaos_t2 72.7, 72.8, 73.4, 72.7). The
    published steps destroy the prototypes of these features: cmr 74.4, 70.7, 20.1, 0.0.
    """

    alpha: float = 0.9
    refine: int = 0
    channels: int = 256
    lenient: bool = True
    faithful: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.refine < 0 or self.channels < 1:
            raise ConfigError(
                f"These options are impossible: {self}",
                "alpha from 0 to 1, refine (steps of refinement on the query) from 0, channels from 1",
                "correct the option; a few steps of refinement are enough, and none are as good on the data measured",
            )


@dataclass(frozen=True, eq=False)
class QnetMemory:
    """The organ's prototype (c) at every scale, and the threshold () that the support itself suggests."""

    prototypes: tuple[Tensor, ...]
    threshold: Tensor

    def to(self, device: torch.device | str) -> QnetMemory:
        """The same memory on `device`."""
        return replace(self, prototypes=tuple(p.to(device) for p in self.prototypes), threshold=self.threshold.to(device))


class Qnet(LearnedMethod):
    """Prototypes at two scales and a threshold for every query slice; refined on the query if wanted."""

    name: ClassVar[str] = "qnet"
    default_strategy: ClassVar[str] = "direct"
    untrained: ClassVar[str] = "its threshold is the one that separates the organ best on the support, for all queries."

    def __init__(self, config: QnetConfig | None = None) -> None:
        self.config = config or QnetConfig()
        self.head = ImageThreshold(self.config.channels, hidden=HIDDEN if self.config.faithful else 0)

    def remember(self, features: Tensor, masks: Tensor) -> QnetMemory:
        """Prototypes of features (s c h w) under masks (s H W), 0..1; every slice is one shot."""
        return self.remember_scales(scales_of(features), masks)

    def score(self, features: Tensor, memory: QnetMemory) -> Tensor:
        """Logits (n 2 h w) of features (n c h w)."""
        margins = self.margins(scales_of(features), memory, self.thresholds(features, memory))
        organ = self.fused(margins, (features.shape[2], features.shape[3])).clamp(TINY, 1 - TINY)
        return two_class(organ.logit())

    def thresholds(self, features: Tensor, memory: QnetMemory) -> Tensor:
        """The threshold (n) of every query (n c h w): the learned one, led by the support's, or the support's alone."""
        learn = self.head if self.trained else None
        return query_thresholds(learn, features, memory.threshold, lenient=self.config.lenient and not self.config.faithful)

    def remember_scales(self, scales: Sequence[Tensor], masks: Tensor) -> QnetMemory:
        """As `remember`, of several feature maps (s c h w), the finest first."""
        masks = masks.to(scales[0].dtype)
        if self.config.faithful:
            prototypes = tuple(published_average(scale, masks).mean(0) for scale in scales)
        else:
            prototypes = tuple(_mean_of_shown(scale, area_fractions(masks, _size(scale))) for scale in scales)
        fractions = area_fractions(masks, _size(scales[0]))
        return QnetMemory(prototypes, calibrated_threshold(anomaly(scales[0], prototypes[0]), fractions))

    def margins(self, scales: Sequence[Tensor], memory: QnetMemory, thresholds: Tensor) -> list[Tensor]:
        """The organ's logits (n h w) at every scale (n c h w), after the refinement; thresholds (n)."""
        found = []
        for scale, prototype in zip(scales, memory.prototypes, strict=True):
            own = prototype.expand(len(scale), -1)
            own = refined(scale, own, thresholds, self.config.refine, faithful=self.config.faithful)
            found.append(margin(anomaly(scale, own), thresholds))
        return found

    def fused(self, margins: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """The organ's probability (n H W): the weighted mean of the scales, each upsampled from corner to corner."""
        weights = (self.config.alpha, 1 - self.config.alpha)
        wide = [F.interpolate(m.sigmoid()[:, None], size, mode="bilinear", align_corners=True)[:, 0] for m in margins]
        return weights[0] * wide[0] + weights[1] * wide[1]


def scales_of(features: Tensor) -> tuple[Tensor, Tensor]:
    """The features (n c h w), and the means of their 2 x 2 blocks (n c h/2 w/2), rounded up."""
    return features, F.avg_pool2d(features, 2, ceil_mode=True, count_include_pad=False)


def refined(features: Tensor, prototypes: Tensor, thresholds: Tensor, steps: int, *, faithful: bool = False) -> Tensor:
    """The prototypes (n c), each led towards its query slice, features (n c h w), by `steps` steps; section 5.

    Cells that are found to be the organ are replaced by the prototype; the cross entropy between that picture of the slice
    and the slice falls. Every slice by itself; nothing else gets a gradient.

    As published (`faithful`) the drawn picture is the target, so that the gradient has one sign everywhere, and whatever the
    slice shows every coordinate grows by about 0.01 a step: on features of length 1, whose coordinates are about 0.06, seven
    steps leave nothing of the prototype. Ours: the slice is the target, in its own range, and a step is a hundredth of a usual
    coordinate.
    """
    if not steps:
        return prototypes
    with torch.enable_grad():
        features, thresholds = features.detach(), thresholds.detach()
        usual = features.new_ones(len(features), 1, 1, 1) if faithful else _usual(features)
        features = features / usual
        theta = (prototypes.detach() / usual[:, :, 0, 0]).requires_grad_()
        optimiser = torch.optim.Adam([theta], lr=STEP)
        picture = _squeezed(features, features)
        for _ in range(steps):
            organ = (margin(anomaly(features, theta.detach()), thresholds) > 0).to(features.dtype)[:, None]
            drawn = features * (1 - organ) + theta[:, :, None, None] * organ
            drawn = _squeezed(drawn, drawn if faithful else features)
            target, guess = (drawn, picture) if faithful else (picture, drawn)
            entropy = -(target * guess.log() + (1 - target) * (1 - guess).log())
            optimiser.zero_grad()
            entropy.mean((1, 2, 3)).sum().backward()
            optimiser.step()
    return theta.detach() * usual[:, :, 0, 0]


def _usual(features: Tensor) -> Tensor:
    """The root mean square (n 1 1 1) of the coordinates of features (n c h w)."""
    return features.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=TINY)


def _squeezed(maps: Tensor, like: Tensor) -> Tensor:
    """Sigmoid of maps (n c h w), after the range of `like` (n c h w) was brought to 0..1, each of n by itself."""
    low, high = like.amin((1, 2, 3), keepdim=True), like.amax((1, 2, 3), keepdim=True)
    return ((maps - low) / (high - low).clamp(min=1e-12)).sigmoid()


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[2], maps.shape[3]


def _mean_of_shown(features: Tensor, fractions: Tensor) -> Tensor:
    """Mean (c), over the slices that show the organ, of the masked averages."""
    shown = fractions.flatten(1).any(1)
    return masked_average(features, fractions)[shown].sum(0) / shown.sum().clamp(min=1)
