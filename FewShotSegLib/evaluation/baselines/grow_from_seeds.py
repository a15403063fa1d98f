"""Slicer's "Grow from seeds": the growcut of 3D Slicer itself (Zhu et al., 2014), from the slicer-core wheel."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from FewShotSegLib.evaluation.baselines.base import Baseline, Extent, missing_package
from FewShotSegLib.support import Organ, Support
from FewShotSegLib.volume import Volume

MARGIN_PIXELS = 20
ORGAN_SEED, OTHER_SEED = 1, 2


class GrowFromSeeds(Baseline):
    """Same scan only, and told where each organ begins and ends: the slices just beyond are seeds of everything else.

    Drawn slices are seeds inside and outside the organ. Works in the box around the drawn organ plus 20 pixels, over the
    organ's extent plus one slice (baselines.md, last section).
    """

    name: ClassVar[str] = "grow-from-seeds"
    description: ClassVar[str] = "Slicer's grow from seeds, told the organ's extent"
    protocols: ClassVar[tuple[str, ...]] = ("same-scan",)
    needs_extent: ClassVar[bool] = True

    def masks(self, support: Support, query: Volume, extent: Extent) -> np.ndarray:
        """Each organ grown from its drawn slices."""
        parts = zip(support.organs, support.masks, support.drawn, strict=True)
        return np.stack([self._organ(query, organ, mask, drawn, extent) for organ, mask, drawn in parts])

    @staticmethod
    def _organ(query: Volume, organ: Organ, mask: np.ndarray, drawn: np.ndarray, extent: Extent) -> np.ndarray:
        known = mask & drawn[:, None, None]
        if organ.name not in extent or not known.any():
            return known
        box = _box(known, extent[organ.name])
        grown = known.copy()
        grown[box] = grow(query.array[box], _seeds(known, drawn, extent[organ.name])[box], query.spacing) == ORGAN_SEED
        return np.where(drawn[:, None, None], known, grown)


def grow(image: np.ndarray, seeds: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The seed label that reaches each voxel first; image and seeds (0 = free) (z, y, x), spacing (x, y, z) mm.

    Raises ConfigError when the package slicer-core is not installed.
    """
    try:
        from slicer_core.vtkSlicerSegmentationsModuleLogic import vtkImageGrowCutSegment
    except ImportError as error:
        raise missing_package("slicer-core", GrowFromSeeds.name) from error
    from FewShotSegLib.evaluation.baselines.vtk_arrays import from_vtk, to_vtk

    cut = vtkImageGrowCutSegment()
    cut.SetIntensityVolume(to_vtk(image.astype(np.float32), spacing))
    cut.SetSeedLabelVolume(to_vtk(seeds.astype(np.int16), spacing))
    cut.Update()
    return from_vtk(cut.GetOutput())


def _seeds(known: np.ndarray, drawn: np.ndarray, extent: tuple[int, int]) -> np.ndarray:
    """Seed labels int16 (z, y, x): the drawn slices, and the slices just beyond the organ."""
    seeds = np.zeros(known.shape, np.int16)
    seeds[drawn] = np.where(known[drawn], ORGAN_SEED, OTHER_SEED)
    for z in (extent[0] - 1, extent[1] + 1):
        if 0 <= z < len(seeds):
            seeds[z] = OTHER_SEED
    return seeds


def _box(known: np.ndarray, extent: tuple[int, int]) -> tuple[slice, slice, slice]:
    _, rows, columns = np.nonzero(known)
    row, column = (slice(max(0, int(i.min()) - MARGIN_PIXELS), int(i.max()) + MARGIN_PIXELS + 1) for i in (rows, columns))
    return slice(max(0, extent[0] - 1), extent[1] + 2), row, column
