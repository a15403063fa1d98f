"""DICOM folders as people have them: shuffled, mixed, incomplete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from FewShotSegLib.dicom_series import read_series
from FewShotSegLib.errors import VolumeError

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def write_object(path: Path, kind: str, **tags: object) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(kind)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name, value in tags.items():
        setattr(item, name, value)
    item.save_as(path, enforce_file_format=True)


def write_slice(path: Path, position: tuple[float, ...], value: int, series: str = "1.2.3", **tags: object) -> None:
    defaults = {
        "Modality": "CT", "SeriesInstanceUID": series, "SeriesNumber": 7, "SeriesDescription": "abdomen",
        "Rows": 4, "Columns": 5, "PixelSpacing": [0.5, 0.75], "SliceThickness": 2.0,
        "ImagePositionPatient": list(position), "ImageOrientationPatient": list(UPRIGHT),
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
        "PixelRepresentation": 1, "RescaleIntercept": -1000, "RescaleSlope": 1,
        "PixelData": np.full((4, 5), value, np.int16).tobytes(),
    }  # fmt: skip
    write_object(path, CTImageStorage, **(defaults | tags))


def write_stack(folder: Path, heights: list[float], **tags: object) -> None:
    """One slice at each height, its value ten times the height; the names are in the order given."""
    for number, height in enumerate(heights):
        write_slice(folder / f"{tags.get('series', 'a')}{number}.dcm", (1.0, 2.0, height), round(10 * height), **tags)


def test_slices_are_ordered_by_position_not_by_name(tmp_path: Path) -> None:
    write_stack(tmp_path, [6, 2, 8, 4])
    image, modality = read_series(tmp_path)
    assert modality == "CT"
    assert sitk.GetArrayFromImage(image)[:, 0, 0].tolist() == [-980, -960, -940, -920]
    assert image.GetSpacing() == pytest.approx((0.75, 0.5, 2.0))
    assert image.GetOrigin() == pytest.approx((1, 2, 2))


def test_oblique_slices_keep_their_orientation(tmp_path: Path) -> None:
    row, column = np.array([0.0, 1.0, 0.0]), np.array([0.6, 0.0, -0.8])
    normal = np.cross(row, column)
    for number in range(3):
        position = tuple(3.0 * number * normal)
        write_slice(tmp_path / f"{9 - number}", position, number, ImageOrientationPatient=[*row, *column])
    image, _ = read_series(tmp_path)
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)).T, [row, column, normal], atol=1e-6)
    assert image.GetSpacing()[2] == pytest.approx(3)
    assert sitk.GetArrayFromImage(image)[:, 0, 0].tolist() == [-1000, -999, -998]


def test_one_slice_is_a_scan(tmp_path: Path) -> None:
    write_stack(tmp_path, [2])
    assert read_series(tmp_path)[0].GetSize() == (5, 4, 1)


def test_other_objects_are_passed_over(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4])
    write_object(tmp_path / "rtss.dcm", RTStructureSetStorage, Modality="RTSTRUCT", SeriesInstanceUID="9.9")
    write_slice(tmp_path / "seg.dcm", (0, 0, 0), 1, series="8.8", Modality="SEG")
    (tmp_path / "notes.txt").write_text("no DICOM")
    (tmp_path / "empty").write_bytes(b"")
    assert read_series(tmp_path)[0].GetSize() == (5, 4, 2)


@pytest.mark.parametrize("choice", ["2.2", "8", "pelvis"])
def test_one_of_several_series_is_chosen_by_uid_number_or_description(tmp_path: Path, choice: str) -> None:
    write_stack(tmp_path, [2, 4], series="1.1")
    write_stack(tmp_path, [2, 4, 6], series="2.2", SeriesNumber=8, SeriesDescription="pelvis", Modality="MR")
    image, modality = read_series(tmp_path, choice)
    assert (image.GetSize()[2], modality) == (3, "MR")


def test_several_series_are_listed(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4], series="1.1")
    write_stack(tmp_path, [2, 4, 6], series="2.2")
    with pytest.raises(VolumeError, match="2 series: number 7 'abdomen' .CT, 2 files, UID 1.1.*CT, 3 files, UID 2.2"):
        read_series(tmp_path)
    with pytest.raises(VolumeError, match="2 series .* are called 'abdomen'"):
        read_series(tmp_path, "abdomen")
    with pytest.raises(VolumeError, match="0 series .* are called 'head'"):
        read_series(tmp_path, "head")


def test_a_folder_without_images_names_those_below(tmp_path: Path) -> None:
    (tmp_path / "series1").mkdir()
    write_stack(tmp_path / "series1", [2])
    with pytest.raises(VolumeError, match="holds no DICOM image.*subfolders: series1"):
        read_series(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(VolumeError, match="give the folder that holds the DICOM files"):
        read_series(tmp_path / "empty")


def test_a_missing_slice_is_told_with_its_place(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4, 6, 10, 12])
    with pytest.raises(VolumeError, match=r"4\.00 instead of 2\.00 mm after a2\.dcm"):
        read_series(tmp_path)


@pytest.mark.parametrize("heights", [[2, 2, 4, 4], [2, 2, 2, 4, 4, 4]])
def test_several_time_points_are_refused(tmp_path: Path, heights: list[float]) -> None:
    write_stack(tmp_path, heights)
    with pytest.raises(VolumeError, match="several slices at the same place"):
        read_series(tmp_path)


def test_a_tilted_gantry_is_refused(tmp_path: Path) -> None:
    for number in range(4):
        write_slice(tmp_path / f"{number}", (0, 0.7 * number, 2 * number), number)
    with pytest.raises(VolumeError, match="tilted CT gantry"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    "odd",
    [{"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, {"Rows": 2, "Columns": 10}],
    ids=["localizer", "other matrix"],
)
def test_a_localizer_among_the_slices_is_told(tmp_path: Path, odd: dict[str, object]) -> None:
    write_stack(tmp_path, [2, 4])
    write_slice(tmp_path / "odd", (1, 2, 6), 0, **odd)
    with pytest.raises(VolumeError, match="different size or orientation"):
        read_series(tmp_path)


def test_slices_without_position_are_refused(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4], ImagePositionPatient=None)
    with pytest.raises(VolumeError, match="without a position"):
        read_series(tmp_path)


@pytest.mark.parametrize("kept", [0.97, 0.8, 0.5, 0.35])
def test_a_cut_off_slice_is_never_left_out(tmp_path: Path, kept: float) -> None:
    write_stack(tmp_path, [2, 4, 6])
    last = tmp_path / "a2.dcm"
    whole = last.read_bytes()
    last.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(VolumeError, match="a2.dcm cannot be read"):
        read_series(tmp_path)


def test_colour_is_refused(tmp_path: Path) -> None:
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8}
    colour |= {"BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0, "PixelData": bytes(60)}
    write_stack(tmp_path, [2, 4], **colour)
    with pytest.raises(VolumeError, match="in colour"):
        read_series(tmp_path)


def test_a_real_folder_with_an_rtstruct_and_one_with_dicom_seg(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "dicom"
    assert read_series(folder / "ibsi1_lung" / "image")[0].GetSize() == (204, 201, 60)
    assert read_series(folder / "liver_seg" / "ct-3slice")[0].GetSize() == (512, 512, 3)
    with pytest.raises(VolumeError, match="subfolders: ct-3slice"):
        read_series(folder / "liver_seg")
