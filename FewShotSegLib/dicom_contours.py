"""The contours of an RTSTRUCT as labels (DICOM PS3.3 C.8.8.6): a voxel belongs to an organ when its centre lies within."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from skimage.draw import polygon

from FewShotSegLib.errors import SupportError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.label_layers import HIGHEST_LABEL, LabelLayers, layered
from FewShotSegLib.organs import BY_NAME, Color, Organ
from FewShotSegLib.segfiles import distinct_names

AREAS = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
FLAT = 0.5  # slices: how far a contour may leave its plane
SAME_PLANE = 2  # decimals of a slice
FEWEST_POINTS = 3

logger = logging.getLogger(__name__)


def read_contours(dataset: pydicom.Dataset, path: Path, scan: Geometry) -> LabelLayers:
    """The regions of interest as labels on the scan's grid, numbered as in the file; those without an area are left out.

    Raises:
        SupportError: no region with an area, or contours that cross the scan's slices.
    """
    names = {
        int(item.ROINumber): str(item.get("ROIName") or f"region {item.ROINumber}") for item in dataset.StructureSetROISequence
    }
    drawn = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or []}
    contours = {number: _areas(drawn[number]) for number in names if number in drawn}
    numbers = [number for number in names if contours.get(number)]
    left_out = [name for number, name in names.items() if number not in numbers]
    if left_out:
        logger.warning("%s: left out, no closed contour: %s", path, ", ".join(left_out))
    if not numbers:
        raise SupportError(f"{path} has no closed contour", "at least one drawn region", "draw one, and save again")
    numbered = all(0 < number <= HIGHEST_LABEL for number in numbers)
    titles = distinct_names([names[number] for number in numbers])
    organs = [
        Organ(title, number if numbered else place, _color(drawn[number]))
        for place, (title, number) in enumerate(zip(titles, numbers, strict=True), start=1)
    ]
    return layered(((organ, fill(contours[n], scan, path)) for organ, n in zip(organs, numbers, strict=True)), scan)


def fill(contours: Sequence[np.ndarray], grid: Geometry, path: Path) -> np.ndarray:
    """The voxels within closed contours.

    Contours in one plane are joined by exclusive or: within each other, every second one is a hole. A slice takes the
    contours of the plane that is nearest to it, of those for which it is the nearest slice; contours outside the grid are
    left out.

    Args:
        contours: LPS positions (point, 3), mm.
        grid: with slices parallel to the contours.
        path: for the message.

    Returns:
        bool (z, y, x).

    Raises:
        SupportError: a contour that crosses slices.
    """
    to_voxels = np.linalg.inv(grid.affine())
    planes: dict[int, dict[float, list[np.ndarray]]] = {}
    for contour in contours:
        indices = contour @ to_voxels[:3, :3].T + to_voxels[:3, 3]
        if np.ptp(indices[:, 2]) > FLAT:
            raise SupportError(
                f"{path} has contours that cross the slices of the scan", "contours in its slices", "give the scan drawn on"
            )
        height = round(float(indices[:, 2].mean()), SAME_PLANE)
        planes.setdefault(round(height), {}).setdefault(height, []).append(indices[:, :2])
    mask = np.zeros(grid.shape, bool)
    for z, heights in planes.items():
        if 0 <= z < len(mask):
            for outline in heights[min(heights, key=lambda height: abs(height - z))]:
                mask[z][polygon(outline[:, 1], outline[:, 0], mask[z].shape)] ^= True
    return mask


def _areas(region: pydicom.Dataset) -> list[np.ndarray]:
    """The closed contours of a region, LPS (point, 3)."""
    found = []
    for item in region.get("ContourSequence") or []:
        points = np.array(item.get("ContourData") or [], float).reshape(-1, 3)
        if item.get("ContourGeometricType", AREAS[0]) in AREAS and len(points) >= FEWEST_POINTS:
            found.append(points)
    return found


def _color(region: Any) -> Color:
    stored = region.get("ROIDisplayColor")
    if stored is None or len(stored) != 3:
        return BY_NAME
    red, green, blue = (min(max(float(part) / 255, 0.0), 1.0) for part in stored)
    return red, green, blue
