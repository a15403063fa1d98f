"""NaN and infinite voxels survive the reading of NIfTI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FewShotSegLib.image_files import read_image
from FewShotSegLib.nifti import VOXELS_AT_ONCE

LAST = (-1, -1, -1)


def damaged(dtype: type, shape: tuple[int, int, int] = (3, 4, 5)) -> np.ndarray:
    array: np.ndarray = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    array[0, 1, 2], array[1, 0, 0], array[LAST] = np.nan, -np.inf, np.inf
    return array


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_non_finite_voxels_are_kept(tmp_path: Path, suffix: str, dtype: type) -> None:
    image = sitk.GetImageFromArray(damaged(dtype))
    image.SetSpacing((0.5, 0.6, 0.7))
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    back = read_image(tmp_path / f"scan{suffix}")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), damaged(dtype))
    assert back.GetSpacing() == pytest.approx((0.5, 0.6, 0.7))


def test_voxels_beyond_the_first_block_are_found(tmp_path: Path) -> None:
    array = damaged(np.float32, (2, 1024, VOXELS_AT_ONCE // 1024))
    sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "scan.nii"))
    assert np.isposinf(sitk.GetArrayFromImage(read_image(tmp_path / "scan.nii"))[LAST])


def test_big_endian_files_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii"
    sitk.WriteImage(sitk.GetImageFromArray(damaged(np.float32)), str(path))
    path.write_bytes(swapped(path.read_bytes()))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path)), damaged(np.float32))


def swapped(little: bytes) -> bytes:
    """A little-endian NIfTI-1 file of 32-bit numbers with every number byte-swapped."""
    header = np.frombuffer(little, np.uint8)[:352].copy()
    two, four = [40 + 2 * i for i in range(8)] + list(range(68, 76, 2)) + [252, 254], [0, *range(76, 140, 4), *range(256, 328, 4)]
    for start, width in [(s, 2) for s in two] + [(s, 4) for s in four]:
        header[start : start + width] = header[start : start + width][::-1].copy()
    return header.tobytes() + np.frombuffer(little[352:], "<f4").astype(">f4").tobytes()
