"""numpy (z, y, x) arrays to vtkImageData and back."""

from __future__ import annotations

from typing import Any

import numpy as np


def to_vtk(array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Any:
    """A copy of the array (z, y, x) as vtkImageData, spacing (x, y, z) in mm."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.SetSpacing(*spacing)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    return image


def from_vtk(image: Any) -> np.ndarray:
    """The scalars of vtkImageData as a copied array (z, y, x)."""
    from vtkmodules.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1]).copy()
