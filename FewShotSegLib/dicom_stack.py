"""DICOM slices in their order in the patient, refused unless they form one even, upright stack."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from FewShotSegLib.dicom_headers import MARKS, Slice
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.geometry import Geometry

UNEVEN = 0.1  # largest deviation from an even stack, in slice spacings
MOST_LISTED = 4

logger = logging.getLogger(__name__)


def in_order(folder: Path, slices: Sequence[Slice]) -> list[Slice]:
    """The slices of one series from the first to the last along their normal; copies of a file are left out with a warning.

    Args:
        folder: for the messages.
        slices: in any order.

    Raises:
        VolumeError: places unknown, several orientations, several slices at one place (4D), slices missing, uneven or
            shifted sideways.
    """
    slices = _without_copies(folder, slices)
    first = slices[0]
    if not all(s.placed for s in slices):
        raise _no_stack(folder, "images without a position in the patient, or files with many frames and no position for each")
    if any(s.matrix != first.matrix or not np.allclose(s.orientation, first.orientation, atol=1e-3) for s in slices):
        raise _no_stack(folder, "slices of different size or orientation (such as a localizer among them)")
    if any(not np.allclose(s.spacing, first.spacing, rtol=1e-3) for s in slices):
        raise _no_stack(folder, "slices with pixels of different size")
    normal = normal_of(first)
    slices = sorted(slices, key=lambda s: float(np.dot(s.position, normal)))
    if len(slices) > 1:
        _check_even(folder, slices, np.array([s.position for s in slices]), normal)
    return slices


def normal_of(item: Slice) -> np.ndarray:
    """Unit normal of a slice, LPS."""
    row, column = np.reshape(item.orientation, (2, 3))
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def geometry_of(slices: Sequence[Slice]) -> Geometry:
    """The grid of slices in order; VolumeError where their axes are not perpendicular, or the size of a pixel is unknown."""
    first, last = slices[0], slices[-1]
    if len(first.spacing) != 2:
        raise VolumeError(f"{first.path} does not tell the size of its pixels", "PixelSpacing", "export the series again")
    row, column = (vector / np.linalg.norm(vector) for vector in np.reshape(first.orientation, (2, 3)))
    normal = normal_of(first)
    step = first.thickness or 1.0
    if len(slices) > 1:
        step = float(np.dot(np.subtract(last.position, first.position), normal)) / (len(slices) - 1)
    rows, columns = first.spacing
    spacing = (columns, rows, step)
    direction = tuple(np.stack([row, column, normal], axis=1).ravel())
    size = (first.matrix[1], first.matrix[0], len(slices))
    x, y, z = first.position
    return Geometry(size, spacing, (x, y, z), direction)


def _without_copies(folder: Path, slices: Sequence[Slice]) -> list[Slice]:
    """Each object once: folders put together from several exports hold some files twice."""
    unique: dict[object, Slice] = {}
    copies = []
    for item in slices:
        known = unique.setdefault((item.sop or item.path, item.frame), item)
        if known is item:
            continue
        if known.position != item.position:
            raise _no_stack(folder, f"the same UID in different images, {known.path.name} and {item.path.name}")
        copies.append(item.path.name)
    if copies:
        logger.warning("%s: %d copies of slices are left out: %s", folder, len(copies), _some(list(dict.fromkeys(copies))))
    return list(unique.values())


def _check_even(folder: Path, slices: list[Slice], positions: np.ndarray, normal: np.ndarray) -> None:
    """Refuse several slices at one place, sideways shifts and gaps."""
    along = positions @ normal
    steps = np.diff(along)
    step = float(np.median(steps))
    if steps.min() <= UNEVEN * step:
        raise _no_stack(folder, _repeated(slices, along))
    sideways = positions - positions[0] - np.outer(along - along[0], normal)
    if np.linalg.norm(sideways, axis=1).max() > UNEVEN * step:
        raise _no_stack(folder, "slices shifted sideways, as from a tilted CT gantry")
    uneven = np.flatnonzero(np.abs(steps - step) > UNEVEN * step)
    if len(uneven):
        found = _some([f"{steps[n]:.2f} instead of {step:.2f} mm after {slices[n].path.name}" for n in uneven])
        missing = int(np.maximum(np.rint(steps[uneven] / step) - 1, 0).sum())
        hint = f"{missing} slices seem to be missing" if missing > 1 else "is a slice missing?"
        raise _no_stack(folder, f"unevenly spaced slices ({found}; {hint})")


def _repeated(slices: list[Slice], along: np.ndarray) -> str:
    """What to say of several slices at one place."""
    places = Counter(np.round(along, 3).tolist())
    differing = [tag for tag in MARKS if len({dict(s.marks).get(tag) for s in slices}) > 1]
    by = f"; they differ in {', '.join(differing[:MOST_LISTED])}" if differing else ""
    counts = set(places.values())
    if len(counts) == 1:
        return f"{counts.pop()} slices at each of {len(places)} places (several time points, echoes or b-values, 4D{by})"
    twice = [place for place, count in places.items() if count > 1]
    names = _some([s.path.name for s, place in zip(slices, np.round(along, 3), strict=True) if place in twice])
    return f"several slices at the same place ({len(twice)} of {len(places)} places: {names}{by})"


def _some(names: list[str]) -> str:
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _no_stack(folder: Path, what: str) -> VolumeError:
    return VolumeError(
        f"The series in {folder} has {what}",
        "one even stack of slices",
        "export the series again, or load it in 3D Slicer and save the volume as NRRD",
    )
