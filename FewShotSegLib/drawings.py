"""A support as the methods see it: encoded slices and what is drawn on them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.encoding import EncodedScan, cell_fractions, encode_scan
from FewShotSegLib.errors import SupportError
from FewShotSegLib.grid import AxialGrid
from FewShotSegLib.pieces import count_pieces
from FewShotSegLib.support import Support


@dataclass(frozen=True, eq=False)
class EncodedSupport:
    """An encoded scan with its drawings: `masks` (organ, n, H, W) float16 0..1 on the encoded slices, `drawn` (organ, n).

    `completed`: fractions on all slices, by the options they were completed with (`strategies.answer.completed`).
    """

    scan: EncodedScan
    masks: Tensor
    drawn: np.ndarray
    completed: dict[Hashable, Tensor] = field(default_factory=dict, repr=False)

    def values(self, organs: list[int]) -> Tensor:
        """Area fractions (n, 1 + organs, h, w) of background and the chosen organs."""
        fractions = torch.stack([cell_fractions(self.masks[o].float()) for o in organs], 1)
        background = (1 - fractions.sum(1, keepdim=True)).clamp(min=0)
        return torch.cat([background, fractions], 1)

    @cached_property
    def pieces(self) -> tuple[int, ...]:
        """How many connected pieces each organ has: in the scan, or at the most on a slice where only slices were drawn."""
        masks = [(mask > 0.5).numpy() for mask in self.masks]
        return tuple(
            count_pieces(mask) if drawn.all() else max((count_pieces(part) for part in mask[drawn]), default=1)
            for mask, drawn in zip(masks, self.drawn, strict=True)
        )

    def groups(self) -> Iterator[tuple[list[int], np.ndarray]]:
        """Organs that share their drawn slices: (organ numbers, indices of these slices among the encoded ones)."""
        patterns: dict[bytes, list[int]] = {}
        for organ, row in enumerate(self.drawn):
            patterns.setdefault(row.tobytes(), []).append(organ)
        for organs in patterns.values():
            yield organs, np.flatnonzero(self.drawn[organs[0]])


def encode_support(
    support: Support,
    runner: FeatureRunner,
    *,
    every_mm: float,
    pixel_mm: float | None = None,
    step: Callable[[float], None] = lambda part: None,
) -> EncodedSupport:
    """Encode a support's scan, every drawn slice of sparsely drawn organs included.

    Raises:
        SupportError: single slices were drawn that are not axial.
    """
    grid = AxialGrid.of(support.image.geometry, pixel_mm=pixel_mm)
    drawn = _on_grid(support, grid)
    sparse = drawn[~drawn.all(1)]
    also = np.flatnonzero(sparse.any(0)).tolist()
    scan = encode_scan(support.image, runner, every_mm=every_mm, pixel_mm=grid.pixel_mm, also=also, step=step)
    masks = [torch.from_numpy(grid.forward_slices(m, scan.slices, order=1, fill=0.0)).half() for m in support.masks]
    return EncodedSupport(scan, torch.stack(masks), drawn[:, scan.slices])


def _on_grid(support: Support, grid: AxialGrid) -> np.ndarray:
    """Which slices of the grid are drawn: bool (organ, slices)."""
    if not support.is_sparse:
        return np.ones((len(support.organs), grid.shape[0]), bool)
    if not grid.native_slice_axis_is_axial:
        raise SupportError(
            "Single slices were drawn on a scan whose slices are not axial",
            "drawings on axial slices, or a drawing of the whole organ",
            "draw on axial slices, or draw the organ on every slice",
        )
    return support.drawn[:, [k for i in range(grid.shape[0]) if (k := grid.native_of_slice(i)) is not None]]
