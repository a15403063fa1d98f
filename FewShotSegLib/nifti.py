"""NaN and infinite voxels of NIfTI files, which ITK's NIfTI library silently replaces by zero."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk

from FewShotSegLib.integrity import GZIP_MAGIC

FLOATS = {"16": "f4", "64": "f8"}  # by NIfTI's datatype code
LITTLE_ENDIAN = (b"\x5c\x01\0\0", b"\x1c\x02\0\0")  # a header of 348 (NIfTI-1) or 540 (NIfTI-2) bytes
VOXELS_AT_ONCE = 1 << 20


def restore_non_finite(image: sitk.Image, path: Path, header: sitk.ImageFileReader) -> sitk.Image:
    """The image as read from `path`, with NaN and infinite voxels where the file has them.

    Args:
        image: what ITK made of the file.
        path: the file, of any format; only NIfTI files of floating point numbers are looked at.
        header: a reader whose header information was read from the same file.
    """
    code = header.GetMetaData("datatype") if header.HasMetaDataKey("datatype") else ""
    if code not in FLOATS:
        return image
    places, values = _non_finite(path, int(float(header.GetMetaData("vox_offset"))), np.dtype(FLOATS[code]))
    if not places.size:
        return image
    array = sitk.GetArrayFromImage(image)
    array.flat[places] = values
    restored = sitk.GetImageFromArray(array, isVector=False)
    restored.CopyInformation(image)
    return restored


def _non_finite(path: Path, offset: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Places, counted from the first voxel, and values of the non-finite voxels of a NIfTI file."""
    places, values, start = [np.empty(0, int)], [np.empty(0, dtype)], 0
    with _open(path) as file:
        dtype = dtype.newbyteorder("<" if file.read(4) in LITTLE_ENDIAN else ">")
        file.seek(offset)
        while block := file.read(VOXELS_AT_ONCE * dtype.itemsize):
            voxels = np.frombuffer(block, dtype, len(block) // dtype.itemsize)
            bad = np.flatnonzero(~np.isfinite(voxels))
            places.append(start + bad)
            values.append(voxels[bad])
            start += voxels.size
    return np.concatenate(places), np.concatenate(values)


def _open(path: Path) -> BinaryIO | gzip.GzipFile:
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    return gzip.open(path) if compressed else path.open("rb")
