"""The child process of `fill_between`: `python -m ...contour_worker known.npy filled.npy`."""

from __future__ import annotations

import sys

import numpy as np
from slicer_core.vtkITK import vtkITKMorphologicalContourInterpolator

from FewShotSegLib.evaluation.baselines.vtk_arrays import from_vtk, to_vtk


def interpolate(known: np.ndarray) -> np.ndarray:
    """Slicer's own filter along the slice axis, on the box of the mask bool (z, y, x)."""
    filled = known.copy()
    if not known.any():
        return filled
    box = tuple(slice(max(0, int(part.min()) - 1), int(part.max()) + 2) for part in np.nonzero(known))
    filler = vtkITKMorphologicalContourInterpolator()
    filler.SetInputData(to_vtk(known[box].astype(np.uint8)))
    filler.SetAxis(2)
    filler.Update()
    filled[box] = from_vtk(filler.GetOutput()) > 0
    return filled


if __name__ == "__main__":
    np.save(sys.argv[2], np.stack([interpolate(mask) for mask in np.load(sys.argv[1])]))
