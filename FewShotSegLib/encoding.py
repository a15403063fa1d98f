"""A scan as the methods see it: features of its slices, thinned to an even distance, on the network's axial grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures
from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.encoders import STRIDE
from FewShotSegLib.grid import AxialGrid, normalise
from FewShotSegLib.volume import Volume

BODY_LEVEL = -0.5  # of the normalised values: brighter counts as body


@dataclass(frozen=True, eq=False)
class EncodedScan:
    """Features of the chosen `slices` (indices on the axial grid, ascending) of a scan.

    features: (n, c, h, w) unit vectors; body: (n, h, w) area fraction of the body; image: the scan's normalised voxels
    (z, y, x), for the refinement of borders, or None.
    """

    grid: AxialGrid
    slices: np.ndarray
    features: Tensor
    body: Tensor
    image: np.ndarray | None = None

    def pixels(self, slices: np.ndarray) -> np.ndarray:
        """Normalised pixels of some of the grid's slices, float32 (slices, H, W)."""
        if self.image is None:
            raise ValueError("This scan was encoded without keeping its image")
        return self.grid.forward_slices(self.image, slices, order=1, fill=self._darkest)

    @cached_property
    def _darkest(self) -> float:
        return 0.0 if self.image is None else float(self.image.min())

    @property
    def z_mm(self) -> np.ndarray:
        """Position of each slice along the axis, mm."""
        return self.slices * self.grid.slice_mm

    def regular(self) -> ScanFeatures:
        """As evenly spaced slices, for the registration; drawn slices in between disturb the spacing of their neighbours only."""
        step = float(np.median(np.diff(self.slices))) if len(self.slices) > 1 else 1.0
        return ScanFeatures(self.features, self.body, step * self.grid.slice_mm, self.grid.pixel_mm * STRIDE)


def thinned(count: int, slice_mm: float, every_mm: float) -> np.ndarray:
    """Every k-th of `count` slices, so that they are about `every_mm` apart; thicker slices are all taken."""
    return np.arange(0, count, max(1, round(every_mm / slice_mm)))


def cell_fractions(pixels: np.ndarray | Tensor) -> Tensor:
    """Mean of each cell: (..., H, W) -> (..., H/8, W/8) float32."""
    tensor = torch.as_tensor(pixels, dtype=torch.float32)
    lead = tensor.shape[:-2]
    pooled = F.avg_pool2d(tensor.reshape(1, -1, *tensor.shape[-2:]), STRIDE)
    return pooled.reshape(*lead, *pooled.shape[-2:])


def encode_scan(
    volume: Volume,
    runner: FeatureRunner,
    *,
    every_mm: float,
    pixel_mm: float | None = None,
    also: Sequence[int] = (),
    step: Callable[[float], None] = lambda part: None,
) -> EncodedScan:
    """Encode the slices of a scan about `every_mm` apart, and the slices `also` (indices on the axial grid).

    `step` hears the done part, 0..1, after every batch. Only the chosen slices are brought to the grid.
    """
    grid = AxialGrid.of(volume.geometry, pixel_mm=pixel_mm)
    slices = np.union1d(thinned(grid.shape[0], grid.slice_mm, every_mm), np.asarray(also, int)).astype(int)
    image = normalise(volume)
    pixels = torch.from_numpy(grid.forward_slices(image, slices, order=1, fill=float(image.min())))
    features: list[Tensor] = []
    for batch in runner(pixels):
        features.append(batch)
        step(sum(map(len, features)) / len(slices))
    return EncodedScan(grid, slices, torch.cat(features), cell_fractions(pixels > BODY_LEVEL), image)
