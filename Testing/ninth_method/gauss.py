from dataclasses import dataclass

import torch
from torch import Tensor

from FewShotSegLib.prototypes import area_fractions


@dataclass(frozen=True)
class GaussConfig:  # its options
    floor: float = 0.05


@dataclass(frozen=True)
class GaussMemory:  # what it keeps of a support: a few small tensors (2 c)
    mean: Tensor
    spread: Tensor

    def to(self, device: torch.device | str) -> "GaussMemory":
        return GaussMemory(self.mean.to(device), self.spread.to(device))


class Gauss:
    """A bell curve in every channel for background and organ; a cell belongs to the likelier one."""

    name, default_strategy = "gauss", "direct"

    def __init__(self, config: GaussConfig | None = None) -> None:
        self.config = config or GaussConfig()

    def remember(self, features: Tensor, masks: Tensor) -> GaussMemory:  # (s c h w), (s H W) 0..1
        organ = area_fractions(masks, (features.shape[2], features.shape[3]))
        weights = torch.stack([1 - organ, organ])
        weights = weights / weights.sum((1, 2, 3), keepdim=True).clamp(min=1e-6)
        mean, square = (torch.einsum("kshw,schw->kc", weights, f) for f in (features, features**2))
        return GaussMemory(mean, (square - mean**2).clamp(min=self.config.floor**2).sqrt())

    def score(self, features: Tensor, memory: GaussMemory) -> Tensor:  # (n c h w) -> (n 2 h w)
        mean, spread = (t[None, :, :, None, None] for t in (memory.mean, memory.spread))
        return -(((features[:, None] - mean) / spread) ** 2 / 2 + spread.log()).sum(2)
