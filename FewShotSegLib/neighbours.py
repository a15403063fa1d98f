"""The cells of one scan ask one another, again and again: windowed attention whose weights are computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from FewShotSegLib.windows import Look, Window, blocks_of, cell_positions, centred, fast_type, unblocked

KEPT_BYTES = 600e6  # of weights; those beyond are computed again each time


class Neighbours:
    """Attention of a scan's cells to the cells in a window around them, in the same scan.

    Args:
        features: unit features (n, c, h, w).
        window: in the scan's own cells.
        wanted: bool (n, h, w); blocks of cells without any do not ask.
    """

    def __init__(self, features: Tensor, window: Window, wanted: Tensor) -> None:
        n, _, h, w = features.shape
        cells, kind = features.permute(0, 2, 3, 1), fast_type(features.device)
        self._asking = blocks_of(centred(cells, window.temperature, kind))
        self._near = blocks_of(cell_positions(n, h, w, features.device).view(n, h, w, 3))
        self._look = Look(cells, kind, window)
        self._parts = list(self._look.groups(self._near, wanted))
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._bytes = 0

    def mean(self, values: Tensor) -> Tensor:
        """What the neighbours of every cell hold of `values` (n, v, h, w), weighted by attention; 0 where nobody asks."""
        n, v, h, w = values.shape
        held = values.permute(0, 2, 3, 1).flatten(0, 2).to(self._look.keys.dtype)
        found = values.new_zeros(len(self._near), self._near.shape[1], v)
        for number, some in enumerate(self._parts):
            index, weights = self._weights(number, some)
            found[some] = torch.bmm(weights, held.index_select(0, index.flatten()).view(*index.shape, v)).float()
        return unblocked(found, (n, h, w)).permute(0, 3, 1, 2)

    def _weights(self, number: int, some: Tensor) -> tuple[Tensor, Tensor]:
        if number in self._kept:
            return self._kept[number]
        index, weights = self._look.weigh(self._asking[some], self._near[some])
        weights /= weights.sum(2, keepdim=True)
        size = weights.numel() * weights.element_size()
        if self._bytes + size <= KEPT_BYTES:
            self._kept[number] = index, weights.clone()
            self._bytes += size
        return index, weights
