"""What RPT and PAMI have in common: the organ in regions, debiased with each query; they differ in the block that does it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from FewShotSegLib.anomaly import ImageThreshold, anomaly, calibrated_threshold, margin, query_thresholds, two_class
from FewShotSegLib.debiasing import RegionMemory, Step, debias, published_regions_of, regions_of, standard
from FewShotSegLib.methods.base import LearnedMethod
from FewShotSegLib.prototypes import area_fractions

SEED = 1289  # published
HIDDEN = 1000
GATE = 0.1
TOGETHER = 16  # query slices


class RegionHead(nn.Module):
    """What is learned: the block that refines the regions, how much of that is believed, and the threshold.

    The gate is small at first, so that training begins near the plain mean; as published there is none (`faithful`).
    """

    def __init__(self, block: nn.Module, channels: int, *, faithful: bool) -> None:
        super().__init__()
        self.block = block
        self.gate = None if faithful else nn.Parameter(torch.tensor(GATE))
        self.threshold = ImageThreshold(channels, hidden=HIDDEN if faithful else 0)

    def forward(self, regions: Tensor, query: Tensor) -> Tensor:
        """Regions (... k c) and the query's prototype (... 1 c) -> regions (... k c)."""
        refined = self.block(regions, query)
        return refined if self.gate is None else regions + self.gate * (refined - regions)


class RegionMethod(LearnedMethod):
    """Base of RPT and PAMI.

    Ours: features of equal length, so that no encoder's scale matters; regions of the cells that are organ, the first seed in
    their middle. `faithful`: features as they come, regions and seeds as published; one random draw for every support slice.
    """

    default_strategy: ClassVar[str] = "direct"
    untrained: ClassVar[str] = "the organ's mean feature, not debiased, and a threshold fitted to the drawing stand in."
    head: RegionHead

    def __init__(
        self, head: RegionHead, *, regions: int, iterations: int, keep_mean: bool, lenient: bool, faithful: bool
    ) -> None:
        self.head = head.eval()
        self.regions, self.iterations, self.keep_mean = regions, iterations, keep_mean
        self.lenient, self.faithful = lenient and not faithful, faithful
        self._random = np.random.RandomState(SEED)

    def remember(self, features: Tensor, masks: Tensor) -> RegionMemory:
        """Regions of features (s c h w) under masks (s H W), 0..1."""
        if self.faithful:
            prototype, regions = published_regions_of(features, masks, self.regions, self._random.randint)
        else:
            features = standard(features)
            prototype, regions = regions_of(features, masks, self.regions)
        area = area_fractions(masks.to(features.dtype), (features.shape[2], features.shape[3]))
        return RegionMemory(prototype, regions, calibrated_threshold(anomaly(features, prototype), area))

    def thresholds(self, features: Tensor, memory: RegionMemory) -> Tensor:
        """The threshold (n) of every query (n c h w): the learned one, led by the support's, or the support's alone."""
        learn = self.head.threshold if self.trained else None
        return query_thresholds(learn, features, memory.threshold, lenient=self.lenient)

    def steps(self, features: Tensor, memory: RegionMemory, thresholds: Tensor) -> list[Step]:
        """The prototypes of queries (n c h w) before and after every debiasing step; thresholds (n)."""
        iterations = self.iterations if self.trained else 0
        return debias(features, memory, thresholds, self.head, iterations=iterations, keep_mean=self.keep_mean)

    def margins(self, features: Tensor, memory: RegionMemory, thresholds: Tensor) -> Tensor:
        """Logits (n h w), organ over background, of features (n c h w), as `score` prepares them; thresholds (n)."""
        return margin(anomaly(features, self.steps(features, memory, thresholds)[-1].prototypes), thresholds)

    def score(self, features: Tensor, memory: RegionMemory) -> Tensor:
        """Logits (n 2 h w) of features (n c h w), a few slices at once."""
        parts = [self.prepared(part) for part in features.split(TOGETHER)]
        return two_class(torch.cat([self.margins(part, memory, self.thresholds(part, memory)) for part in parts]))

    def prepared(self, features: Tensor) -> Tensor:
        """Features (n c h w) as the other functions want them."""
        return features if self.faithful else standard(features)
