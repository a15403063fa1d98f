"""Single image files: what is refused, and writing whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FewShotSegLib.errors import OutputError, VolumeError
from FewShotSegLib.image_files import WRITABLE, read_image, write_image

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def image() -> sitk.Image:
    return sitk.GetImageFromArray(VOXELS)


@pytest.mark.parametrize(
    ("kind", "refused", "message"),
    [
        ("2D", image()[:, :, 0], r"a 2D image \(5 x 4\)"),
        ("4D", sitk.JoinSeries([image(), image()]), r"a 4D image \(5 x 4 x 3 x 2\)"),
        ("colour", sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True), r"colour or vector image \(3 values"),
        ("complex", sitk.Cast(image(), sitk.sitkComplexFloat32), "2 values per voxel"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_what_is_no_single_3d_scan_is_refused(tmp_path: Path, suffix: str, kind: str, refused: sitk.Image, message: str) -> None:
    path = tmp_path / f"{kind}{suffix}"
    sitk.WriteImage(refused, str(path))
    with pytest.raises(VolumeError, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "one 3D scan" in str(caught.value)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
def test_a_single_time_point_is_a_3d_scan(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"one{suffix}"
    sitk.WriteImage(sitk.JoinSeries([image()]), str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path)), VOXELS)


def test_scale_and_offset_of_nifti_are_applied(tmp_path: Path) -> None:
    path = tmp_path / "scaled.nii"
    sitk.WriteImage(image(), str(path))
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([0.5, -3], np.float32).tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    np.testing.assert_allclose(sitk.GetArrayFromImage(read_image(path)), VOXELS * 0.5 - 3)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="nothing.nii.gz does not exist.*What to do: check the path"):
        read_image(tmp_path / "nothing.nii.gz")


@pytest.mark.parametrize("name", ["notes.txt", "photo.jpg", "none"])
def test_other_files_are_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello")
    with pytest.raises(VolumeError, match=r"not a known image file.*\.nii\.gz, \.nrrd"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_text_called_an_image_is_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"fake{suffix}").write_text("this is not a scan\n" * 50)
    with pytest.raises(VolumeError, match=f"fake{suffix} cannot be read"):
        read_image(tmp_path / f"fake{suffix}")


def test_one_file_of_a_dicom_series_points_to_its_folder(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(100))
    with pytest.raises(VolumeError, match=f"single DICOM file.*give {tmp_path} instead"):
        read_image(tmp_path / "IM0001")


def test_warnings_of_itk_are_silenced_and_come_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "scan.nii.gz"
    write_image(image(), path)
    read_image(path)
    assert capfd.readouterr().err == ""
    assert sitk.ProcessObject.GetGlobalWarningDisplay()


@pytest.mark.parametrize("suffix", WRITABLE)
def test_written_files_read_back(tmp_path: Path, suffix: str) -> None:
    path = write_image(image(), tmp_path / f"deep/er/scan{suffix}")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_image(path)), VOXELS)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", ["scan.mhd", "scan.png", "scan"])
def test_unknown_file_types_are_not_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="unknown file type.*Expected: one of .nii"):
        write_image(image(), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_an_unwritable_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="Cannot write .*scan.nrrd"):
        write_image(image(), tmp_path / "file" / "scan.nrrd")


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, SimpleITK as sitk
from FewShotSegLib.errors import OutputError
from FewShotSegLib.image_files import WRITABLE, write_image
noise = np.random.default_rng(0).integers(0, 1000, (20, 64, 64)).astype(np.int16)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for suffix in WRITABLE:
    try:
        write_image(sitk.GetImageFromArray(noise), Path(sys.argv[1]) / f"scan{suffix}")
    except OutputError as error:
        print(suffix, error.found.split(":")[0])
"""


@pytest.mark.skipif(os.name != "posix", reason="the full disk is imitated by a POSIX limit on file size")
def test_a_full_disk_is_told_for_every_file_type_and_leaves_the_old_file(tmp_path: Path) -> None:
    for suffix in WRITABLE:
        (tmp_path / f"scan{suffix}").write_text("old")
    run = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{suffix} Cannot write {tmp_path}/scan{suffix}" for suffix in WRITABLE]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {f"scan{suffix}": "old" for suffix in WRITABLE}
