"""An organ cut into regions: farthest-point seeds, Voronoi cells, one prototype each. Pure functions.

Source: RPT (MICCAI 2023) and PAMI (IEEE TIM 2024), adnet_qnet_rpt_pami_qamp.md section 6.1.
Axes: c channels, h w feature cells, H W pixels, n cells of the organ, k regions. Distances are squared, in cells.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

HALF = 0.5


def organ_cells(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The cells (h w) bool that the mask (H W), 0..1, covers by half or more; if there is none, the cells it covers most.

    An empty mask has no cells.
    """
    fractions = F.adaptive_avg_pool2d(mask[None, None].float(), size)[0, 0]
    threshold = fractions.max().clamp(max=HALF)
    return (fractions >= threshold) & (fractions > 0)


def touched_cells(mask: Tensor, size: tuple[int, int], at_least: int) -> Tensor:
    """The published choice: cells (h w) bool whose bilinear sample of the mask (H W) is above 0.

    When they are fewer than `at_least`, that many cells at the top of the map are added, organ or not.
    """
    sampled = F.interpolate(mask[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]
    cells = sampled > 0
    if int(cells.sum()) < at_least:
        cells.view(-1)[:at_least] = True
    return cells


def middle_cell(positions: Tensor) -> int:
    """Index of the position (n 2) that is nearest to the mean of all; the first of equals."""
    return int((positions - positions.double().mean(0)).square().sum(1).argmin())


def farthest_points(positions: Tensor, count: int, first: int) -> Tensor:
    """Indices (count) of positions (n 2), int64: `first`, then again and again the one farthest from all chosen before.

    The first of equally far positions is taken; when all are chosen, that is position 0 again.
    """
    chosen = [first]
    distance = _squared_distance(positions, positions[first])
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, _squared_distance(positions, positions[chosen[-1]]))
    return torch.tensor(chosen, device=positions.device)


def voronoi(cells: Tensor, seeds: Tensor) -> Tensor:
    """The region of every cell: cells (h w) bool, seeds (k 2) row and column -> (h w) int64, -1 outside `cells`.

    A cell belongs to its nearest seed, the first of equally near ones.
    """
    regions = torch.full(cells.shape, -1, dtype=torch.int64, device=cells.device)
    positions = cells.nonzero()
    if len(positions):
        regions[cells] = (positions[:, None] - seeds[None]).square().sum(2).argmin(1)
    return regions


def cut(cells: Tensor, count: int, first: int | None = None) -> Tensor:
    """Cells (h w) bool cut into `count` regions, or into single cells when they are fewer: (h w) int64, -1 outside.

    `first`: number, in raster order, of the cell that is the first seed; the middle one by default.
    """
    positions = cells.nonzero()
    if not len(positions):
        return torch.full(cells.shape, -1, dtype=torch.int64, device=cells.device)
    start = middle_cell(positions) if first is None else first
    return voronoi(cells, positions[farthest_points(positions, min(count, len(positions)), start)])


def regional_prototypes(features: Tensor, regions: Tensor) -> Tensor:
    """The mean feature of every region: features (c h w), regions (h w) int64 -> (k c), k = highest number + 1.

    Numbers below zero belong to no region.
    """
    members = F.one_hot(regions[regions >= 0]).to(features.dtype)
    return members.T @ features[:, regions >= 0].T / members.sum(0)[:, None]


def _squared_distance(positions: Tensor, point: Tensor) -> Tensor:
    return (positions - point).square().sum(1)
