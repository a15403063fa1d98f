"""What every method is: it remembers a support and scores a query."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

M = TypeVar("M")


class Memory(Protocol):
    """What a method keeps of a support: a few small tensors, cacheable, movable between devices."""

    def to(self, device: torch.device | str) -> Any:
        """The same memory on `device`."""
        ...


@runtime_checkable
class Method(Protocol[M]):
    """Two verbs on feature maps, for one organ. Axes: s support slices, n query slices, H W pixels, h w cells."""

    @property
    def name(self) -> str:
        """Its name in the registry."""
        ...

    @property
    def config(self) -> Any:
        """Its frozen dataclass of options."""
        ...

    def remember(self, features: Tensor, masks: Tensor) -> M:
        """What the support teaches: features (s c h w), masks (s H W) float 0..1 at image resolution."""
        ...

    def score(self, features: Tensor, memory: M) -> Tensor:
        """Logits at feature resolution: features (n c h w) -> (n 2 h w), channel 1 = organ."""
        ...


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (n k h w) -> (n k H W) at image resolution, bilinear between pixel centres."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
