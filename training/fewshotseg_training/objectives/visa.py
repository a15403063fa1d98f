"""What VISA-FSS (MICCAI 2023) adds to ALPNet's losses: neighbouring slices should agree (alpnet_visa.md section 8)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from fewshotseg_training.episodes import Episodes
from fewshotseg_training.objectives.alpnet import AlpnetObjective
from fewshotseg_training.objectives.base import Recipe
from FewShotSegLib.errors import ConfigError

INTERSLICE_WEIGHT = 0.5
RAMP_LEVELS = 4


def interslice_loss(logits: Tensor) -> Tensor:
    """L2.5D: one minus the mean soft Dice of the organ's probability on consecutive slices; logits (n 2 H W), sorted by z."""
    organ = logits.softmax(1)[:, 1].flatten(1)
    above, below = organ[:-1], organ[1:]
    overlap = 2 * (above * below).sum(1) / (above.sum(1) + below.sum(1))
    return 1 - overlap.mean()


def area_change(logits: Tensor) -> Tensor:
    """Mean absolute change, in pixels, of the organ's soft area between consecutive slices; logits (n 2 H W), sorted by z.

    The released code computes it with weight zero.
    """
    return logits.softmax(1)[:, 1].sum((1, 2)).diff().abs().mean()


STAGES = {
    1: Recipe(source="superpixel", transformed="both", reach=3, steps=100_000, decay=0.98),
    2: Recipe(source="flow", query=4, transformed="none", steps=4_000, lr=1e-5, decay=0.98),
}


class VisaObjective(AlpnetObjective):
    """VISA-FSS: ALPNet's losses; in stage 2, episodes of neighbouring slices and the loss of their agreement.

    Options: `stage` 1 or 2, `ramp`, and those of `VisaConfig`. The weight of the agreement rises from 0 to 0.5 in four equal
    parts of `ramp` steps, as in the paper; with `ramp=0` it is 0.5 from the start, as in the released code.
    """

    name: ClassVar[str] = "visa"

    def __init__(self, channels: int = 256, *, stage: int = 2, ramp: int = 4000, **options: Any) -> None:
        super().__init__(channels, **options)
        if stage not in STAGES or ramp < 0:
            raise ConfigError(f"stage {stage}, ramp {ramp}", "stage 1 or 2, ramp of 0 or more steps", "correct the option")
        self.stage, self.ramp, self.recipe = stage, ramp, STAGES[stage]

    def interslice_weight(self, step: int) -> float:
        """Weight of the agreement at a step."""
        if not self.ramp:
            return INTERSLICE_WEIGHT
        return INTERSLICE_WEIGHT * min(1.0, step * RAMP_LEVELS // self.ramp / (RAMP_LEVELS - 1))

    def loss(self, encoder: nn.Module, episodes: Episodes, generator: Generator, *, step: int = 0) -> dict[str, Tensor]:
        """Segmentation, alignment and, of realistic episodes, the agreement of neighbouring queries."""
        found = self.losses(encoder, episodes)
        terms = {
            "query": torch.stack([loss.query for loss in found]).mean(),
            "alignment": torch.stack([loss.alignment for loss in found]).mean(),
        }
        agree = [
            interslice_loss(f.logits) for f, real in zip(found, episodes.realistic, strict=True) if real and len(f.logits) > 1
        ]
        if agree:
            terms["interslice"] = self.interslice_weight(step) * torch.stack(agree).sum() / len(found)
        return terms
