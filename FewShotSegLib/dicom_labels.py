"""Drawings in DICOM: DICOM SEG and RTSTRUCT as labels on the grid of the scan that they were drawn on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import RTStructureSetStorage

from FewShotSegLib.dicom_contours import read_contours
from FewShotSegLib.dicom_headers import scan_headers, unreadable
from FewShotSegLib.dicom_segments import read_segments
from FewShotSegLib.dicom_series import SeriesId
from FewShotSegLib.errors import SupportError
from FewShotSegLib.image_files import is_dicom
from FewShotSegLib.label_layers import LabelLayers
from FewShotSegLib.volume import Volume

REFERENCES = ["FrameOfReferenceUID", "ReferencedSeriesSequence", "ReferencedFrameOfReferenceSequence"]
DRAWINGS = {"SEG": read_segments, "RTSTRUCT": read_contours}


@dataclass(frozen=True)
class DicomDrawing:
    """A DICOM SEG or RTSTRUCT, and what it was drawn on.

    Args:
        path: the file.
        kind: "SEG" or "RTSTRUCT".
        series: UIDs of the series that it refers to.
        frames_of_reference: UIDs of the coordinate systems that it refers to.
    """

    path: Path
    kind: str
    series: tuple[str, ...]
    frames_of_reference: tuple[str, ...]

    def read(self, image: Volume) -> LabelLayers:
        """The organs as labels: those of an RTSTRUCT on the scan's grid, those of a DICOM SEG on their own.

        Raises:
            SupportError: drawn on another scan, or contours that do not lie in the scan's slices.
            VolumeError: damaged.
        """
        self._check_about(image.series)
        try:
            return DRAWINGS[self.kind](pydicom.dcmread(self.path), self.path, image.geometry)
        except (EOFError, OSError, AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise unreadable(self.path, error) from error

    def series_in(self, folder: Path) -> str | None:
        """The UID of the series in a folder that it was drawn on; None when it refers to none of them."""
        there = scan_headers(folder)
        return next((uid for uid in self.series if uid in there), None)

    def is_about(self, scan: SeriesId) -> bool:
        """Whether it was drawn on this series or on another one in the same coordinate system, as far as it tells."""
        if not self.series and not self.frames_of_reference:
            return True
        return scan.uid in self.series or scan.frame_of_reference in self.frames_of_reference

    def _check_about(self, scan: SeriesId | None) -> None:
        if scan is not None and not self.is_about(scan):
            raise SupportError(
                f"{self.path} was drawn on series {', '.join(self.series) or '?'}, the scan is series {scan.uid}",
                "a drawing of this scan",
                "give the folder of the series that was drawn on",
            )


def find_drawing(path: str | Path) -> DicomDrawing | None:
    """The DICOM drawing that a path names: a DICOM SEG or RTSTRUCT file, or a folder with one of them. None for other files.

    Raises:
        SupportError: another DICOM file, or a folder without or with several drawings.
        VolumeError: damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _only_one(path)
    if not is_dicom(path):
        return None
    drawing = _open(path)
    if drawing is None:
        raise SupportError(f"{path} is a DICOM image", "labels: a DICOM SEG, an RTSTRUCT, .seg.nrrd or a label map")
    return drawing


def _only_one(folder: Path) -> DicomDrawing:
    found = [item for path in sorted(folder.iterdir()) if is_dicom(path) and (item := _open(path)) is not None]
    if len(found) == 1:
        return found[0]
    listed = ": " + ", ".join(item.path.name for item in found) if found else ""
    raise SupportError(
        f"{folder} is a folder with {len(found) or 'no'} DICOM drawings{listed}",
        "one file of labels",
        "give the file: a label map (.nii.gz, .nrrd, .mha), .seg.nrrd, a DICOM SEG or an RTSTRUCT",
    )


def _open(path: Path) -> DicomDrawing | None:
    """None for a DICOM file that is no drawing."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality", "SOPClassUID"])
        kind = "RTSTRUCT" if header.get("SOPClassUID") == RTStructureSetStorage else str(header.get("Modality", ""))
        if kind not in DRAWINGS:
            return None
        values = list(_uids(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=REFERENCES)))
    except (InvalidDicomError, EOFError, OSError, ValueError) as error:
        raise unreadable(path, error) from error
    series, frames = (
        tuple(dict.fromkeys(uid for tag, uid in values if tag in tags))
        for tags in (("SeriesInstanceUID",), ("FrameOfReferenceUID", "ReferencedFrameOfReferenceUID"))
    )
    return DicomDrawing(path, kind, series, frames)


def _uids(dataset: pydicom.Dataset) -> Iterator[tuple[str, str]]:
    """The UIDs in a dataset, at any depth, with the names of their tags."""
    for element in dataset:
        values: Any = element.value or []
        if element.VR == "SQ":
            for item in values:
                yield from _uids(item)
        elif element.VR == "UI":
            yield element.keyword, str(element.value)
