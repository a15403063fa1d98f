"""What the trainings of RPT, PAMI and QAMP have in common: adnet_qnet_rpt_pami_qamp.md sections 6.4, 7.5 and 8.4.

Axes: s support slices, n queries, c channels, h w cells, H W pixels; probabilities (n 2 H W), background first.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from fewshotseg_training.episodes import Episodes
from fewshotseg_training.objectives.base import encode
from fewshotseg_training.objectives.learned import LearnedObjective, Terms
from fewshotseg_training.objectives.losses import likelihood_loss
from FewShotSegLib.anomaly import anomaly, margin, probabilities
from FewShotSegLib.debiasing import RegionMemory
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.prototypes import area_fractions, masked_average, published_average, unit


@dataclass(frozen=True)
class Pixels:
    """The ways between cells and pixels: ours, and with `faithful` the published ones (`corners`: QAMP's pooling)."""

    faithful: bool = False
    corners: bool = False

    def pool(self, features: Tensor, masks: Tensor) -> Tensor:
        """The mean feature (s c) under every mask: features (s c h w), masks (s H W)."""
        if self.faithful:
            return published_average(features, masks, corners=self.corners)
        return masked_average(features, area_fractions(masks.to(features.dtype), (features.shape[2], features.shape[3])))

    def probabilities(self, margins: Tensor, size: tuple[int, int]) -> Tensor:
        """Probabilities (n 2 H W) from margins (n h w)."""
        if self.faithful:
            return probabilities(margins, size)
        organ = upsample(margins[:, None], size).sigmoid()
        return torch.cat([1 - organ, organ], 1)

    def by_prototypes(self, features: Tensor, prototypes: Tensor, thresholds: Tensor, size: tuple[int, int]) -> Tensor:
        """Probabilities (n 2 H W) of features (n c h w) by prototypes (c) or (n c), thresholds () or (n)."""
        return self.probabilities(margin(anomaly(features, prototypes), thresholds), size)


@dataclass(frozen=True, eq=False)
class Task:
    """One episode in features, as the method prepares them: support (s c h w), masks (s H W), query (n c h w), labels (n H W)."""

    support: Tensor
    masks: Tensor
    query: Tensor
    labels: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of an image."""
        return (int(self.labels.shape[1]), int(self.labels.shape[2]))


def shown_mean(prototypes: Tensor, masks: Tensor) -> Tensor:
    """Mean (c) of the prototypes (s c) of the masks (s H W) that are not empty; zero when all are."""
    shown = masks.flatten(1).any(1)
    return prototypes[shown].sum(0) / shown.sum().clamp(min=1)


def alignment(pixels: Pixels, task: Task, predicted: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Roles swapped: the queries' prototype (c), under their predicted masks, must segment the support; also its loss ().

    predicted (n 2 H W) probabilities of the queries, threshold () for the support. Zero loss when no organ was predicted.
    """
    masks = predicted.argmax(1).to(predicted.dtype)
    prototype = shown_mean(pixels.pool(task.query, masks), masks)
    if not masks.any():
        return prototype, task.query.sum() * 0
    found = pixels.by_prototypes(task.support, prototype, threshold, task.size)
    return prototype, likelihood_loss(found, task.masks, background=1.0)


class TaskObjective(LearnedObjective):
    """Base of the three: an episode becomes a `Task`; one without any organ in the support counts as zero.

    The features are unit vectors, as at use, with `faithful`, too: these heads multiply features with learned layers, so a head
    must be trained on what it will see.
    """

    corners: ClassVar[bool] = False

    def __init__(self, channels: int = 256, **options: Any) -> None:
        super().__init__(channels, **options)
        self.pixels = Pixels(self.method.config.faithful, self.corners)

    @property
    @abstractmethod
    def term_names(self) -> tuple[str, ...]:
        """The names of all terms of the loss."""

    def features(self, encoder: nn.Module, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Unit features of the supports (b s c h w) and of the queries (b q c h w)."""
        supports, queries = encode(encoder, episodes)
        return unit(supports, 2), unit(queries, 2)

    @abstractmethod
    def solve(self, task: Task, step: int) -> tuple[Tensor, Terms]:
        """Probabilities (n 2 H W) of the queries and the weighted terms of the loss."""

    def episode(
        self, support: Tensor, masks: Tensor, query: Tensor, labels: Tensor, generator: Generator | None = None, step: int = 0
    ) -> tuple[Tensor, Terms]:
        """See the base class."""
        task = Task(self.method.prepared(support), masks, self.method.prepared(query), labels)
        if masks.any():
            return self.solve(task, step)
        organ = torch.zeros_like(labels, dtype=query.dtype)
        return torch.stack([1 - organ, organ], 1), dict.fromkeys(self.term_names, (support.sum() + query.sum()) * 0)


class RegionObjective(TaskObjective):
    """Base of the trainings of RPT and PAMI."""

    def found(self, task: Task) -> tuple[Tensor, RegionMemory, Tensor]:
        """Probabilities (n 2 H W) of the queries, what is remembered of the support, and the queries' thresholds (n)."""
        memory = self.method.remember(task.support, task.masks)
        thresholds = self.method.thresholds(task.query, memory)
        return self.pixels.probabilities(self.method.margins(task.query, memory, thresholds), task.size), memory, thresholds
