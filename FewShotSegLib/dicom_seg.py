"""Results as DICOM SEG: coded organs on the slices of the series that was segmented (DICOM PS3.3 A.51, C.8.20)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from FewShotSegLib.dicom_headers import Slice
from FewShotSegLib.dicom_series import find_series
from FewShotSegLib.dicom_stack import geometry_of
from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.files import atomic_path
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.image_files import last_line
from FewShotSegLib.organs import Organ

if TYPE_CHECKING:
    from FewShotSegLib.segmentation import Segmentation

MAKER = "FewShotSeg"
SERIES_OFFSET = 1000  # the result's series number is that of the scan plus this
UNICODE = "ISO_IR 192"
LONGEST_TEXT = 64  # of a DICOM LO
HIGHEST_NUMBER = 2**31 - 1 - SERIES_OFFSET
EMPTY_ALLOWED = (
    "AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex", "ReferringPhysicianName", "StudyDate",
    "StudyID", "StudyTime", "PositionReferenceIndicator",
)  # fmt: skip
"""Tags of type 2 that every image has to have, and that carelessly anonymised ones lack."""


def write_dicom_seg(
    path: str | Path,
    segmentation: Segmentation,
    source: str | Path,
    *,
    series: str | None = None,
    settings: Mapping[str, str] | None = None,
    omit_empty_frames: bool = True,
) -> Path:
    """Write a segmentation as DICOM SEG of type BINARY, whole or not at all. Segments are numbered 1, 2, ... by organ.

    Args:
        path: the file.
        segmentation: on the grid of the series.
        source: folder (or enhanced file) of the series that was segmented.
        series: which one, see `find_series`.
        settings: how the result was made (method, checkpoint), for the file.
        omit_empty_frames: leave out the slices on which an organ is absent; some old readers want all.

    Raises:
        VolumeError: no such series.
        OutputError: the segmentation does not lie on the series' grid, the series lacks what a DICOM SEG refers to, no
            permission, disk full.
        ConfigError: highdicom is not installed.
    """
    highdicom = import_highdicom()
    path, source = Path(path), Path(source)
    slices = find_series(source, series)
    _check_grid(path, segmentation.geometry, geometry_of(slices), source)
    headers, order = _headers(slices)
    numbers = _segment_numbers(segmentation)[order]
    segments = [_segment(highdicom, n, organ, settings) for n, organ in enumerate(segmentation.organs, start=1)]
    made = _made(
        source,
        highdicom,
        headers,
        numbers,
        segments,
        series_number=_series_number(slices[0]),
        series_description=_cut(f"{MAKER}: {', '.join(organ.name for organ in segmentation.organs)}"),
        omit_empty_frames=omit_empty_frames and bool(numbers.any()),
    )
    with atomic_path(path) as temporary:
        made.save_as(temporary)
    return path


def import_highdicom() -> ModuleType:
    """highdicom, which only the writing of DICOM SEG needs; ConfigError when it is not installed."""
    try:
        return import_module("highdicom")
    except ImportError as error:
        raise ConfigError(
            f"DICOM SEG cannot be written: {error}", "highdicom", "`pip install 'fewshotseg[dicom]'`, or write .seg.nrrd"
        ) from error


def _made(source: Path, highdicom: ModuleType, headers: list, numbers: np.ndarray, segments: list, **own: Any) -> pydicom.Dataset:
    """The DICOM object; OutputError when highdicom cannot work with the source's headers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of patient names in an old form
            return highdicom.seg.Segmentation(
                headers,
                numbers,
                highdicom.seg.SegmentationTypeValues.BINARY,
                segments,
                series_instance_uid=generate_uid(),
                sop_instance_uid=generate_uid(),
                instance_number=1,
                manufacturer=MAKER,
                manufacturer_model_name=MAKER,
                software_versions=_version(),
                device_serial_number="0",
                content_label="SEGMENTATION",
                content_description=f"Organs segmented by {MAKER}",
                transfer_syntax_uid=ExplicitVRLittleEndian,
                **own,
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"The series in {source} cannot be referred to by a DICOM SEG: {last_line(error)}",
            "a series with its patient, study and frame of reference",
            "export the series again, or write .seg.nrrd instead",
        ) from error


def _check_grid(path: Path, found: Geometry, expected: Geometry, source: Path) -> None:
    if not found.same_as(expected):
        raise OutputError(
            f"Cannot write {path}: the segmentation ({found.size} voxels of {_short(found.spacing)} mm) does not lie on the grid "
            f"of the series in {source} ({expected.size} voxels of {_short(expected.spacing)} mm)",
            "the series that was segmented",
            "give the folder and series of the scan",
        )


def _short(spacing: Sequence[float]) -> str:
    return " x ".join(f"{edge:.3g}" for edge in spacing)


def _headers(slices: Sequence[Slice]) -> tuple[list[pydicom.FileDataset], list[int]]:
    """Headers of the source images, and which slice each of their frames is.

    Files with one image are in the order of the slices; a file with many frames keeps the order of its frames.
    """
    headers = []
    for path in dict.fromkeys(item.path for item in slices):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        header.decode()
        header.SpecificCharacterSet = UNICODE  # of the result, whose organs may have any name
        for tag in EMPTY_ALLOWED:
            if tag not in header:
                setattr(header, tag, "")
        headers.append(header)
    return headers, sorted(range(len(slices)), key=lambda z: (slices[z].frame is not None, slices[z].frame or 0))


def _segment_numbers(segmentation: Segmentation) -> np.ndarray:
    """Number of the segment of each voxel, uint8 or uint16 (z, y, x): 1 for the first organ, 0 = background."""
    labels = segmentation.labels
    table = np.zeros(np.iinfo(labels.dtype).max + 1, np.uint8 if len(segmentation.organs) < 256 else np.uint16)
    for number, organ in enumerate(segmentation.organs, start=1):
        table[organ.label] = number
    return table[labels]


def _segment(highdicom: ModuleType, number: int, organ: Organ, settings: Mapping[str, str] | None) -> pydicom.Dataset:
    category, kind, modifier = organ_codes(organ)
    red, green, blue = (round(255 * part) for part in organ.color)
    identification = highdicom.AlgorithmIdentificationSequence(
        MAKER,
        family=Code("123109", "DCM", "Artificial Intelligence"),
        version=_version(),
        parameters=dict(settings) if settings else None,
    )
    segment = highdicom.seg.SegmentDescription(
        number,
        _cut(organ.name),
        category,
        kind,
        highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,  # somebody drew the organ once
        identification,
        tracking_uid=generate_uid(),
        tracking_id=_cut(organ.name),
        display_color=highdicom.color.CIELabColor.from_rgb(red, green, blue),
    )
    if modifier is not None:
        code = highdicom.sr.CodedConcept(*modifier)
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [code]
    return segment


def organ_codes(organ: Organ) -> tuple[Code, Code, Code | None]:
    """Category, type and, such as for "left", modifier of an organ's terminology; "Tissue" where that is not whole."""
    parts = [_code(part) for part in organ.terminology.split("~")]
    category, kind, modifier = (*parts[1:4], None, None, None)[:3]
    if category is None or kind is None:
        tissue = Code("85756007", "SCT", "Tissue")
        return tissue, tissue, None
    return category, kind, modifier


def _code(text: str) -> Code | None:
    """A code of a TerminologyEntry, scheme^value^meaning; None for an empty one."""
    scheme, value, meaning = (*text.split("^"), "", "", "")[:3]
    return Code(value, scheme, _cut(meaning)) if scheme and value and meaning else None


def _series_number(first: Slice) -> int:
    number = float(first.number) if first.number.isdigit() else 0
    return SERIES_OFFSET + int(number if math.isfinite(number) and number < HIGHEST_NUMBER else 0)


def _cut(text: str) -> str:
    """A text that a DICOM LO may hold."""
    clean = "".join(character if character.isprintable() else " " for character in text.replace("\\", "/"))
    return clean.strip()[:LONGEST_TEXT].strip() or "organ"


def _version() -> str:
    try:
        return metadata.version("fewshotseg")
    except metadata.PackageNotFoundError:  # inside Slicer, or a checkout that was never installed
        return "unknown"
