"""Seeded random fields: smooth ones that bend anatomy and shade images, fine ones that give tissues their texture."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def smooth_field(rng: np.random.Generator, axes: tuple[np.ndarray, ...], knot_mm: float, extent_mm: float = 400.0) -> np.ndarray:
    """A smooth random field of about unit standard deviation, float32 (z, y, x).

    A cubic B-spline on knots that stand fixed in the patient, so that the same generator gives the same field on every
    grid. Written with plain sums, not a linear algebra library, so that the number of threads cannot change a bit.

    Args:
        rng: source of the knots.
        axes: coordinates of the grid along (z, y, x), mm from the centre.
        knot_mm: distance between knots.
        extent_mm: side of the cube around the centre in which there are knots.
    """
    count = int(np.ceil(extent_mm / knot_mm)) + 4
    field = rng.standard_normal((count, count, count)).astype(np.float32)
    for axis, coordinates in enumerate(axes):
        field = _spline_along(field, axis, coordinates / knot_mm + (count - 1) / 2)
    return field * np.float32(_UNIT**-1.5)


# Mean over a knot interval of the sum of squared cubic B-spline weights: the variance that one axis leaves.
_UNIT = 151 / 315


def _spline_along(knots: np.ndarray, axis: int, position: np.ndarray) -> np.ndarray:
    """Replace one axis of knots by the cubic B-spline's values at positions counted in knots."""
    last = knots.shape[axis] - 3
    first = np.clip(np.floor(position).astype(int), 1, last)
    t = np.clip(position - first, 0.0, 1.0).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    shape = [1, 1, 1]
    shape[axis] = -1
    terms = (
        w.reshape(shape) / np.float32(6) * np.take(knots, first + k, axis) for k, w in zip((-1, 0, 1, 2), weights, strict=True)
    )
    return sum(terms, np.float32(0))


def grain(rng: np.random.Generator, shape: tuple[int, int, int], sigma: tuple[float, float, float]) -> np.ndarray:
    """Noise of unit standard deviation blurred by `sigma` voxels along (z, y, x), float32."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return noise / noise.std()
