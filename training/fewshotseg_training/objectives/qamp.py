"""The training of QAMP: adnet_qnet_rpt_pami_qamp.md section 8.4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fewshotseg_training.objectives.base import Recipe
from fewshotseg_training.objectives.learned import Terms
from fewshotseg_training.objectives.losses import boundary_loss, likelihood_loss
from fewshotseg_training.objectives.regional import Task, TaskObjective
from FewShotSegLib.anomaly import anomaly, margin
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.methods.qamp_banks import Banks

AGREEMENT_WEIGHT = 0.3
BOUNDARY_WEIGHT = 0.8


@dataclass(frozen=True, eq=False)
class Pass:
    """One way through the method: probabilities (n 2 H W), the banks (n p c), and the learner's thresholds (n)."""

    found: Tensor
    banks: Banks
    thresholds: Tensor


def agreement_loss(
    forward: Tensor, swapped: Tensor, forward_other: Tensor, swapped_other: Tensor, own: tuple[int, int]
) -> Tensor:
    """What support and query say of a class should agree, and differ from the other class.

    Banks (n p c) of organ and of background (`_other`), of the pass from support to query and of the swapped one; the first
    `own` prototypes of a bank are the slices' that were segmented, the others those of the slices that taught.
    """
    support, query = _sides(forward, swapped, own[0])
    support_other, query_other = _sides(forward_other, swapped_other, own[1])
    apart = F.relu(_cosine(support, support_other)) + F.relu(_cosine(query, query_other))
    return 2 - _cosine(support, query) - _cosine(support_other, query_other) + apart


class QampObjective(TaskObjective):
    """QAMP's losses. Options: those of `QampConfig`."""

    name: ClassVar[str] = "qamp"
    recipe = Recipe(source="supervoxel", transformed="one", steps=40_000, decay=0.98, decay_every=5000)

    corners = True
    term_names = ("query", "boundary", "alignment", "agreement")

    def solve(self, task: Task, step: int) -> tuple[Tensor, Terms]:
        """See the base class."""
        forward = self.through(task.support, task.masks, task.query)
        found = forward.found
        alignment, agreement = self._swapped(task, forward)
        return found, {
            "query": likelihood_loss(found, task.labels),
            "boundary": BOUNDARY_WEIGHT * boundary_loss(found, task.labels),
            "alignment": alignment,
            "agreement": AGREEMENT_WEIGHT * agreement,
        }

    def _swapped(self, task: Task, forward: Pass) -> tuple[Tensor, Tensor]:
        """The losses of alignment and agreement: the queries, with their predicted masks, teach; zero when these are empty."""
        masks = forward.found.argmax(1).to(task.masks.dtype)
        if not masks.any():
            return task.query.sum() * 0, task.query.sum() * 0
        back = self.through(task.query, masks, task.support, forward.thresholds.mean())
        own = (self.method.sizes[0].query, self.method.sizes[1].query)
        banks = (forward.banks.organ, back.banks.organ, forward.banks.background, back.banks.background)
        return likelihood_loss(back.found, task.masks, background=1.0), agreement_loss(*banks, own)

    def through(self, support: Tensor, masks: Tensor, query: Tensor, threshold: Tensor | None = None) -> Pass:
        """Segment query (n c h w) by support (s c h w) and its masks (s H W), not all empty; threshold () for all queries."""
        memory = self.method.remember(support, masks)
        thresholds = self.method.thresholds(query, memory) if threshold is None else threshold.expand(len(query))
        prior = margin(anomaly(query, memory.prototype), thresholds)
        banks = self.method.banks(query, memory, prior)
        logits = self.method.decode(query, banks, prior)
        size = (int(masks.shape[1]), int(masks.shape[2]))
        return Pass(self._upsampled(logits, size).softmax(1), banks, thresholds)

    def _upsampled(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        if self.pixels.faithful:
            return F.interpolate(logits, size, mode="bilinear", align_corners=True)
        return upsample(logits, size)


def _sides(forward: Tensor, swapped: Tensor, own: int) -> tuple[Tensor, Tensor]:
    """Mean prototypes (c) of the support and of the query."""
    support = torch.cat([forward[:, own:].flatten(0, 1), swapped[:, :own].flatten(0, 1)])
    query = torch.cat([forward[:, :own].flatten(0, 1), swapped[:, own:].flatten(0, 1)])
    return support.mean(0), query.mean(0)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b, dim=0)
