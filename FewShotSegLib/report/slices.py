"""Which axial slices to show, their names, and their grey values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from FewShotSegLib.geometry import Geometry
from FewShotSegLib.grid import AxialGrid, axial_order
from FewShotSegLib.volume import Volume

CT_WINDOW_HU = (-150.0, 250.0)
FOREGROUND = 0.12
TOWARDS, AWAY = "LPS", "RAI"  # letters of the world's axes


def choose_slices(marked: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` slices, evenly spread from the first to the last marked one; of all, when none is marked.

    Args:
        marked: bool (slices,).
        count: how many slices there is room for, at least 1.
    """
    there = np.flatnonzero(marked)
    first, last = (there[0], there[-1]) if there.size else (0, len(marked) - 1)
    return np.unique(np.rint(np.linspace(first, last, min(count, last - first + 1))).astype(int))


def inner_slices(marked: np.ndarray, count: int) -> np.ndarray:
    """As `choose_slices`, without the ends: the middles of `count` equal parts of the extent."""
    there = np.flatnonzero(marked)
    first, stop = (there[0], there[-1] + 1) if there.size else (0, len(marked))
    return np.unique((first + (stop - first) * (2 * np.arange(count) + 1) / (2 * count)).astype(int))


def marked_slices(geometry: Geometry, labels: np.ndarray) -> np.ndarray:
    """Axial slices, from the feet to the head, on which anything is labelled, bool (slices,)."""
    (axis, *_), (flipped, *_) = axial_order(geometry)
    marked: np.ndarray = np.any(labels, axis=tuple(a for a in range(3) if a != axis))
    return marked[::-1] if flipped else marked


def slice_name(geometry: Geometry, index: int) -> str:
    """How to find a slice again: its number in the scan, from 0, where it has one, and its place, such as the height (S)."""
    (axis, *_), (flipped, *_) = axial_order(geometry)
    position = [(n - 1) / 2 for n in geometry.shape]
    position[axis] = geometry.shape[axis] - 1 - index if flipped else index
    along = int(np.abs(geometry.axes[:, 2 - axis]).argmax())
    place = f"{TOWARDS[along]} {(geometry.affine() @ (*position[::-1], 1.0))[along]:+.0f} mm"
    return f"slice {position[axis]:.0f} · {place}" if axis == 0 else place


def side_letters(geometry: Geometry) -> tuple[str, str]:
    """What lies at the left and at the right edge of a shown slice: R and L for axial ones."""
    (*_, axis), (*_, flipped) = axial_order(geometry)
    direction = geometry.axes[:, 2 - axis] * (-1 if flipped else 1)
    along = int(np.abs(direction).argmax())
    ends = AWAY[along], TOWARDS[along]
    return ends if direction[along] > 0 else ends[::-1]


@dataclass(frozen=True, eq=False)
class Window:
    """The brightness range that is shown from black to white."""

    low: float
    high: float

    @classmethod
    def of(cls, volume: Volume) -> Window:
        """Soft tissue for CT; for everything else from the darkest to the 99.5th percentile of the finite values."""
        if volume.is_ct:
            return cls(*CT_WINDOW_HU)
        step = max(1, volume.array.size // 2_000_000)
        sample = volume.array.reshape(-1)[::step].astype(np.float32)
        sample = sample[np.isfinite(sample)]
        return cls(*np.percentile(sample, (0.5, 99.5))) if sample.size else cls(0.0, 1.0)

    def grey(self, values: np.ndarray) -> np.ndarray:
        """Values as 0 (black) to 1 (white), float32; what is not a number is black."""
        span = self.high - self.low
        scaled = (values - self.low) / span if span > 0 else np.zeros_like(values)
        return np.clip(np.nan_to_num(scaled, nan=0.0), 0, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class View:
    """The chosen axial slices of a scan, cut to the body: rows run to the back, columns to the patient's left."""

    grid: AxialGrid
    slices: np.ndarray
    rows: slice
    columns: slice

    @classmethod
    def of(cls, volume: Volume, labels: np.ndarray, window: Window, slices: np.ndarray, pixels: int) -> View:
        """The view in which the longer side of the body is `pixels` long; `labels` (z, y, x) are never cut off."""
        coarse = AxialGrid.of(volume.geometry, pixel_mm=_longer_side(volume.geometry) / 128)
        body = window.grey(coarse.forward_slices(volume.array, slices, order=1, fill=window.low)) > FOREGROUND
        body = ndimage.binary_opening(body, np.ones((1, 3, 3)))
        shown = (body | (coarse.forward_slices(labels, slices, order=0, fill=0) > 0)).any(0)
        box = _box(shown)
        longest = max(side.stop - side.start for side in box)
        grid = AxialGrid.of(volume.geometry, pixel_mm=coarse.pixel_mm * longest / pixels)
        finer = coarse.pixel_mm / grid.pixel_mm
        rows, columns = (_rescaled(side, n, m, finer) for side, n, m in zip(box, coarse.shape[1:], grid.shape[1:], strict=True))
        return cls(grid, slices, rows, columns)

    def image(self, volume: Volume, window: Window) -> np.ndarray:
        """Grey values 0..1, float32 (slice, row, column)."""
        values = self.grid.forward_slices(volume.array, self.slices, order=1, fill=window.low)
        return window.grey(values[:, self.rows, self.columns])

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """How much of each pixel a mask bool (z, y, x) covers, 0..1 float32 (slice, row, column)."""
        return self.grid.forward_slices(mask, self.slices, order=1, fill=0)[:, self.rows, self.columns]


def _longer_side(geometry: Geometry) -> float:
    """Longer side of an axial slice, mm."""
    _, *in_plane = axial_order(geometry)[0]
    return max(geometry.shape[axis] * geometry.spacing[2 - axis] for axis in in_plane)


def _box(shown: np.ndarray) -> tuple[slice, slice]:
    """The rectangle around everything that is set, with a small margin; the whole where nothing is."""
    sides = []
    for axis in (1, 0):
        there = np.flatnonzero(shown.any(axis))
        n = shown.shape[1 - axis]
        sides.append(slice(max(there[0] - 3, 0), min(there[-1] + 4, n)) if there.size else slice(0, n))
    return sides[0], sides[1]


def _rescaled(side: slice, n: int, m: int, finer: float) -> slice:
    """A range on an axis of `n` pixels as the same range on one of `m` pixels, `finer` times smaller, with the same middle."""
    start, stop = (round((end - n / 2) * finer + m / 2) for end in (side.start, side.stop))
    return slice(max(start, 0), min(stop, m))
