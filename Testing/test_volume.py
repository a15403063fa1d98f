"""Scans from and to files and DICOM folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.volume import Geometry, Volume

OBLIQUE = Geometry((6, 5, 4), (0.7, 0.8, 3.0), (-12.5, 30.25, 99.0), (0.6, 0.0, 0.8, 0.0, -1.0, 0.0, 0.8, 0.0, -0.6))


def a_volume(dtype: type = np.int16, modality: str = "MR") -> Volume:
    array = np.random.default_rng(1).integers(0, 120, OBLIQUE.shape).astype(dtype)
    return Volume(array, OBLIQUE, "scan", modality)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_a_file_keeps_voxels_type_and_place(tmp_path: Path, suffix: str, dtype: type) -> None:
    volume = a_volume(dtype)
    path = volume.write(tmp_path / f"scan.v1{suffix}")
    back = Volume.read(path)
    assert back.array.dtype == dtype
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.same_as(OBLIQUE, tolerance_mm=1e-3)
    assert back.name == "scan.v1"
    assert back.modality == ("MR" if suffix == ".nrrd" else "")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_nan_and_infinity_are_read_as_they_are(tmp_path: Path, suffix: str) -> None:
    volume = a_volume(np.float32)
    volume.array[0, 0, :2] = np.nan, np.inf
    back = Volume.read(volume.write(tmp_path / f"nan{suffix}"))
    np.testing.assert_array_equal(back.array, volume.array)
    assert back.geometry.same_as(OBLIQUE, tolerance_mm=1e-3)


def test_one_slice_is_a_scan(tmp_path: Path) -> None:
    volume = Volume(np.ones((1, 5, 6), np.float32), Geometry((6, 5, 1), (1, 1, 5)))
    assert Volume.read(volume.write(tmp_path / "one.nii")).array.shape == (1, 5, 6)


def test_a_series_cannot_be_chosen_from_a_file(tmp_path: Path) -> None:
    path = a_volume().write(tmp_path / "scan.nrrd")
    with pytest.raises(VolumeError, match="not a folder"):
        Volume.read(path, series="2")


def test_the_file_is_named_when_its_grid_is_impossible(tmp_path: Path) -> None:
    path = tmp_path / "sheared.nrrd"
    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
        "space directions: (1,0,0) (0.4,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: raw\n\n"
    )
    path.write_bytes(header.encode() + bytes(8))
    with pytest.raises(VolumeError, match=r"sheared\.nrrd: Axes that are not perpendicular"):
        Volume.read(path)


def test_the_array_must_fit_its_geometry() -> None:
    with pytest.raises(VolumeError, match=r"\(6, 5, 4\).*\(4, 5, 6\)"):
        Volume(np.zeros((6, 5, 4)), OBLIQUE)


@pytest.mark.parametrize(
    ("modality", "air", "expected"), [("CT", 0, True), ("MR", 50, False), ("", 50, True), ("", 1, True), ("", 0, False)]
)
def test_ct_is_known_by_its_tag_or_by_its_air(modality: str, air: int, expected: bool) -> None:
    array = np.zeros((1, 10, 10), np.int16)
    array.ravel()[:air] = -900
    assert Volume(array, Geometry((10, 10, 1), (1, 1, 1)), modality=modality).is_ct is expected


@pytest.mark.parametrize(("darkest", "expected"), [(-1024, True), (-125, True), (-100, False), (0, False)])
def test_ct_that_was_cut_to_a_window_is_known_by_its_air_and_fat_is_none(darkest: int, expected: bool) -> None:
    array = np.full((1, 10, 10), 40, np.int16)
    array[:, 5:] = darkest
    assert Volume(array, Geometry((10, 10, 1), (1, 1, 1))).is_ct is expected


def test_a_dicom_folder_gives_scan_and_modality(shared_dir: Path) -> None:
    volume = Volume.read(shared_dir / "data" / "dicom" / "ibsi1_lung" / "image")
    assert volume.array.shape == (60, 201, 204)
    assert volume.array.dtype == np.int16
    assert volume.spacing == pytest.approx((0.977, 0.977, 3.0))
    assert volume.geometry.origin == pytest.approx((-174.3945, -79.6255, -100.4))
    assert (volume.name, volume.modality, volume.is_ct) == ("image", "CT", True)


def test_a_real_scan_keeps_its_grid_through_a_file(shared_dir: Path, tmp_path: Path) -> None:
    volume = Volume.read(shared_dir / "data" / "chaos_t2" / "01_image.nii.gz")
    assert volume.array.shape == (37, 256, 256)
    back = Volume.read(volume.write(tmp_path / "copy.nrrd"))
    assert back.geometry.same_as(volume.geometry, tolerance_mm=1e-3)
    np.testing.assert_array_equal(back.array, volume.array)
