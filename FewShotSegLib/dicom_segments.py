"""The segments of a DICOM SEG as labels (DICOM PS3.3 C.8.20): BINARY, FRACTIONAL and LABELMAP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.pixels import pixel_array
from skimage.color import lab2rgb

from FewShotSegLib.dicom_headers import grouped_values
from FewShotSegLib.errors import SupportError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.label_layers import LabelLayers, layered
from FewShotSegLib.organs import BY_NAME, Color, Organ
from FewShotSegLib.segfiles import distinct_names

NEAR = 0.1  # voxels: how far a frame may lie from the slice that it is taken for
HALF = 0.5
LAB_SCALE, LAB_SHIFT = (100 / 65535, 255 / 65535, 255 / 65535), (0, -128, -128)
CONTEXT = "Segmentation category and type - DICOM master list"


@dataclass(frozen=True)
class Frame:
    """A frame: the number of its segment (0 for that of a label map), and where it lies (see `dicom_headers.Slice`).

    `step` is the distance of slices that the header declares, mm, 0 for none.
    """

    index: int
    segment: int
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    step: float
    thickness: float


def read_segments(dataset: pydicom.Dataset, path: Path, scan: Geometry) -> LabelLayers:
    """The segments as labels, on the scan's grid where the frames lie on its slices, else on a grid of their own.

    The labels are the segments' numbers. Of a FRACTIONAL segment, the voxels from one half on belong to the organ.

    Raises:
        SupportError: frames that do not form one even grid.
    """
    frames = _frames(dataset)
    size = (int(dataset.Columns), int(dataset.Rows))
    grid = scan if _slices_on(frames, size, scan) is not None else _own_grid(path, frames, size)
    places = _slices_on(frames, size, grid)
    if places is None:
        raise _uneven(path)
    items = list(dataset.get("SegmentSequence") or [])
    numbers = [int(item.SegmentNumber) for item in items if int(item.SegmentNumber) > 0]
    names = distinct_names([_name(item) for item in items if int(item.SegmentNumber) > 0])
    look = {int(item.SegmentNumber): (_color(item), _terminology(item)) for item in items}
    organs = [Organ(name, number, *look[number]) for name, number in zip(names, numbers, strict=True)]
    decode = _decoder(dataset)
    return layered(((organ, _mask(organ.label, frames, places, decode, grid)) for organ in organs), grid)


def _frames(dataset: pydicom.Dataset) -> list[Frame]:
    shared = dict(grouped_values(dataset.get("SharedFunctionalGroupsSequence") or []))
    frames = []
    for index, item in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        values = shared | dict(grouped_values([item]))
        frames.append(
            Frame(
                index,
                int(values.get("ReferencedSegmentNumber", 0)),
                tuple(float(v) for v in values["ImagePositionPatient"]),
                tuple(float(v) for v in values["ImageOrientationPatient"]),
                tuple(float(v) for v in values["PixelSpacing"]),
                abs(float(values.get("SpacingBetweenSlices") or 0)),
                float(values.get("SliceThickness") or 0),
            )
        )
    return frames


def _slices_on(frames: list[Frame], size: tuple[int, int], grid: Geometry) -> list[int] | None:
    """On which slice of a grid each frame lies, voxel on voxel; None when some do not."""
    to_voxels = np.linalg.inv(grid.affine())
    if grid.size[:2] != size:
        return None
    slices = []
    for frame in frames:
        row, column = np.reshape(frame.orientation, (2, 3))
        far = np.array([size[0] - 1, size[1] - 1])
        opposite = np.array(frame.position) + row * frame.spacing[1] * far[0] + column * frame.spacing[0] * far[1]
        first, last = ((to_voxels @ [*corner, 1])[:3] for corner in (frame.position, opposite))
        z = round(float(first[2]))
        if np.abs(first - [0, 0, z]).max() > NEAR or np.abs(last - [*far, z]).max() > NEAR or not 0 <= z < grid.size[2]:
            return None
        slices.append(z)
    return slices


def _own_grid(path: Path, frames: list[Frame], size: tuple[int, int]) -> Geometry:
    """The grid that frames form among themselves; slices that no frame shows are empty."""
    first = frames[0]
    row, column = np.reshape(first.orientation, (2, 3))
    normal = np.cross(row, column)
    along = np.array([np.dot(frame.position, normal) for frame in frames])
    steps = np.diff(np.unique(np.round(along, 4)))
    step = first.step or (float(steps.min()) if len(steps) else first.thickness) or 1.0
    if first.step and not _whole(steps / step):  # a wrong header
        step = float(steps.min())
    if not _whole(steps / step):
        raise _uneven(path)
    lowest = frames[int(along.argmin())]
    rows, columns = first.spacing
    spacing = (columns, rows, step)
    count = round(float(np.ptp(along)) / step) + 1
    direction = tuple(np.stack([row, column, normal], axis=1).ravel())
    x, y, z = lowest.position
    return Geometry((*size, count), spacing, (x, y, z), direction)


def _whole(numbers: np.ndarray) -> bool:
    return bool(np.all(np.abs(numbers - np.rint(numbers)) <= NEAR) and np.all(np.rint(numbers) >= 1))


def _uneven(path: Path) -> SupportError:
    return SupportError(
        f"The frames of {path} do not form one even grid", "parallel, evenly spaced frames", "save it as .seg.nrrd"
    )


def _decoder(dataset: pydicom.Dataset) -> Callable[[Frame, int], np.ndarray]:
    """A function from a frame and a segment's number to the segment's voxels in it, bool (row, column)."""
    kind = dataset.get("SegmentationType", "BINARY")
    if kind == "LABELMAP":
        whole = np.atleast_3d(pixel_array(dataset)).reshape(-1, int(dataset.Rows), int(dataset.Columns))
        return lambda frame, number: whole[frame.index] == number
    if kind == "BINARY" and not dataset.file_meta.TransferSyntaxUID.is_compressed:
        return lambda frame, number: _bits(dataset, frame.index)
    least = HALF * int(dataset.get("MaximumFractionalValue", 255)) if kind == "FRACTIONAL" else HALF
    return lambda frame, number: pixel_array(dataset, index=frame.index) >= least


def _bits(dataset: pydicom.Dataset, index: int) -> np.ndarray:
    """A frame of bits, which need not begin at a byte: bool (row, column)."""
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    begin, end = index * rows * columns, (index + 1) * rows * columns
    stored = np.frombuffer(dataset.PixelData, np.uint8)[begin // 8 : -(-end // 8)]
    bits = np.unpackbits(stored, bitorder="little")[begin % 8 :][: rows * columns]
    return bits.reshape(rows, columns).astype(bool)


def _mask(
    number: int, frames: list[Frame], places: list[int], decode: Callable[[Frame, int], np.ndarray], grid: Geometry
) -> np.ndarray:
    mask = np.zeros(grid.shape, bool)
    for frame, z in zip(frames, places, strict=True):
        if frame.segment in (number, 0):
            mask[z] |= decode(frame, number)
    return mask


def _name(segment: pydicom.Dataset) -> str:
    return str(segment.get("SegmentLabel") or f"segment {segment.SegmentNumber}")


def _color(segment: pydicom.Dataset) -> Color:
    stored = segment.get("RecommendedDisplayCIELabValue")
    if stored is None or len(stored) != 3:
        return BY_NAME
    lab = np.array(stored, float) * LAB_SCALE + LAB_SHIFT
    red, green, blue = (float(np.clip(part, 0, 1)) for part in lab2rgb(lab))
    return red, green, blue


def _terminology(segment: pydicom.Dataset) -> str:
    """Slicer's TerminologyEntry with the segment's codes; empty, which is "by name", where they lack."""
    codes = list(_codes(segment))
    if not codes[0].strip("^") or not codes[1].strip("^"):
        return ""
    return "~".join([CONTEXT, *codes, "Anatomic codes - DICOM master list", "^^", "^^"])


def _codes(segment: pydicom.Dataset) -> Iterator[str]:
    kind = _first(segment, "SegmentedPropertyTypeCodeSequence")
    yield _code(_first(segment, "SegmentedPropertyCategoryCodeSequence"))
    yield _code(kind)
    yield _code(_first(kind, "SegmentedPropertyTypeModifierCodeSequence"))


def _first(dataset: Any, sequence: str) -> Any:
    items = dataset.get(sequence) if dataset is not None else None
    return items[0] if items else None


def _code(item: Any) -> str:
    tags = ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")
    return "^".join(str(item.get(tag, "")).replace("^", " ").replace("~", " ") if item is not None else "" for tag in tags)
