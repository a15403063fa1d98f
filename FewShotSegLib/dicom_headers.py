"""What the headers of DICOM images say: one `Slice` for each file, or for each frame of a file with many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.image_files import is_dicom, last_line

TAGS = [
    "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "FrameOfReferenceUID", "Modality", "ImageType",
    "Rows", "Columns", "NumberOfFrames", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
MARKS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoTime", "EffectiveEchoTime", "InversionTime", "DiffusionBValue",
    "TriggerTime", "NominalCardiacTriggerDelayTime", "AcquisitionNumber", "ImageType", "FrameType", "ContentTime",
)  # fmt: skip
"""Tags in which images of the same place differ, the most telling first."""
NOT_SCANS = ("SEG", "RTDOSE", "PR")


@dataclass(frozen=True)
class Slice:
    """One image plane.

    Args:
        path: the file.
        frame: number of the frame in a file with many (enhanced CT or MR), first = 0; None for a file with one image.
        sop: UID of the file's object.
        series: UID of the series.
        number: of the series, "" when unknown.
        description: of the series.
        modality: tag "CT", "MR", ...
        frame_of_reference: UID of the patient's coordinate system, "" when unknown.
        localizer: whether the image says that it is one.
        matrix: rows and columns.
        position: LPS position of the first pixel, mm; empty when unknown.
        orientation: LPS directions of a row and of a column; empty when unknown.
        spacing: distance of rows and of columns, mm; empty when unknown.
        thickness: distance to the next slice as the header says, else the thickness of the slice, mm; 0 when unknown.
        rescale: slope and intercept of the stored values.
        marks: the tags of `MARKS` that the header has, as text.
    """

    path: Path
    frame: int | None
    sop: str
    series: str
    number: str
    description: str
    modality: str
    frame_of_reference: str
    localizer: bool
    matrix: tuple[int, int]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thickness: float
    rescale: tuple[float, float]
    marks: tuple[tuple[str, str], ...]

    @property
    def placed(self) -> bool:
        """Whether it is known where the slice lies in the patient."""
        return len(self.position) == 3 and len(self.orientation) == 6


def scan_headers(place: Path) -> dict[str, list[Slice]]:
    """The images of a folder (not of its subfolders), or of one file, by series UID; what is no DICOM image is passed over.

    Raises:
        VolumeError: a folder or file that cannot be read, a DICOM image whose header is cut off.
    """
    found: dict[str, list[Slice]] = {}
    try:
        files = [place] if place.is_file() else sorted(p for p in place.iterdir() if p.is_file())
    except OSError as error:
        raise unreadable(place, error) from error
    for path in files:
        for item in _read(path):
            found.setdefault(item.series, []).append(item)
    return found


def is_multiframe(path: Path) -> bool:
    """Whether a path is a DICOM file with many frames that each have a place, such as an enhanced CT or MR."""
    return is_dicom(path) and any(item.frame is not None for item in _read(path))


def unreadable(path: Path, error: Exception) -> VolumeError:
    """The error for DICOM files that cannot be read."""
    return VolumeError(f"{path} cannot be read: {last_line(error)}", "whole DICOM files", "copy or export the series again")


def _read(path: Path) -> list[Slice]:
    """Empty for what is no DICOM file or no scan."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*TAGS, *MARKS])
    except InvalidDicomError:
        return []
    except (EOFError, OSError) as error:
        raise unreadable(path, error) from error
    if header.get("Modality") in NOT_SCANS:
        return []
    if "Rows" not in header:
        if "Image Storage" in _kind(header):
            raise unreadable(path, ValueError("its header is cut off"))
        return []
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        return [_slice(path, None, header, dict(_values(header)))]
    shared = dict(grouped_values(header.get("SharedFunctionalGroupsSequence") or []))
    plain = dict(_values(header))
    return [_slice(path, n, header, plain | shared | dict(grouped_values([frame]))) for n, frame in enumerate(frames)]


def _slice(path: Path, frame: int | None, header: pydicom.Dataset, values: dict[str, Any]) -> Slice:
    marks = [(tag, _text(values[tag])) for tag in MARKS if values.get(tag) not in (None, "")]
    kinds = [*_texts(values.get("ImageType")), *_texts(values.get("FrameType"))]
    many = frame is None and int(header.get("NumberOfFrames") or 1) > 1
    return Slice(
        path=path,
        frame=frame,
        sop=str(header.get("SOPInstanceUID", "")),
        series=str(header.get("SeriesInstanceUID", "")),
        number=_text(header.get("SeriesNumber")),
        description=str(header.get("SeriesDescription") or ""),
        modality=str(header.get("Modality", "")),
        frame_of_reference=str(header.get("FrameOfReferenceUID", "")),
        localizer="LOCALIZER" in kinds,
        matrix=(int(header.Rows), int(header.Columns)),
        position=() if many else _numbers(values.get("ImagePositionPatient")),  # many frames, one position: no slice's
        orientation=_numbers(values.get("ImageOrientationPatient")),
        spacing=_numbers(values.get("PixelSpacing")),
        thickness=abs(float(values.get("SpacingBetweenSlices") or values.get("SliceThickness") or 0)),
        rescale=(_number(values.get("RescaleSlope"), 1.0), _number(values.get("RescaleIntercept"), 0.0)),
        marks=tuple(marks),
    )


def grouped_values(groups: Any) -> Iterator[tuple[str, Any]]:
    """Tags and values of all functional groups of a frame: each group is a sequence of one item."""
    for group in groups:
        for element in group:
            if element.VR == "SQ" and element.value:
                yield from _values(element.value[0])


def _values(header: pydicom.Dataset) -> Iterator[tuple[str, Any]]:
    for element in header:
        if element.VR != "SQ":
            yield element.keyword, element.value


def _kind(header: pydicom.FileDataset) -> str:
    """Name of the kind of DICOM object, such as "CT Image Storage"; it stands at the very beginning of the file."""
    return pydicom.uid.UID(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID", "")).name


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in value or ())


def _number(value: Any, default: float) -> float:
    return default if value in (None, "") else float(value)


def _texts(value: Any) -> list[str]:
    if value in (None, ""):
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]


def _text(value: Any) -> str:
    return "\\".join(_texts(value)) if not isinstance(value, (int, float)) else str(value)
