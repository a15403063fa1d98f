"""Labelled organs on a grid, in as many layers as their overlaps need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from FewShotSegLib.geometry import Geometry
from FewShotSegLib.organs import Organ

HIGHEST_LABEL = 65535


@dataclass(frozen=True)
class Segment:
    """Where one organ is found: the voxels of layer `layer` that have the value `value`."""

    organ: Organ
    layer: int
    value: int


@dataclass(frozen=True, eq=False)
class LabelLayers:
    """Labelled organs on a grid of their own. Segments that overlap lie in different layers.

    Args:
        layers: whole numbers (layer, z, y, x), 0 = background.
        geometry: where the voxels lie.
        segments: one per organ.
    """

    layers: np.ndarray
    geometry: Geometry
    segments: tuple[Segment, ...]

    def mask(self, segment: Segment) -> np.ndarray:
        """Voxels of one organ, bool (z, y, x)."""
        return self.layers[segment.layer] == segment.value

    def masks(self) -> np.ndarray:
        """Voxels of all organs, bool (segment, z, y, x)."""
        masks = np.empty((len(self.segments), *self.geometry.shape), bool)
        for mask, segment in zip(masks, self.segments, strict=True):
            np.equal(self.layers[segment.layer], segment.value, out=mask)
        return masks

    def on(self, geometry: Geometry) -> LabelLayers:
        """The same labels on another grid: each of its voxels takes the label of the nearest one in world space.

        Voxels of the new grid that lie outside the old one become background.
        """
        if self.geometry.same_as(geometry):
            return replace(self, geometry=geometry)
        return replace(
            self, layers=np.stack([_moved(layer, self.geometry, geometry) for layer in self.layers]), geometry=geometry
        )


def layered(masks: Iterable[tuple[Organ, np.ndarray]], geometry: Geometry) -> LabelLayers:
    """Organs and their masks, bool (z, y, x), as labels; an organ comes into the first layer where nothing is in its way."""
    layers = [np.zeros(geometry.shape, np.uint16)]
    segments = []
    for organ, mask in masks:
        free = [number for number, layer in enumerate(layers) if not layer[mask].any()]
        if not free:
            layers.append(np.zeros(geometry.shape, np.uint16))
        number = free[0] if free else len(layers) - 1
        layers[number][mask] = organ.label
        segments.append(Segment(organ, number, organ.label))
    return LabelLayers(np.stack(layers), geometry, tuple(segments))


def _moved(layer: np.ndarray, old: Geometry, new: Geometry) -> np.ndarray:
    """Labels (z, y, x) on another grid, by the nearest voxel in world space; 0 outside the old grid."""
    nearest = sitk.sitkNearestNeighbor
    image = sitk.Resample(old.to_sitk(layer), new.size, sitk.Transform(), nearest, new.origin, new.spacing, new.direction)
    return sitk.GetArrayFromImage(image)
