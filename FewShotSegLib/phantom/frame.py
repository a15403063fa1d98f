"""The page on which the anatomy is drawn: for every voxel, the place in the reference body that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from FewShotSegLib.phantom.tissues import Tissue

Vector = Sequence[float] | np.ndarray  # (x, y, z) mm
Window = tuple[slice, slice, slice]
ROUNDING_MM = 7.0


@dataclass(frozen=True, eq=False)
class Body:
    """Coordinates in the reference body, mm: x to the patient's left, y to the back, z to the head; arrays (z, y, x).

    `bumps` is a coarse and a fine random field that make surfaces irregular.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    bumps: tuple[np.ndarray, np.ndarray]
    _ranges: list[tuple[np.ndarray, np.ndarray]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ranges", [self._range(axis) for axis in range(3)])

    def _range(self, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Smallest and largest reference coordinate on every plane of an axis."""
        others = tuple(a for a in range(3) if a != axis)
        values = (self.z, self.y, self.x)[axis]
        return values.min(others), values.max(others)

    def window(self, low: Vector, high: Vector) -> Window:
        """The block of voxels that contains the reference box from `low` to `high`, both (x, y, z) mm."""
        block = []
        for (smallest, largest), a, b in zip(self._ranges, tuple(low)[::-1], tuple(high)[::-1], strict=True):
            inside = np.flatnonzero((largest >= a) & (smallest <= b))
            block.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
        return block[0], block[1], block[2]

    def ellipsoid(self, window: Window, centre: Vector, radii: Vector, turn: float = 0.0, tilt: float = 0.0) -> np.ndarray:
        """Distance from the centre in units of the radius, 1 on the surface.

        Args:
            window: block of voxels to compute.
            centre: (x, y, z) mm.
            radii: half axes along (x, y, z) mm.
            turn: rotation in the axial plane, degrees, from left towards back.
            tilt: rotation in the coronal plane, degrees, the head end towards the left.
        """
        x, y, z = (c[window] - np.float32(o) for c, o in zip((self.x, self.y, self.z), centre, strict=True))
        c, s = np.float32(np.cos(np.radians(tilt))), np.float32(np.sin(np.radians(tilt)))
        x, z = c * x - s * z, s * x + c * z
        c, s = np.float32(np.cos(np.radians(turn))), np.float32(np.sin(np.radians(turn)))
        x, y = c * x + s * y, c * y - s * x
        a, b, d = (np.float32(1 / r) for r in radii)
        return np.sqrt((x * a) ** 2 + (y * b) ** 2 + (z * d) ** 2)


@dataclass(frozen=True, eq=False)
class Canvas:
    """What has been painted so far, arrays (z, y, x): tissue, organ label, and content (0 to 1, how full of what a bowel is)."""

    body: Body
    tissue: np.ndarray
    labels: np.ndarray
    content: np.ndarray

    @classmethod
    def blank(cls, body: Body) -> Canvas:
        """Nothing but air."""
        shape = body.x.shape
        return cls(body, np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), np.zeros(shape, np.float32))

    def paint(self, window: Window, mask: np.ndarray, tissue: Tissue, *, over: Sequence[Tissue] = (), label: int = 0) -> None:
        """Paint a tissue where the mask is set and, when `over` names tissues, only over these."""
        if over:
            mask = mask & allowed(over)[self.tissue[window]]
        self.tissue[window][mask] = tissue
        self.labels[window][mask] = label

    def tube(self, path: np.ndarray, radii: np.ndarray, *, reach: float = 0.0, over: Sequence[Tissue] = ()) -> Tube:
        """Where a bent tube runs, for voxels of the tissues `over` (all, when empty) closer than `reach` to its surface.

        Args:
            path: points (point, xyz) mm, closer together than the radius.
            radii: radius at each point, mm.
            reach: how far outside the surface to look, mm.
            over: tissues to look at.
        """
        margin = radii[:, None] + reach
        window = self.body.window((path - margin).min(0), (path + margin).max(0))
        candidates = allowed(over)[self.tissue[window]] if over else np.ones(self.tissue[window].shape, bool)
        index = np.argwhere(candidates)
        coordinates = np.stack([c[window][candidates] for c in (self.body.x, self.body.y, self.body.z)], -1)
        limit = float(radii.max()) + reach
        distance, nearest = cKDTree(path).query(coordinates, distance_upper_bound=limit)
        found = nearest < len(path)
        offset = np.array([s.start for s in window])
        index, distance, nearest = index[found] + offset, distance[found], nearest[found]
        return Tube(tuple(index.T), distance - radii[nearest], nearest)


@dataclass(frozen=True, eq=False)
class Tube:
    """Voxels near a tube: their indices (three arrays), distance to the surface (mm, negative inside) and nearest path point."""

    index: tuple[np.ndarray, ...]
    distance: np.ndarray
    nearest: np.ndarray

    def fill(
        self, canvas: Canvas, tissue: Tissue, *, below: float = 0.0, where: np.ndarray | None = None, label: int | None = None
    ) -> None:
        """Paint where the distance is below `below`, and `where` holds; a `label` of None leaves the labels as they are."""
        chosen = self.distance < below if where is None else (self.distance < below) & where
        index = tuple(i[chosen] for i in self.index)
        canvas.tissue[index] = tissue
        if label is not None:
            canvas.labels[index] = label


def allowed(tissues: Sequence[Tissue]) -> np.ndarray:
    """Look-up table bool (256,): is this tissue one of these?"""
    table = np.zeros(256, bool)
    table[list(tissues)] = True
    return table


def curve(points: Sequence[Vector] | np.ndarray, radii: Vector | float, step: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """A path from point to point with rounded corners, and its radii, sampled every `step` mm: (point, xyz), (point,)."""
    corners = np.asarray(points, float)
    thickness = np.broadcast_to(np.asarray(radii, float), len(corners))
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    at = np.linspace(0, length[-1], max(2, int(np.ceil(length[-1] / step)) + 1))
    straight = np.stack([np.interp(at, length, coordinate) for coordinate in corners.T], -1)
    rounded = ndimage.gaussian_filter1d(straight, ROUNDING_MM / step, axis=0, mode="nearest")
    return rounded, np.interp(at, length, thickness)
