"""ADNet (Hansen et al., Medical Image Analysis 2022): one prototype and a learned anomaly threshold.

adnet_qnet_rpt_pami_qamp.md section 4. The background has no prototype: what is too far from the organ's is background.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from FewShotSegLib.anomaly import ConstantThreshold, anomaly, calibrated_threshold, lenient_threshold, margin, two_class
from FewShotSegLib.methods.base import LearnedMethod
from FewShotSegLib.prototypes import area_fractions, masked_average, published_average


@dataclass(frozen=True)
class AdnetConfig:
    """Options of ADNet.

    lenient: the learned threshold is never stricter than the drawing asks for, see `lenient_threshold`. faithful: as published:
    pooling at image resolution, empty slices count, the learned threshold alone, and the one that training begins with (-10)
    when none was learned; otherwise pooling by the cells' area and a threshold that separates the support best.
    """

    lenient: bool = True
    faithful: bool = False


@dataclass(frozen=True, eq=False)
class AdnetMemory:
    """The organ's prototype (c) and its threshold ()."""

    prototype: Tensor
    threshold: Tensor

    def to(self, device: torch.device | str) -> AdnetMemory:
        """The same memory on `device`."""
        return replace(self, prototype=self.prototype.to(device), threshold=self.threshold.to(device))


class Adnet(LearnedMethod):
    """One prototype of the organ, and a learned threshold of the anomaly score."""

    name: ClassVar[str] = "adnet"
    default_strategy: ClassVar[str] = "direct"
    untrained: ClassVar[str] = "its threshold is the one that separates the organ best on the support."

    def __init__(self, config: AdnetConfig | None = None) -> None:
        self.config = config or AdnetConfig()
        self.head = ConstantThreshold()

    def remember(self, features: Tensor, masks: Tensor) -> AdnetMemory:
        """Prototype of features (s c h w) under masks (s H W), 0..1: the mean over the slices, each of them a shot."""
        if self.config.faithful:
            prototype = published_average(features, masks).mean(0)
        else:
            fractions = area_fractions(masks.to(features.dtype), (features.shape[2], features.shape[3]))
            shown = fractions.flatten(1).any(1)
            prototype = masked_average(features, fractions)[shown].sum(0) / shown.sum().clamp(min=1)
        return AdnetMemory(prototype, self.threshold(features, masks, prototype))

    def score(self, features: Tensor, memory: AdnetMemory) -> Tensor:
        """Logits (n 2 h w) of features (n c h w)."""
        return two_class(margin(anomaly(features, memory.prototype), memory.threshold))

    def threshold(self, features: Tensor, masks: Tensor, prototype: Tensor) -> Tensor:
        """The learned threshold (), led by the support's; without one, the support's alone (see the config)."""
        learned = self.head(features[:1])[0]
        if self.config.faithful or (self.trained and not self.config.lenient):
            return learned
        fractions = area_fractions(masks.to(features.dtype), (features.shape[2], features.shape[3]))
        own = calibrated_threshold(anomaly(features, prototype), fractions)
        return lenient_threshold(learned, own) if self.trained else own
