"""What is done to a scan before training: our way, which is that of use, and the papers' (alpnet_visa.md, 1.2 and 1.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from FewShotSegLib.encoding import thinned
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.grid import CT_WINDOW, DEFAULT_PIXELS, MR_PERCENTILE, AxialGrid
from FewShotSegLib.volume import Volume

SIZE = 256
PAPER_MM = (1.25, 1.25, 7.7)  # of MR scans, (x, y, z)
CT_BORDER = 32 / 512  # of the width of a CT slice, cut from every side
Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Slices:
    """Grey values (z, y, x) ready to be z-scored, spacing (z, y, x) in mm, and the label map on the same slices, or None."""

    values: np.ndarray
    spacing: Spacing
    labels: np.ndarray | None = None


def fit_square(array: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Centre-crop or pad (with the minimum) the last two axes to `size`."""
    out = np.full((len(array), size, size), array.min(), array.dtype)
    cut = [max(0, (n - size) // 2) for n in array.shape[1:]]
    array = array[:, cut[0] : cut[0] + size, cut[1] : cut[1] + size]
    pad = [(size - n) // 2 for n in array.shape[1:]]
    out[:, pad[0] : pad[0] + array.shape[1], pad[1] : pad[1] + array.shape[2]] = array
    return out


def general(volume: Volume, labels: np.ndarray | None, every_mm: float, size: int) -> Slices:
    """Axial slices about `every_mm` apart, `size` pixels along the longer side, clipped as at use.

    `labels` (z, y, x), of the volume's shape, come along. Raises VolumeError for NaN or infinite voxels, or all alike.
    """
    whole = AxialGrid.of(volume.geometry)
    grid = AxialGrid.of(volume.geometry, pixel_mm=whole.pixel_mm * DEFAULT_PIXELS / size)
    slices = thinned(grid.shape[0], grid.slice_mm, every_mm)
    values = fit_square(grid.forward_slices(volume.array, slices, order=1, fill=float(volume.array.min())), size)
    array = values.clip(*CT_WINDOW) if volume.is_ct else np.minimum(values, np.percentile(values, MR_PERCENTILE))
    check_contrast(values, array, volume.name)
    step = int(slices[1] - slices[0]) if len(slices) > 1 else 1
    moved = None if labels is None else fit_square(grid.forward_slices(labels, slices, order=0, fill=0), size)
    return Slices(array, (grid.slice_mm * step, grid.pixel_mm, grid.pixel_mm), moved)


def training_slices(volume: Volume, every_mm: float, size: int) -> tuple[np.ndarray, Spacing]:
    """Values and spacing of `general`."""
    found = general(volume, None, every_mm, size)
    return found.values, found.spacing


def check_contrast(values: np.ndarray, clipped: np.ndarray, name: str) -> None:
    """Raise VolumeError for values that are not finite, or all alike after clipping."""
    if not np.isfinite(values).all() or clipped.min() == clipped.max():
        raise VolumeError(
            f"The voxels of {name} are NaN, infinite, or all alike",
            "a scan with contrast",
            "repair the scan, or take it out of the folder",
        )


# ---------------------------------------------------------------------------------------------- the papers
def paper(volume: Volume, labels: np.ndarray | None, size: int = SIZE) -> Slices:
    """As SSL-ALPNet and its heirs prepare MR and CT scans."""
    check_contrast(volume.array, volume.array, volume.name)
    spacing = volume.spacing
    if volume.is_ct:
        values, factor = paper_ct(volume.array)
        moved = None if labels is None else resample(_without_border(labels), (1, 1, 1), (factor, factor, 1), nearest=True)
        return Slices(values[:, :SIZE, :SIZE], (spacing[2], spacing[1] * factor, spacing[0] * factor), moved)
    values = crop(paper_mr(volume.array, spacing), (size, size))
    moved = None if labels is None else crop(resample(labels, spacing, PAPER_MM, nearest=True), (size, size))
    return Slices(values, PAPER_MM[::-1], moved)


def paper_mr(array: np.ndarray, spacing: Spacing, target: Spacing = PAPER_MM) -> np.ndarray:
    """MR (z, y, x): the brightest half percent clipped, resampled linearly from `spacing` to `target` (x, y, z) mm.

    As published, the clipping level of an integer scan is truncated, and so are, rounded, its interpolated values.
    """
    level = np.percentile(array, MR_PERCENTILE)
    clipped = np.minimum(array, array.dtype.type(level) if array.dtype.kind in "iu" else level).astype(array.dtype)
    return resample(clipped, spacing, target)


def paper_ct(array: np.ndarray) -> tuple[np.ndarray, float]:
    """CT (z, y, x) in HU: window stretched to 0..255, borders cut, in-plane resampled; also the factor of the pixels' side.

    Width 512 gives 257 pixels and one empty slice at the end, as published; the loaders keep the first 256 pixels.
    """
    windowed = array.astype(np.float32).clip(*CT_WINDOW)
    windowed = 255 * (windowed - windowed.min()) / max(windowed.max() - windowed.min(), 1e-6)
    inner = _without_border(windowed)
    factor = inner.shape[2] / SIZE
    return resample(inner, (1, 1, 1), (factor, factor, 1)), factor


def _without_border(array: np.ndarray) -> np.ndarray:
    cut = round(array.shape[2] * CT_BORDER)
    return array[:, cut : array.shape[1] - cut, cut : array.shape[2] - cut]


def resample(array: np.ndarray, spacing: Spacing, target: Spacing, *, nearest: bool = False) -> np.ndarray:
    """Array (z, y, x) resampled from `spacing` to `target` (x, y, z) mm; zero outside.

    Output sizes are floor(n * old / new + 1), as published: one more than needed where the ratio is whole.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing([float(s) for s in spacing])
    size = [int(n * old / new + 1) for n, old, new in zip(image.GetSize(), spacing, target, strict=True)]
    way = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    moved = sitk.Resample(
        image, size, sitk.Transform(), way, image.GetOrigin(), [float(t) for t in target], image.GetDirection(), 0.0
    )
    return sitk.GetArrayFromImage(moved)


def crop(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Rows and columns cut or padded (with the minimum) around index n // 2, as published."""
    canvas = np.full((len(array), size[0] + 1, size[1] + 1), array.min(), array.dtype)
    places = []
    for n, wanted in zip(array.shape[1:], size, strict=True):
        half, centre = (wanted + 1) // 2, n // 2
        before, after = min(half, centre), min(half, n - centre)
        places.append((slice(half - before, half + after), slice(centre - before, centre + after)))
    (to_rows, rows), (to_columns, columns) = places
    canvas[:, to_rows, to_columns] = array[:, rows, columns]
    return canvas[:, : size[0], : size[1]]
