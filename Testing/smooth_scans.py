"""Scans whose features are known everywhere: random smooth fields sampled at any positions. For the tests of dense matching."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures, cell_positions

SLICE_MM, CELL_MM = 8.0, 10.0
Field = Callable[[Tensor], Tensor]


def random_field(seed: int = 0, channels: int = 32, length_mm: float = 25.0, waves: int = 48) -> Field:
    """A smooth random field: positions (..., 3) in mm as (slice, row, column) -> unit features (..., channels)."""
    generator = torch.Generator().manual_seed(seed)
    frequencies = torch.randn(3, waves, generator=generator) / length_mm
    phases = torch.rand(waves, generator=generator) * 2 * torch.pi
    mixing = torch.randn(waves, channels, generator=generator)
    return lambda mm: F.normalize((mm @ frequencies + phases).sin() @ mixing, dim=-1)


def ellipse(n: int, h: int, w: int) -> Tensor:
    """A body (n, h, w) that leaves a rim of air."""
    _, y, x = cell_positions(n, h, w).T.reshape(3, n, h, w)
    return ((((y + 0.5) / h - 0.5) / 0.47) ** 2 + (((x + 0.5) / w - 0.5) / 0.47) ** 2 < 1).float()


def scan_of(
    field: Field,
    size: tuple[int, int, int],
    where: Callable[[Tensor], Tensor] = lambda mm: mm,
    slice_mm: float = SLICE_MM,
    cell_mm: float = CELL_MM,
) -> ScanFeatures:
    """A scan of (slices, rows, columns) cells that shows, at its own position p (mm), the field at `where(p)` (mm)."""
    mm = cell_positions(*size) * torch.tensor([slice_mm, cell_mm, cell_mm])
    features = field(where(mm)).reshape(*size, -1).permute(0, 3, 1, 2)
    return ScanFeatures(features.contiguous(), ellipse(*size), slice_mm, cell_mm)
