"""The training of PAMI (IEEE TIM 2024): adnet_qnet_rpt_pami_qamp.md section 7.5."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from fewshotseg_training.objectives.base import Recipe
from fewshotseg_training.objectives.learned import Terms
from fewshotseg_training.objectives.losses import likelihood_loss
from fewshotseg_training.objectives.regional import Pixels, RegionObjective, Task, alignment
from FewShotSegLib.debiasing import soft_prototype


def coarse_loss(pixels: Pixels, task: Task, prototype: Tensor, thresholds: Tensor) -> Tensor:
    """Every query by its own coarse prototype, under the probabilities that the support's prototype (c) gives."""
    own = soft_prototype(task.query, prototype, thresholds)
    return likelihood_loss(pixels.by_prototypes(task.query, own, thresholds, task.size), task.labels, background=1.0)


class PamiObjective(RegionObjective):
    """PAMI's losses. Options: those of `PamiConfig`."""

    name: ClassVar[str] = "pami"
    recipe = Recipe(source="supervoxel", transformed="one", steps=50_000, decay=0.98, decay_every=3000)

    term_names = ("query", "alignment", "agreement", "coarse")

    def solve(self, task: Task, step: int) -> tuple[Tensor, Terms]:
        """See the base class."""
        found, memory, thresholds = self.found(task)
        own, aligned = alignment(self.pixels, task, found, self.method.head.threshold(task.support).mean())
        return found, {
            "query": likelihood_loss(found, task.labels),
            "alignment": aligned,
            "agreement": F.mse_loss(own, memory.prototype),
            "coarse": coarse_loss(self.pixels, task, memory.prototype, thresholds),
        }
