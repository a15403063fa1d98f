"""What every method is: it remembers a support and scores a query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from FewShotSegLib.errors import CheckpointError

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


class LearnedMethod:
    """Base of the methods that learn more than the encoder: all of that is in `head`, the part `head.*` of a checkpoint.

    head: made by the method from its config; on the CPU, not trained.
    untrained: what stands in for trained parameters, as a sentence for the user; "" when nothing can.
    trained: whether the head holds trained parameters; `load_head` and the training set it.
    A config whose head depends on the encoder's features has the field `channels`, which is filled in for the user.
    """

    head: nn.Module
    untrained: ClassVar[str] = ""
    trained: bool = False

    def load_head(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over trained parameters, names without `head.`; CheckpointError when names or shapes differ."""
        try:
            self.head.load_state_dict(dict(tensors))
        except RuntimeError as error:
            found = f"The parameters of the checkpoint do not fit {type(self).__name__} with {getattr(self, 'config', None)}"
            action = "leave out the options that change the size of the head, or choose another checkpoint"
            raise CheckpointError(f"{found}: {' '.join(str(error).split())}", "its own parameters", action) from error
        self.head.eval().requires_grad_(False)
        self.trained = True


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (n k h w) -> (n k H W) at image resolution, bilinear between pixel centres."""
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)
