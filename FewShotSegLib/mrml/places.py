"""Where nodes lie: VTK matrices and images as numpy, parent transforms, RAS (MRML) to LPS (this library)."""

from __future__ import annotations

from typing import Any

import numpy as np

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.geometry import Geometry

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def ijk_to_world(node: Any) -> np.ndarray:
    """(4, 4) matrix from the voxel indices (i, j, k, 1) of a volume node to world RAS mm, its parent transforms included.

    Raises:
        VolumeError: a parent transform that is not linear.
    """
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return to_world(node) @ _from_first_voxel(to_array(matrix), node.GetImageData())


def ijk_to_local(image: Any) -> np.ndarray:
    """(4, 4) matrix from the voxel indices of a vtkOrientedImageData, counted from its first voxel, to the RAS mm of its node."""
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return _from_first_voxel(to_array(matrix), image)


def to_world(node: Any) -> np.ndarray:
    """(4, 4) matrix of all parent transforms of a node, from its own RAS to world RAS.

    Raises:
        VolumeError: one of them is not linear.
    """
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    parent, matrix = node.GetParentTransformNode(), vtkMatrix4x4()
    if parent is not None and not parent.GetMatrixTransformToWorld(matrix):
        raise VolumeError(
            f"{node.GetName()!r} lies under the transform {parent.GetName()!r}, which is not linear",
            "no transform, or a linear one",
            "harden the transform (Transforms module or right-click in the Data module), or take the node out of it",
        )
    return to_array(matrix)


def geometry_of(size: tuple[int, int, int], matrix: np.ndarray) -> Geometry:
    """The grid of `size` (x, y, z) voxels that a (4, 4) matrix from indices to RAS mm describes.

    Raises:
        VolumeError: see `Geometry`; axes of no length or not perpendicular among them.
    """
    lps = RAS_TO_LPS @ matrix
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    axes = lps[:3, :3] / np.where(spacing > 0, spacing, 1.0)
    x, y, z = spacing.tolist()
    return Geometry(size, (x, y, z), (lps[0, 3], lps[1, 3], lps[2, 3]), tuple(axes.ravel().tolist()))


def voxels_of(image: Any) -> np.ndarray:
    """The scalars of a vtkImageData with one component, (z, y, x); not copied: they belong to the image."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])


def to_array(matrix: Any) -> np.ndarray:
    """A vtkMatrix4x4 as (4, 4)."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _from_first_voxel(matrix: np.ndarray, image: Any) -> np.ndarray:
    """The matrix for indices counted from the first voxel of an image whose extent may start elsewhere (a cropped segment)."""
    moved = matrix.copy()
    moved[:, 3] = matrix @ np.array([*image.GetExtent()[::2], 1.0])
    return moved
