"""ADNet-3D (Hansen et al., Medical Image Analysis 2022): ADNet on features of whole volumes, section 4.4.

One prototype of all of the organ, from every drawn slice at once, teaches every slice. The features are those of a 3D encoder
(`resnext3d101`, or the smaller `resnext3d50`); with a 2D encoder the same head works slice by slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.methods.adnet import Adnet, AdnetConfig, AdnetMemory
from FewShotSegLib.prototypes import AREA_FLOOR, area_fractions


@dataclass(frozen=True)
class Adnet3dConfig(AdnetConfig):
    """ADNet's options; `faithful` takes the mask's nearest pixel for a cell, otherwise the covered area counts."""


class Adnet3d(Adnet):
    """ADNet on volumes: one prototype from all drawn slices together."""

    name: ClassVar[str] = "adnet3d"
    whole_volume: ClassVar[bool] = True
    config: Adnet3dConfig

    def __init__(self, config: Adnet3dConfig | None = None) -> None:
        super().__init__(config or Adnet3dConfig())

    def remember(self, features: Tensor, masks: Tensor) -> AdnetMemory:
        """Prototype of a volume: features (d c h w), masks (d H W), 0..1; every voxel of the organ weighs the same."""
        cells = self.cells(masks.to(features.dtype), (features.shape[2], features.shape[3]))
        prototype = (features * cells[:, None]).sum((0, 2, 3)) / (cells.sum() + AREA_FLOOR)
        return AdnetMemory(prototype, self.threshold(features, masks, prototype))

    def cells(self, masks: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks (d H W) on the feature grid: (d h w)."""
        if self.config.faithful:
            return F.interpolate(masks[:, None], size, mode="nearest")[:, 0]
        return area_fractions(masks, size)

    def average(self, memories: Sequence[AdnetMemory]) -> AdnetMemory:
        """What several volumes teach together."""
        return AdnetMemory(
            torch.stack([m.prototype for m in memories]).mean(0), torch.stack([m.threshold for m in memories]).mean()
        )
