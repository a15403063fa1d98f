"""A batch of few-shot tasks: what every published method's training step is given.

The masks are pseudo-labels (a superpixel, a supervoxel, a region carried by a flow), never drawings of a person.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Episodes:
    """Episodes of one region each. Axes: b episodes, s support slices, q query slices, H W pixels (multiples of 8).

    support, query: grey values (b s H W) and (b q H W), float32, z-scored over the scan.
    support_masks, query_masks: float32, 0 or 1, of the same shapes. A support mask may be empty only after an augmentation
    has moved its region out of the image.
    realistic: (b,) bool; the queries are unchanged neighbours of the support, ascending in z (VISA-FSS), instead of a
    transformed copy or another slice of the supervoxel.

    For a 3D method s and q count consecutive slices: a (b s H W) tensor is a batch of volumes.
    """

    support: Tensor
    support_masks: Tensor
    query: Tensor
    query_masks: Tensor
    realistic: Tensor

    def __len__(self) -> int:
        return len(self.support)

    def __getitem__(self, chosen: Tensor | slice) -> Episodes:
        """Some of the episodes: a slice, indices, or (b,) bool."""
        return Episodes(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def to(self, device: torch.device | str) -> Episodes:
        """The same episodes on `device`."""
        return Episodes(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))

    @staticmethod
    def join(parts: list[Episodes]) -> Episodes:
        """Batches with equal numbers of slices as one."""
        return Episodes(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Episodes)))
