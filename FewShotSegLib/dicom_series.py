"""A DICOM series folder as one 3D image: which files belong together, in which order, and whether they form a grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.image_files import check_scalar_3d, last_line, quiet_sitk

TAGS = [
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient",
]  # fmt: skip
NOT_SCANS = ("SEG", "RTDOSE")
UNEVEN = 0.1  # largest deviation from an even stack, in slice spacings


@dataclass(frozen=True)
class Slice:
    """What the header of one image file says."""

    path: Path
    series: str
    number: str
    description: str
    modality: str
    frames: int
    matrix: tuple[int, int]
    position: tuple[float, ...]
    orientation: tuple[float, ...]


def read_series(folder: Path, series: str | None = None) -> tuple[sitk.Image, str]:
    """Read one series of a folder (not of its subfolders); other DICOM objects, such as an RTSTRUCT, are passed over.

    Args:
        folder: with the files of one or more series.
        series: UID, number or description of the series; may be left out when there is only one.

    Returns:
        The image, slices in order of position, and the modality tag ("CT", "MR", ...).

    Raises:
        VolumeError: no image or several series, damaged files, slices that do not form one even grid.
    """
    slices = _choose(folder, _scan(folder), series)
    if len(slices) == 1:
        return _read_single(slices[0]), slices[0].modality
    return _read_stack(_in_order(folder, slices)), slices[0].modality


def _scan(folder: Path) -> dict[str, list[Slice]]:
    """The image files of a folder, by series UID."""
    found: dict[str, list[Slice]] = {}
    try:
        files = sorted(p for p in folder.iterdir() if p.is_file())
    except OSError as error:
        raise _unreadable(folder, error) from error
    for path in files:
        item = _read_header(path)
        if item is not None:
            found.setdefault(item.series, []).append(item)
    return found


def _read_header(path: Path) -> Slice | None:
    """None for what is no DICOM file or no scan."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
    except InvalidDicomError:
        return None
    except (EOFError, OSError) as error:
        raise _unreadable(path, error) from error
    modality = str(header.get("Modality", ""))
    if modality in NOT_SCANS:
        return None
    if "Rows" not in header:
        if "Image Storage" in _kind(header):
            raise _unreadable(path, ValueError("its header is cut off"))
        return None
    return Slice(
        path=path,
        series=str(header.get("SeriesInstanceUID", "")),
        number=str(header.get("SeriesNumber") or ""),
        description=str(header.get("SeriesDescription") or ""),
        modality=modality,
        frames=int(header.get("NumberOfFrames") or 1),
        matrix=(int(header.Rows), int(header.Columns)),
        position=tuple(float(v) for v in header.get("ImagePositionPatient") or ()),
        orientation=tuple(float(v) for v in header.get("ImageOrientationPatient") or ()),
    )


def _kind(header: pydicom.FileDataset) -> str:
    """Name of the kind of DICOM object, such as "CT Image Storage"; it stands at the very beginning of the file."""
    return pydicom.uid.UID(header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID", "")).name


def _choose(folder: Path, found: dict[str, list[Slice]], series: str | None) -> list[Slice]:
    if not found:
        below = sorted({p.parent.relative_to(folder).as_posix() for p in folder.rglob("*.dcm")} - {"."})
        hint = f"give one of its subfolders: {', '.join(below[:8])}" if below else "give the folder that holds the DICOM files"
        raise VolumeError(f"{folder} holds no DICOM image", "a folder with one series of CT or MR slices", hint)
    wanted = [s for s in found.values() if series is None or series in (s[0].series, s[0].number, s[0].description)]
    if len(wanted) == 1:
        return wanted[0]
    listed = "; ".join(_describe(s) for s in found.values())
    if series is None:
        raise VolumeError(f"{folder} holds {len(found)} series: {listed}", "one series", "choose one by its UID or number")
    raise VolumeError(
        f"{len(wanted)} series of {folder} are called {series!r}; it holds: {listed}", "one series", "choose one by its UID"
    )


def _describe(slices: list[Slice]) -> str:
    first = slices[0]
    return f"number {first.number or '?'} {first.description!r} ({first.modality}, {len(slices)} files, UID {first.series})"


def _in_order(folder: Path, slices: list[Slice]) -> list[Slice]:
    """Sorted along the slice normal; refused unless they form one even, upright stack."""
    first = slices[0]
    if any(len(s.position) != 3 or len(s.orientation) != 6 or s.frames > 1 for s in slices):
        raise _no_stack(folder, "files without a position in the patient, or several files with many frames")
    if any(s.matrix != first.matrix or not np.allclose(s.orientation, first.orientation, atol=1e-3) for s in slices):
        raise _no_stack(folder, "slices of different size or orientation (such as a localizer among them)")
    row, column = np.reshape(first.orientation, (2, 3))
    normal = np.cross(row, column)
    slices = sorted(slices, key=lambda s: float(np.dot(s.position, normal)))
    _check_even(folder, slices, np.array([s.position for s in slices]), normal)
    return slices


def _check_even(folder: Path, slices: list[Slice], positions: np.ndarray, normal: np.ndarray) -> None:
    """Refuse several slices at one place, sideways shifts and gaps."""
    along = positions @ normal
    steps = np.diff(along)
    step = float(np.median(steps))
    if steps.min() <= UNEVEN * step:
        raise _no_stack(folder, "several slices at the same place (several time points or echoes)")
    sideways = positions - positions[0] - np.outer(along - along[0], normal)
    if np.linalg.norm(sideways, axis=1).max() > UNEVEN * step:
        raise _no_stack(folder, "slices shifted sideways, as from a tilted CT gantry")
    worst = int(np.abs(steps - step).argmax())
    if abs(steps[worst] - step) > UNEVEN * step:
        found = f"{steps[worst]:.2f} instead of {step:.2f} mm after {slices[worst].path.name}"
        raise _no_stack(folder, f"unevenly spaced slices ({found}; is a slice missing?)")


def _no_stack(folder: Path, what: str) -> VolumeError:
    return VolumeError(
        f"The series in {folder} has {what}",
        "one even stack of slices",
        "export the series again, or load it in 3D Slicer and save the volume as NRRD",
    )


def _read_single(item: Slice) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(item.path))
    try:
        with quiet_sitk():
            reader.ReadImageInformation()
            check_scalar_3d(item.path, reader)
            return reader.Execute()
    except RuntimeError as error:
        raise _unreadable(item.path, error) from error


def _read_stack(slices: list[Slice]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(s.path) for s in slices])
    folder = slices[0].path.parent
    try:
        with quiet_sitk():
            image = reader.Execute()
    except RuntimeError as error:
        raise _unreadable(_first_unreadable(slices), error) from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise VolumeError(f"The series in {folder} is in colour", "one grey value per voxel", "choose another series")
    return image


def _first_unreadable(slices: list[Slice]) -> Path:
    """The file that ITK cannot read, which its message does not name; the folder when each can be read alone."""
    for item in slices:
        try:
            with quiet_sitk():
                sitk.ReadImage(str(item.path))
        except RuntimeError:
            return item.path
    return slices[0].path.parent


def _unreadable(path: Path, error: Exception) -> VolumeError:
    return VolumeError(f"{path} cannot be read: {last_line(error)}", "whole DICOM files", "copy or export the series again")
