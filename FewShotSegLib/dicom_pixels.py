"""The voxels of DICOM slices, whatever their compression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.pixels import pixel_array

from FewShotSegLib.dicom_headers import Slice, unreadable
from FewShotSegLib.dicom_stack import geometry_of
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.image_files import last_line, quiet_sitk


def read_stack(slices: Sequence[Slice]) -> sitk.Image:
    """The image of slices in order; files with many frames, and what ITK cannot decompress, are read with pydicom.

    Raises:
        VolumeError: damaged files, a compression that nothing here can read, colour.
    """
    geometry = geometry_of(slices)
    if any(item.frame is not None for item in slices):
        return _by_pydicom(slices, geometry)
    try:
        with quiet_sitk():
            image = _by_itk(slices)
    except RuntimeError as error:
        path = _first_unreadable(slices)
        if not _is_compressed(path):
            raise unreadable(path, error) from error
        return _by_pydicom(slices, geometry)
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise _in_colour(slices[0].path)
    if image.GetSize() != geometry.size:  # ITK stacks images of a single row otherwise
        return _by_pydicom(slices, geometry)
    image.SetOrigin(geometry.origin)  # one rule for all readers, also for the thickness of a single slice
    image.SetSpacing(geometry.spacing)
    image.SetDirection(geometry.direction)
    return image


def _by_itk(slices: Sequence[Slice]) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(s.path) for s in slices])
    if len({s.rescale for s in slices}) > 1:  # ITK takes the voxel type of the first slice, whose scale may be whole by chance
        reader.SetOutputPixelType(sitk.sitkFloat32)
    return reader.Execute()


def _by_pydicom(slices: Sequence[Slice], geometry: Geometry) -> sitk.Image:
    whole = all(value == int(value) for item in slices for value in item.rescale)
    voxels = np.empty(geometry.shape, np.int32 if whole else np.float32)
    for path in dict.fromkeys(item.path for item in slices):
        frames = _decode(path)
        for z, item in enumerate(slices):
            if item.path == path:
                slope, intercept = (int(value) if whole else value for value in item.rescale)
                voxels[z] = frames[item.frame or 0] * slope + intercept
    return geometry.to_sitk(_narrow(voxels))


def _narrow(voxels: np.ndarray) -> np.ndarray:
    """As int16 where that holds every value, like most scanners store them."""
    limits = np.iinfo(np.int16)
    if voxels.dtype.kind == "i" and limits.min <= voxels.min() and voxels.max() <= limits.max:
        return voxels.astype(np.int16)
    return voxels


def _decode(path: Path) -> np.ndarray:
    """Stored values of a file, (frame, row, column), wide enough to be rescaled."""
    try:
        stored = pydicom.dcmread(path)
        if stored.get("SamplesPerPixel", 1) != 1:
            raise _in_colour(path)
        frames = pixel_array(stored)
    except (EOFError, OSError, ValueError, AttributeError) as error:
        raise unreadable(path, error) from error
    except (RuntimeError, NotImplementedError) as error:
        raise VolumeError(
            f"{path} is compressed as {_syntax(path).name!r}, which cannot be read here: {last_line(error)}",
            "a compression for which a decoder is installed",
            "`pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg`, or export the series without compression",
        ) from error
    frames = frames[None] if frames.ndim == 2 else frames
    return frames.astype(np.int32 if frames.dtype.kind in "iu" else np.float32, copy=False)


def _is_compressed(path: Path) -> bool:
    return path.is_file() and _syntax(path).is_compressed


def _syntax(path: Path) -> pydicom.uid.UID:
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[])
    return pydicom.uid.UID(header.file_meta.get("TransferSyntaxUID", pydicom.uid.ImplicitVRLittleEndian))


def _first_unreadable(slices: Sequence[Slice]) -> Path:
    """The file that ITK cannot read, which its message does not name; the folder when each can be read alone."""
    for item in slices:
        try:
            with quiet_sitk():
                sitk.ReadImage(str(item.path))
        except RuntimeError:
            return item.path
    return slices[0].path.parent


def _in_colour(path: Path) -> VolumeError:
    return VolumeError(f"The series in {path.parent} is in colour", "one grey value per voxel", "choose another series")
