"""Whether an image file is whole, where the reading libraries do not tell.

ITK fills a truncated NIfTI file with zeros without a word, and returns noise for a damaged gzip or zlib stream in NRRD and
MetaImage files. Both are found here, from the length and the checksum that the formats store.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import SimpleITK as sitk

from FewShotSegLib.errors import VolumeError

GZIP_OR_ZLIB = 47  # zlib's wbits: the largest window, kind of header found out by itself
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20
LONGEST_HEADER = 1 << 20


def check_whole(path: Path, header: sitk.ImageFileReader) -> None:
    """Check that the voxels of a NIfTI, NRRD or MetaImage file are complete and pass their checksum.

    Args:
        path: the file.
        header: a reader whose header information was read from the same file.

    Raises:
        VolumeError: truncated or damaged.
    """
    if header.HasMetaDataKey("vox_offset"):
        _check_length(path, _nifti_length(header))
    elif (start := _compressed_start(path)) is not None:
        _length_of_stream(path, start)


def _nifti_length(header: sitk.ImageFileReader) -> int:
    """Length in bytes of an uncompressed NIfTI file with this header."""
    voxels = 1
    for axis in range(1, int(header.GetMetaData("dim[0]")) + 1):
        voxels *= int(header.GetMetaData(f"dim[{axis}]"))
    return int(float(header.GetMetaData("vox_offset"))) + voxels * int(header.GetMetaData("bitpix")) // 8


def _check_length(path: Path, expected: int) -> None:
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    found = _length_of_stream(path, 0) if compressed else path.stat().st_size
    if found < expected:
        raise _damaged(path, f"is cut off: {found} of {expected} bytes")


def _compressed_start(path: Path) -> int | None:
    """Where the compressed voxels begin in an NRRD or MetaImage file; None when not compressed or in a file of their own."""
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    if head.startswith(b"NRRD"):
        text, _, rest = head.replace(b"\r\n", b"\n").partition(b"\n\n")
        stored_here = b"encoding: gz" in text and b"data file:" not in text
        return head.index(rest[:64]) if stored_here else None
    text, _, rest = head.partition(b"ElementDataFile = LOCAL\n")
    return len(head) - len(rest) if rest and b"CompressedData = True" in text else None


def _length_of_stream(path: Path, start: int) -> int:
    """Decompressed length of the gzip or zlib stream that begins at byte `start`; the voxels are not kept."""
    stream = zlib.decompressobj(GZIP_OR_ZLIB)
    length = 0
    with path.open("rb") as file:
        file.seek(start)
        try:
            while not stream.eof and (chunk := file.read(CHUNK)):
                length += len(stream.decompress(chunk))
        except zlib.error as error:
            raise _damaged(path, f"is damaged: {error}") from error
    if not stream.eof:
        raise _damaged(path, "is cut off inside its compressed voxels")
    return length


def _damaged(path: Path, what: str) -> VolumeError:
    return VolumeError(f"{path} {what}", "a whole file", "copy or export it again")
