"""Where the voxels of a scan lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk

from FewShotSegLib.errors import VolumeError

ORTHOGONALITY = 1e-2


@dataclass(frozen=True)
class Geometry:
    """A regular grid of voxels in world coordinates (LPS, mm), as ITK describes it.

    Args:
        size: voxels along the axes (x, y, z), also called (i, j, k).
        spacing: mm along (x, y, z).
        origin: LPS position of the centre of the first voxel, mm.
        direction: row-major 3x3 matrix whose columns are the LPS directions of the axes x, y, z.

    Raises:
        VolumeError: no voxels, spacing not positive, or axes that are not perpendicular.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        for field in ("spacing", "origin", "direction"):
            object.__setattr__(self, field, tuple(float(v) for v in getattr(self, field)))
        self._check()

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """Geometry of a 3D SimpleITK image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the voxel array, (z, y, x)."""
        x, y, z = self.size
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing)) / 1000.0

    @property
    def axes(self) -> np.ndarray:
        """(3, 3) matrix whose columns are the unit LPS directions of the axes x, y, z."""
        return np.array(self.direction).reshape(3, 3)

    def affine(self) -> np.ndarray:
        """(4, 4) matrix from voxel indices (i, j, k, 1) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes * np.array(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    def same_as(self, other: Geometry, tolerance_mm: float | None = None) -> bool:
        """Whether both grids have the same voxels: same size, all corners within `tolerance_mm`.

        The default tolerance is a tenth of the shortest voxel edge, enough for the rounding of file headers.
        """
        if self.size != other.size:
            return False
        tolerance = min(self.spacing) / 10 if tolerance_mm is None else tolerance_mm
        distances = np.linalg.norm(self.corners() - other.corners(), axis=1)
        return bool(distances.max() <= tolerance)

    def corners(self) -> np.ndarray:
        """(8, 3) LPS positions in mm of the centres of the corner voxels."""
        indices = np.array(list(product(*((0, n - 1) for n in self.size))))
        return indices @ self.affine()[:3, :3].T + np.array(self.origin)

    def to_sitk(self, array: np.ndarray) -> sitk.Image:
        """The voxels (z, y, x) as a SimpleITK image on this grid; bool becomes uint8 and float16 float32."""
        if array.shape != self.shape:
            raise VolumeError(f"An array of shape {array.shape} (z, y, x)", f"the shape of its grid, {self.shape}")
        stored = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}.get(array.dtype, array.dtype)
        image = sitk.GetImageFromArray(array.astype(stored, copy=False))
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def _check(self) -> None:
        lengths = (len(self.size), len(self.spacing), len(self.origin), len(self.direction))
        if lengths != (3, 3, 3, 9):
            raise VolumeError(f"A geometry with {lengths} numbers", "3 sizes, 3 spacings, 3 origins and 9 directions (a 3D scan)")
        if min(self.size) < 1:
            raise VolumeError(f"A grid of {self.size} voxels", "at least one voxel along each axis")
        numbers = np.array((*self.spacing, *self.origin, *self.direction))
        if not np.isfinite(numbers).all() or min(self.spacing) <= 0:
            raise VolumeError(
                f"A voxel spacing of {self.spacing} mm at {self.origin}",
                "finite numbers and a positive spacing",
                "repair the header of the file, or export the scan again",
            )
        if np.abs(self.axes.T @ self.axes - np.eye(3)).max() > ORTHOGONALITY:
            raise VolumeError(
                f"Axes that are not perpendicular (direction {self.direction}), as from a tilted CT gantry",
                "three perpendicular axes",
                "resample the scan to an upright grid first (3D Slicer: 'Resample Scalar Volume')",
            )
