"""Scans whose features are known everywhere: random smooth fields sampled at any positions. For the tests of dense matching."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures, cell_positions
from FewShotSegLib.encoders import STRIDE
from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.grid import AxialGrid
from FewShotSegLib.volume import Geometry

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


def encoded_of(scan: ScanFeatures, slices: Sequence[int] | None = None) -> EncodedScan:
    """The same as an encoded scan of 8 x 8 pixels a cell; `slices`: where on the grid its slices lie (all in turn)."""
    n, h, w = scan.body.shape
    chosen = np.arange(n) if slices is None else np.asarray(slices)
    pixel_mm = scan.cell_mm / STRIDE
    geometry = Geometry((w * STRIDE, h * STRIDE, int(chosen[-1]) + 1), (pixel_mm, pixel_mm, scan.slice_mm))
    return EncodedScan(AxialGrid.of(geometry, pixel_mm=pixel_mm), chosen, scan.features, scan.body)


def ball(size: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> Tensor:
    """A block of pixels (n, H, W) bool: distance in slices along z and cells of 8 pixels in plane; centre in cells."""
    n, h, w = size
    z, y, x = cell_positions(n, h * STRIDE, w * STRIDE).T.reshape(3, n, h * STRIDE, w * STRIDE)
    y, x = (y + 0.5) / STRIDE - 0.5, (x + 0.5) / STRIDE - 0.5
    return (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2


def dice(a: Tensor, b: Tensor) -> float:
    """Overlap of two bool masks."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def random_case(
    query: tuple[int, int, int], support: tuple[int, int, int], seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random features of query and support, places inside the support, and values."""
    g = torch.Generator().manual_seed(seed)
    (n, h, w), (m, hs, ws) = query, support
    features = [torch.nn.functional.normalize(torch.randn(k, 6, *s, generator=g), dim=1) for k, *s in (query, support)]
    place = torch.rand(3, n, h, w, generator=g) * (torch.tensor([m, hs, ws]) - 1)[:, None, None, None]
    place[0] = place[0, :, :1, :1] + 0.1 * place[0]  # the cells of a slice lie at about the same height
    return features[0], features[1], place, torch.rand(m, 3, hs, ws, generator=g)
