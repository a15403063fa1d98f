"""From any scan to the network's axial grid and exactly back, and the normalisation of voxel values.

The axial grid has the axes (slices, rows, columns), growing towards superior, posterior and left: the LPS order of ITK. A scan
of thick slices in another plane (a short axis of the heart, a sagittal spine) keeps these as the grid's slices. The grid is
reached from the scan's own grid by (1) swapping and flipping axes, to the closest ones for an oblique scan, (2) resampling
within the slices to square pixels, (3) padding rows and columns, centred, to multiples of 8. Slices are never interpolated.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from FewShotSegLib.errors import ConfigError, VolumeError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.resampling import resample_slices
from FewShotSegLib.volume import Volume

DEFAULT_PIXELS = 256  # along the longer side of a slice
MULTIPLE = 8  # the stride of the encoders
CT_WINDOW = (-125, 275)  # HU
MR_PERCENTILE = 99.5
THICK = 1.5  # times the other sides of a voxel: slices from there on
BLOCK_PIXELS = 1 << 22  # resampled at a time, to bound the memory


@dataclass(frozen=True)
class AxialGrid:
    """The network's grid for scans on the `native` geometry.

    Args:
        native: the scan's own grid.
        pixel_mm: side of the square pixels, mm. The field of view is kept, so that the two sides are rounded to whole pixels.
        slice_mm: distance between slices, mm, as in the scan.
        shape: (slices, rows, columns); rows and columns are multiples of 8.
    """

    native: Geometry
    pixel_mm: float
    slice_mm: float
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, geometry: Geometry, *, pixel_mm: float | None = None) -> AxialGrid:
        """The grid for a geometry; without `pixel_mm` the longer side of a slice gets 256 pixels.

        Raises:
            ConfigError: `pixel_mm` is not positive.
        """
        if pixel_mm is not None and not pixel_mm > 0:
            raise ConfigError(f"A pixel size of {pixel_mm} mm", "a positive number of mm, such as 1.25")
        fields = _field_mm(geometry)
        pixel = pixel_mm or max(fields) / DEFAULT_PIXELS
        slices, _ = axial_order(geometry)
        rows, columns = (-(-_whole_pixels(mm, pixel) // MULTIPLE) * MULTIPLE for mm in fields)
        return cls(geometry, pixel, geometry.spacing[2 - slices[0]], (geometry.shape[slices[0]], rows, columns))

    @property
    def native_slice_axis_is_axial(self) -> bool:
        """Whether the scan's own slices (its k axis) are the slices of the grid."""
        return axial_order(self.native)[0][0] == 0

    def slice_of_native(self, k: int) -> int | None:
        """The slice of the grid that holds the scan's own slice `k`; None when these are not axial.

        Raises:
            VolumeError: the scan has no slice `k`.
        """
        count = self.native.shape[0]
        if not 0 <= k < count:
            raise VolumeError(f"Slice {k}", f"one of the scan's {count} slices, 0 to {count - 1}")
        if not self.native_slice_axis_is_axial:
            return None
        return count - 1 - k if axial_order(self.native)[1][0] else k

    def native_of_slice(self, index: int) -> int | None:
        """The scan's own slice that lies in slice `index` of the grid; None when these are not axial."""
        return self.slice_of_native(index)

    def forward(self, array: np.ndarray, *, order: int, fill: float) -> np.ndarray:
        """Bring voxels of the scan onto the grid.

        Args:
            array: (z, y, x) on the native grid.
            order: 0 for the nearest voxel (labels; the type is kept), 1 for linear (images; float32, smoothed when it shrinks).
            fill: value of the padding.

        Returns:
            (slices, rows, columns).
        """
        _expect(array.shape, self.native.shape, "the scan's grid (z, y, x)")
        result = np.full(self.shape, fill, dtype=np.float32 if order else array.dtype)
        _resample(self._axial(array), self._content(result), order)
        return result

    def forward_slices(self, array: np.ndarray, slices: np.ndarray, *, order: int, fill: float) -> np.ndarray:
        """The chosen `slices` (indices on the grid) of `forward`, without computing the others."""
        _expect(array.shape, self.native.shape, "the scan's grid (z, y, x)")
        result = np.full((len(slices), *self.shape[1:]), fill, dtype=np.float32 if order else array.dtype)
        _resample(self._axial(array)[slices], self._content(result), order)
        return result

    def backward_slices(self, array: np.ndarray, *, order: int) -> np.ndarray:
        """Some slices of the grid, (..., slices, rows, columns), with the scan's own voxels in plane, axes still axial."""
        _expect(array.shape[-2:], self.shape[1:], "the axial grid's (rows, columns)")
        _, row, column = axial_order(self.native)[0]
        size = (*array.shape[:-2], self.native.shape[row], self.native.shape[column])
        result = np.empty(size, dtype=np.float32 if order else array.dtype)
        for index in np.ndindex(array.shape[:-3]):
            _resample(self._content(array[index]), result[index], order)
        return result

    def restore(self, axial: np.ndarray) -> np.ndarray:
        """All slices of `backward_slices`, (slices, rows, columns), with their axes as in the scan, (z, y, x)."""
        result = np.empty(self.native.shape, axial.dtype)
        self._axial(result)[...] = axial
        return result

    def forward_fraction(self, mask: np.ndarray) -> np.ndarray:
        """The share of each pixel of the grid that a mask (z, y, x) of the scan covers, 0 to 1, float32."""
        return self.forward(mask.astype(bool, copy=False), order=1, fill=0)

    def backward(self, array: np.ndarray, *, order: int) -> np.ndarray:
        """Bring values on the grid, (..., slices, rows, columns), to the scan's own grid, (..., z, y, x).

        `order` is as in `forward`: 0 keeps the type, 1 gives float32.
        """
        _expect(array.shape[-3:], self.shape, "the axial grid (slices, rows, columns)")
        leading = array.shape[:-3]
        result = np.empty((*leading, *self.native.shape), dtype=np.float32 if order else array.dtype)
        for index in np.ndindex(leading):
            _resample(self._content(array[index]), self._axial(result[index]), order)
        return result

    def _axial(self, array: np.ndarray) -> np.ndarray:
        """A view of an array on the native grid with the axes swapped and flipped to (slices, rows, columns)."""
        axes, flipped = axial_order(self.native)
        return array.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]

    def _content(self, array: np.ndarray) -> np.ndarray:
        """A view of an array on this grid without its padding."""
        sizes = [_whole_pixels(mm, self.pixel_mm) for mm in _field_mm(self.native)]
        top, left = ((padded - size) // 2 for padded, size in zip(self.shape[1:], sizes, strict=True))
        return array[:, top : top + sizes[0], left : left + sizes[1]]


def axial_order(geometry: Geometry) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Which axes of an array (z, y, x) are slices, rows and columns, and which of them run the other way on the grid.

    The slices are axial, but for a scan whose slices are thick in another direction: these stay its slices, because pixels
    must not be longer than the details to find. Then rows run towards inferior, as sagittal and coronal slices are shown.
    """
    towards = geometry.axes[::-1, ::-1]  # rows: superior, posterior, left; columns: the array's axes z, y, x
    axes = max(permutations(range(3)), key=lambda order: sum(abs(towards[row, axis]) for row, axis in enumerate(order)))
    thick = _thick_axis(geometry)
    if thick in (None, axes[0]):
        return axes, tuple(bool(towards[row, axis] < 0) for row, axis in enumerate(axes))
    rows, columns = sorted({0, 1, 2} - {thick}, key=lambda axis: -abs(towards[0, axis]))
    slices = int(thick)
    # Diagonals that are far from every usual plane, so that a small tilt does not flip a double-oblique scan of the heart.
    flipped = (towards[:, slices] @ (1, 1, -1) < 0, towards[0, rows] > 0, towards[:, columns] @ (0, 1, 1) < 0)
    return (slices, rows, columns), tuple(map(bool, flipped))


def _thick_axis(geometry: Geometry) -> int | None:
    """The axis of an array (z, y, x) along which voxels are clearly longer than along the others; None when there is none."""
    lengths = geometry.spacing[::-1]
    longest = int(np.argmax(lengths))
    return longest if lengths[longest] >= THICK * sorted(lengths)[1] else None


def normalise(volume: Volume) -> np.ndarray:
    """Voxel values as the encoders expect them: clipped, then mean 0 and standard deviation 1 over all voxels, float32.

    MR is clipped above its 99.5th percentile, CT to -125..275 HU (SSL-ALPNet, section 4.1). The order of the axes does not
    change a voxel's value, not even in its last bit.

    Raises:
        VolumeError: NaN or infinite voxels, or all voxels alike after clipping.
    """
    values = volume.array.astype(np.float32)
    _refuse_non_finite(values, volume.name)
    low, high = CT_WINDOW if volume.is_ct else (None, np.percentile(values, MR_PERCENTILE))
    np.clip(values, low, high, out=values)
    if values.min() == values.max():
        within = "between -125 and 275 HU" if volume.is_ct else "below its 99.5th percentile"
        raise VolumeError(
            f"All voxels of {volume.name or 'the scan'} have the same value {within}",
            "a scan with contrast",
            "check that the file holds the scan, and not a mask or an empty export",
        )
    values -= np.float32(values.mean(dtype=np.float64))
    variance = sum(float(np.square(plane, dtype=np.float64).sum()) for plane in values) / values.size
    values /= np.float32(np.sqrt(variance))
    return values


def _refuse_non_finite(values: np.ndarray, name: str) -> None:
    bad = sum(plane.size - int(np.count_nonzero(np.isfinite(plane))) for plane in values)
    if bad:
        raise VolumeError(
            f"{bad} of {values.size} voxels of {name or 'the scan'} are NaN or infinite",
            "finite values",
            "replace them by the value of the background and try again",
        )


def _field_mm(geometry: Geometry) -> tuple[float, float]:
    """Extent of the axial slices along (rows, columns), mm."""
    (_, row, column), _ = axial_order(geometry)
    return geometry.shape[row] * geometry.spacing[2 - row], geometry.shape[column] * geometry.spacing[2 - column]


def _whole_pixels(field_mm: float, pixel_mm: float) -> int:
    return max(1, round(field_mm / pixel_mm))


def _resample(source: np.ndarray, target: np.ndarray, order: int) -> None:
    """Write the slices of `source` into `target`, a few at a time."""
    at_once = max(1, BLOCK_PIXELS // max(source[0].size, target[0].size))
    for start in range(0, len(source), at_once):
        block = slice(start, start + at_once)
        target[block] = resample_slices(source[block], target.shape[1:], order=order)


def _expect(found: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    if found != expected:
        raise VolumeError(f"An array of shape {found}", f"{what}, {expected}")
