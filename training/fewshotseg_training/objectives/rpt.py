"""The training of RPT (MICCAI 2023), both versions: adnet_qnet_rpt_pami_qamp.md section 6.4."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshotseg_training.objectives.base import Recipe
from fewshotseg_training.objectives.learned import Terms
from fewshotseg_training.objectives.losses import boundary_loss, likelihood_loss
from fewshotseg_training.objectives.regional import Pixels, RegionObjective, Task, alignment

RING = 3
RING_WEIGHT = 0.1
AGREEMENT_WEIGHT = 0.1
BALANCE_STEPS, BALANCE_CHANGE = 1000, 0.01


def ring_loss(pixels: Pixels, support: Tensor, masks: Tensor, thresholds: Tensor) -> Tensor:
    """The widened organ, minus the organ, must be found as a ring around it: support (s c h w), masks (s H W), thresholds (s)."""
    wide = F.max_pool2d(masks[:, None], RING, 1, RING // 2)[:, 0]
    size = (int(masks.shape[1]), int(masks.shape[2]))
    outer, inner = (pixels.by_prototypes(support, pixels.pool(support, m), thresholds, size)[:, 1] for m in (wide, masks))
    ring = outer - inner
    return likelihood_loss(torch.stack([1 - ring, ring], 1), wide - masks, background=1.0)


def self_loss(pixels: Pixels, query: Tensor, labels: Tensor, thresholds: Tensor) -> Tensor:
    """Every query by the prototype of its own true mask: query (n c h w), labels (n H W), thresholds (n)."""
    size = (int(labels.shape[1]), int(labels.shape[2]))
    found = pixels.by_prototypes(query, pixels.pool(query, labels), thresholds, size)
    return likelihood_loss(found, labels, background=1.0)


def dice_loss(organ: Tensor, labels: Tensor) -> Tensor:
    """One minus soft Dice, with one pixel added above and below: organ (n H W) probabilities, labels (n H W)."""
    return 1 - (2 * (organ * labels).sum() + 1) / (organ.sum() + labels.sum() + 1)


class RptObjective(RegionObjective):
    """RPT's losses. Options: those of `RptConfig`.

    Version 1 goes over from Dice to boundaries, a hundredth every 1000 steps. As published (`faithful`) these two see a softmax
    and a sigmoid of what already are probabilities.
    """

    name: ClassVar[str] = "rpt"
    recipe = Recipe(source="supervoxel", transformed="one", steps=40_000, decay=0.98, decay_every=5000)

    @property
    def term_names(self) -> tuple[str, ...]:
        """The names of all terms of the loss."""
        if self.method.config.version == 1:
            return ("query", "boundary", "dice")
        return ("query", "ring", "alignment", "agreement", "self")

    def solve(self, task: Task, step: int) -> tuple[Tensor, Terms]:
        """See the base class."""
        found, memory, thresholds = self.found(task)
        if self.method.config.version == 1:
            others = self._first(task, found, step)
        else:
            others = self._second(task, found, memory.prototype, thresholds)
        return found, {"query": likelihood_loss(found, task.labels), **others}

    def _first(self, task: Task, found: Tensor, step: int) -> Terms:
        dice_share = max(0.0, 1 - BALANCE_CHANGE * (step // BALANCE_STEPS))
        again = self.pixels.faithful
        edges = boundary_loss(found.softmax(1) if again else found, task.labels)
        dice = dice_loss(found[:, 1].sigmoid() if again else found[:, 1], task.labels)
        return {"boundary": (1 - dice_share) * edges, "dice": dice_share * dice}

    def _second(self, task: Task, found: Tensor, prototype: Tensor, thresholds: Tensor) -> Terms:
        own, aligned = alignment(self.pixels, task, found, thresholds.mean())
        support_thresholds = self.method.head.threshold(task.support)
        return {
            "ring": RING_WEIGHT * ring_loss(self.pixels, task.support, task.masks, support_thresholds),
            "alignment": aligned,
            "agreement": AGREEMENT_WEIGHT * F.mse_loss(own, prototype),
            "self": self_loss(self.pixels, task.query, task.labels, thresholds),
        }
