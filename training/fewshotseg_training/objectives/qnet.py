"""The losses of Q-Net (Shen et al., IntelliSys 2023): adnet_qnet_rpt_pami_qamp.md section 5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Generator, Tensor

from fewshotseg_training.objectives.base import Recipe
from fewshotseg_training.objectives.learned import LearnedObjective, Terms
from fewshotseg_training.objectives.losses import likelihood_loss
from FewShotSegLib.anomaly import anomaly, margin
from FewShotSegLib.methods.qnet import QnetMemory, scales_of


class QnetObjective(LearnedObjective):
    """Q-Net: segmentation of the queries, and of the support by what was predicted there; the refinement is for use only."""

    name: ClassVar[str] = "qnet"
    recipe = Recipe(source="supervoxel", transformed="one", steps=30_000, decay=0.98)

    def episode(
        self, support: Tensor, masks: Tensor, query: Tensor, labels: Tensor, generator: Generator | None = None, step: int = 0
    ) -> tuple[Tensor, Terms]:
        """See the base class."""
        return self.episode_of_scales(scales_of(support), masks, scales_of(query), labels, self.head(query))

    def episode_of_scales(
        self, support: Sequence[Tensor], masks: Tensor, query: Sequence[Tensor], labels: Tensor, thresholds: Tensor
    ) -> tuple[Tensor, Terms]:
        """One episode of feature maps at two scales, the fine one first; thresholds (q) of the queries."""
        memory = self.method.remember_scales(support, masks)
        found = self.predicted(query, memory.prototypes, thresholds, labels)
        predicted = (found[:, 1] > found[:, 0]).to(found.dtype)
        alignment = self.alignment(support, masks, query, predicted, thresholds)
        return found, {"query": likelihood_loss(found, labels), "alignment": alignment}

    def predicted(self, scales: Sequence[Tensor], prototypes: Sequence[Tensor], thresholds: Tensor, like: Tensor) -> Tensor:
        """Probabilities (n 2 H W) of scales (n c h w), at the resolution of `like` (n H W)."""
        margins = [margin(anomaly(scale, p), thresholds) for scale, p in zip(scales, prototypes, strict=True)]
        organ = self.method.fused(margins, (like.shape[1], like.shape[2]))
        return torch.stack([1 - organ, organ], 1)

    def alignment(
        self, support: Sequence[Tensor], masks: Tensor, query: Sequence[Tensor], predicted: Tensor, thresholds: Tensor
    ) -> Tensor:
        """Roles swapped: the queries, with their predicted masks (q H W), must segment the support; zero without any."""
        shown = predicted.flatten(1).any(1)
        if not shown.any():
            return thresholds.sum() * 0
        memory: QnetMemory = self.method.remember_scales([scale[shown] for scale in query], predicted[shown])
        swapped = self.predicted(support, memory.prototypes, thresholds.mean().expand(len(masks)), masks)
        return likelihood_loss(swapped, masks, background=1.0)
