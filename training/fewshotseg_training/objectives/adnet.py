"""The losses of ADNet (Hansen et al., Medical Image Analysis 2022): adnet_qnet_rpt_pami_qamp.md section 4.3."""

from __future__ import annotations

from typing import ClassVar

from torch import Generator, Tensor

from fewshotseg_training.objectives.base import Recipe
from fewshotseg_training.objectives.learned import LearnedObjective, Terms
from fewshotseg_training.objectives.losses import likelihood_loss
from FewShotSegLib.anomaly import SCALE, anomaly, margin, probabilities
from FewShotSegLib.prototypes import masked_average


class AdnetObjective(LearnedObjective):
    """ADNet: segmentation of the queries, of the support by what was predicted there, and a low threshold.

    The last is T / 20 as published, unbounded: only the segmentation loss holds against it, by features that gather around the
    prototype. Those of a frozen encoder cannot, and the threshold would run away: then this term is zero.
    """

    name: ClassVar[str] = "adnet"
    recipe = Recipe(source="supervoxel", adjacent=False, transformed="one", steps=50_000, decay=0.95)

    def episode(
        self, support: Tensor, masks: Tensor, query: Tensor, labels: Tensor, generator: Generator | None = None, step: int = 0
    ) -> tuple[Tensor, Terms]:
        """See the base class."""
        memory = self.method.remember(support, masks)
        margins = margin(anomaly(query, memory.prototype), memory.threshold)
        found = probabilities(margins, (labels.shape[1], labels.shape[2]))
        terms = {
            "query": likelihood_loss(found, labels),
            "alignment": self.alignment(support, masks, query, (margins > 0).to(query.dtype), memory.threshold),
            "threshold": memory.threshold * (0 if self.frozen else 1 / SCALE),
        }
        return found, terms

    def alignment(self, support: Tensor, masks: Tensor, query: Tensor, predicted: Tensor, threshold: Tensor) -> Tensor:
        """Roles swapped: the queries, with their predicted cells (q h w), must segment the support; zero without any cell."""
        shown = predicted.flatten(1).any(1)
        if not shown.any():
            return threshold * 0
        prototype = masked_average(query[shown], predicted[shown]).mean(0)
        return self.swapped_loss(margin(anomaly(support, prototype), threshold), masks)

    def swapped_loss(self, margins: Tensor, masks: Tensor) -> Tensor:
        """How well margins (s h w) fit the masks (s H W): unweighted likelihood, at image resolution."""
        return likelihood_loss(probabilities(margins, (masks.shape[1], masks.shape[2])), masks, background=1.0)
