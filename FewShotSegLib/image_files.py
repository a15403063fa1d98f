"""SimpleITK images from and to single files, with every failure told as one of our errors."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import SimpleITK as sitk

from FewShotSegLib.errors import OutputError, VolumeError
from FewShotSegLib.files import atomic_path, cannot_write, split_suffix
from FewShotSegLib.integrity import check_whole
from FewShotSegLib.nifti import restore_non_finite

READABLE = (".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd")
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mha")
DICOM_MARK = b"DICM"
ITK_PREFIX = re.compile(r"^(sitk::|ITK )?(ERROR: )?(\w+\(0x[0-9a-f]+\): )?")


def read_image(path: Path) -> sitk.Image:
    """Read the 3D image with one value per voxel that a file holds; the voxel type is kept.

    Raises:
        VolumeError: missing, another format, damaged, or 2D, 4D or colour.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        _check_readable(path)
        with quiet_sitk():
            reader.ReadImageInformation()
            check_scalar_3d(path, reader)
            check_whole(path, reader)
            image = restore_non_finite(reader.Execute(), path, reader)
    except (RuntimeError, OSError) as error:
        raise VolumeError(
            f"{path} cannot be read: {last_line(error)}",
            "a whole image file of a scan with perpendicular axes",
            "copy or export it again, for example as NRRD from 3D Slicer",
        ) from error
    return image[:, :, :, 0] if image.GetDimension() == 4 else image


def write_image(image: sitk.Image, path: Path, *, compress: bool = True) -> Path:
    """Write an image, whole or not at all. `.nii` is never compressed, `.nii.gz` always.

    Raises:
        OutputError: a suffix not in `WRITABLE`, no permission, disk full.
    """
    suffix = split_suffix(path)[1]
    if suffix.lower() not in WRITABLE:
        raise OutputError(f"Cannot write {path}: unknown file type {suffix!r}", f"one of {', '.join(WRITABLE)}")
    with atomic_path(path) as temporary:
        try:
            with quiet_sitk():
                sitk.WriteImage(image, str(temporary), useCompression=compress)
            _check_written(temporary)
        except (RuntimeError, VolumeError) as error:
            raise cannot_write(path, last_line(error)) from error
    return path


def check_scalar_3d(path: Path, header: sitk.ImageFileReader) -> None:
    """Refuse what is not one 3D scan with one real number per voxel."""
    size = header.GetSize()
    if header.GetNumberOfComponents() != 1:
        kind = f"a colour or vector image ({header.GetNumberOfComponents()} values per voxel)"
    elif "complex" in sitk.GetPixelIDValueAsString(header.GetPixelID()):
        kind = "a complex image"
    elif len(size) != 3 and not (len(size) == 4 and size[3] == 1):
        kind = f"a {len(size)}D image ({' x '.join(map(str, size))})"
    else:
        return
    raise VolumeError(
        f"{path} holds {kind}",
        "one 3D scan with one grey value per voxel",
        "export one whole 3D scan, or one time point or channel of it",
    )


class _Quiet:
    """How many threads read at this moment, and whether ITK warned before the first of them came."""

    lock = threading.Lock()
    readers = 0
    before = True


@contextmanager
def quiet_sitk() -> Iterator[None]:
    """Keep ITK's own warnings off the terminal; what matters is raised as an error. Several threads may be inside."""
    with _Quiet.lock:
        if not _Quiet.readers:
            _Quiet.before = sitk.ProcessObject.GetGlobalWarningDisplay()
            sitk.ProcessObject.SetGlobalWarningDisplay(False)
        _Quiet.readers += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.readers -= 1
            if not _Quiet.readers:
                sitk.ProcessObject.SetGlobalWarningDisplay(_Quiet.before)


def last_line(error: Exception) -> str:
    """The last line of an ITK message: what happened, without the places in ITK's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ITK_PREFIX.sub("", lines[-1]) if lines else type(error).__name__


def is_dicom(path: Path) -> bool:
    """Whether a path is a file that begins as DICOM files do; False for what is missing or not a file."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == DICOM_MARK
    except OSError:
        return False


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise VolumeError(f"{path} does not exist", "an image file or a folder with a DICOM series", "check the path")
    if split_suffix(path)[1].lower() in READABLE:
        return
    if is_dicom(path):
        raise VolumeError(f"{path} is a single DICOM file", "the folder with the whole series", f"give {path.parent} instead")
    raise VolumeError(f"{path} is not a known image file", f"one of {', '.join(READABLE)}, or a folder with a DICOM series")


def _check_written(path: Path) -> None:
    """ITK does not notice when the disk is full while it writes NIfTI."""
    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    check_whole(path, header)
