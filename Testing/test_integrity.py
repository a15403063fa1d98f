"""Cut off and damaged files, which the reading libraries partly take for whole ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.image_files import read_image
from FewShotSegLib.integrity import check_whole

COMPRESSED = [".nii.gz", ".nrrd", ".mha"]
PLAIN = [".nii", ".nrrd", ".mha"]
CASES = [(suffix, True) for suffix in COMPRESSED] + [(suffix, False) for suffix in PLAIN]


def write(path: Path, compress: bool) -> bytes:
    array = np.random.default_rng(0).integers(-1000, 1000, (10, 32, 32)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), compress)
    return path.read_bytes()


def check(path: Path) -> None:
    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    check_whole(path, header)


@pytest.mark.parametrize(("suffix", "compress"), CASES)
def test_a_whole_file_passes(tmp_path: Path, suffix: str, compress: bool) -> None:
    path = tmp_path / f"scan{suffix}"
    write(path, compress)
    check(path)


@pytest.mark.parametrize(("suffix", "compress"), CASES)
@pytest.mark.parametrize("kept", [0.999, 0.5, 0.01, 0.0])
def test_a_cut_off_file_is_never_read(tmp_path: Path, suffix: str, compress: bool, kept: float) -> None:
    path = tmp_path / f"scan{suffix}"
    whole = write(path, compress)
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(VolumeError, match=f"scan{suffix}") as caught:
        read_image(path)
    assert "copy or export it again" in str(caught.value)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_flipped_byte_in_compressed_voxels_is_found(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    damaged = bytearray(write(path, True))
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(VolumeError, match=f"scan{suffix}"):
        read_image(path)


def test_a_cut_off_nifti_says_how_much_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    whole = write(path, False)
    path.write_bytes(whole[:-1])
    with pytest.raises(VolumeError, match=f"cut off: {len(whole) - 1} of {len(whole)} bytes"):
        check(path)


def test_scaled_nifti_is_measured_by_its_stored_type(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    whole = bytearray(write(path, False))
    whole[112:116] = np.float32(0.5).tobytes()  # scl_slope: read as float, stored as 16 bits
    path.write_bytes(whole)
    assert sitk.ReadImage(str(path)).GetPixelID() == sitk.sitkFloat32
    check(path)


def test_voxels_in_a_file_of_their_own_are_left_to_itk(tmp_path: Path) -> None:
    path = tmp_path / "scan.mhd"
    write(path, True)
    check(path)
    (tmp_path / "scan.zraw").unlink()
    with pytest.raises(VolumeError, match="scan.mhd cannot be read"):
        read_image(path)
