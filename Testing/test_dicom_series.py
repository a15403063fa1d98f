"""DICOM folders as people have them: shuffled, mixed, incomplete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_folder import write_enhanced, write_object, write_slice, write_stack, write_volume
from pydicom.uid import JPEGLSLossless, RLELossless, RTStructureSetStorage

from FewShotSegLib.dicom_series import find_series, read_series
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.volume import Volume


def test_slices_are_ordered_by_position_not_by_name(tmp_path: Path) -> None:
    write_stack(tmp_path, [6, 2, 8, 4])
    image, modality, _ = read_series(tmp_path)
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
    image = read_series(tmp_path).image
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
    image, modality, _ = read_series(tmp_path, choice)
    assert (image.GetSize()[2], modality) == (3, "MR")


def test_of_several_series_the_longest_is_taken_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_stack(tmp_path, [2, 4], series="1.1")
    write_stack(tmp_path, [2, 4, 6], series="2.2")
    write_stack(tmp_path, [2, 4, 6], series="3.3", SeriesNumber=5, SeriesDescription="pelvis")
    write_stack(tmp_path, [2, 4, 6, 8], series="4.4", ImageType=["DERIVED", "PRIMARY", "LOCALIZER"])
    write_stack(tmp_path, [2, 4, 6, 8, 10], series="5.5", ImagePositionPatient=None)
    image, _, uids = read_series(tmp_path)
    assert (image.GetSize()[2], uids.uid) == (3, "3.3")
    assert "holds 5 series" in caplog.text and "Taken: number 5 'pelvis' (CT, 3 slices, UID 3.3)" in caplog.text
    caplog.clear()
    assert read_series(tmp_path, "1.1").image.GetSize()[2] == 2
    assert not caplog.text


def test_a_series_that_is_not_there_or_not_the_only_one_is_told(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4], series="1.1")
    write_stack(tmp_path, [2, 4, 6], series="2.2")
    with pytest.raises(VolumeError, match="2 series .* are called 'abdomen'.*CT, 2 slices, UID 1.1.*CT, 3 slices, UID 2.2"):
        read_series(tmp_path, "abdomen")
    with pytest.raises(VolumeError, match="0 series .* are called 'head'"):
        read_series(tmp_path, "head")


def test_only_localizers_are_no_scan_unless_asked_for(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(VolumeError, match="only localizers"):
        read_series(tmp_path)
    assert read_series(tmp_path, "7").image.GetSize() == (5, 4, 2)


def test_copies_of_files_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_stack(tmp_path, [2, 4, 6])
    (tmp_path / "copy.dcm").write_bytes((tmp_path / "a1.dcm").read_bytes())
    assert read_series(tmp_path).image.GetSize() == (5, 4, 3)
    assert "1 copies of slices are left out: copy.dcm" in caplog.text


def test_one_uid_in_two_places_is_refused(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4, 6], SOPInstanceUID="1.9")
    with pytest.raises(VolumeError, match="same UID in different images, a0.dcm and a1.dcm"):
        read_series(tmp_path)


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


def test_all_gaps_are_counted(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4, 6, 10, 12, 14, 20, 22])
    with pytest.raises(VolumeError, match=r"after a2\.dcm, 6\.00 instead of 2\.00 mm after a5\.dcm; 3 slices seem to be missing"):
        read_series(tmp_path)


@pytest.mark.parametrize("tag", ["TemporalPositionIdentifier", "EchoTime"])
def test_several_time_points_or_echoes_are_refused(tmp_path: Path, tag: str) -> None:
    for time in (1, 2, 3):
        write_stack(tmp_path / str(time), [2, 4], **{tag: time})
        for path in (tmp_path / str(time)).iterdir():
            path.rename(tmp_path / f"{time}{path.name}")
    with pytest.raises(VolumeError, match=f"3 slices at each of 2 places .*4D; they differ in {tag}"):
        read_series(tmp_path)


def test_some_places_with_two_slices_are_refused(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4, 6, 6, 8])
    with pytest.raises(VolumeError, match=r"several slices at the same place \(1 of 4 places: a2.dcm, a3.dcm\)"):
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


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_slices_are_the_same_scan(tmp_path: Path, syntax: pydicom.uid.UID) -> None:
    pytest.importorskip("jpeg_ls")
    write_volume(tmp_path, np.random.default_rng(0).integers(-99, 3000, (3, 8, 9)))
    expected = sitk.GetArrayFromImage(read_series(tmp_path).image)
    for path in tmp_path.iterdir():
        item = pydicom.dcmread(path)
        item.compress(syntax, generate_instance_uid=False)
        item.save_as(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path).image), expected)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_jpeg_of_gdcm_is_the_same_scan(tmp_path: Path, compressor: str) -> None:
    voxels = np.random.default_rng(0).integers(0, 3000, (3, 8, 9)).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetCompressor(compressor)
    writer.UseCompressionOn()
    writer.KeepOriginalImageUIDOn()
    for z, plane in enumerate(voxels):
        image = sitk.GetImageFromArray(plane[None])
        tags = {"0008|0060": "CT", "0020|000e": "1.2.3", "0020|0032": f"0\\0\\{z}", "0020|0037": "1\\0\\0\\0\\1\\0"}
        for tag, value in {**tags, "0008|0018": f"1.2.3.{z + 1}"}.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(tmp_path / f"{9 - z}.dcm"))
        writer.Execute(image)
    assert pydicom.dcmread(tmp_path / "9.dcm").file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(tmp_path).image), voxels)


def test_a_compression_that_nothing_reads_is_named(tmp_path: Path) -> None:
    write_stack(tmp_path, [2, 4])
    item = pydicom.dcmread(tmp_path / "a1.dcm")
    item.compress(RLELossless, generate_instance_uid=False)
    item.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
    item.save_as(tmp_path / "a1.dcm")
    with pytest.raises(VolumeError, match="a1.dcm is compressed as 'High-Throughput JPEG 2000.*pip install"):
        read_series(tmp_path)


def test_slices_scaled_one_by_one_keep_their_fractions(tmp_path: Path) -> None:
    for z, slope in enumerate((1, 0.25, 0.5)):
        write_slice(tmp_path / f"{z}", (0, 0, 2 * z), 3, RescaleSlope=slope, RescaleIntercept=0)
    assert sitk.GetArrayFromImage(read_series(tmp_path).image)[:, 0, 0].tolist() == [3, 0.75, 1.5]


def test_an_enhanced_file_is_sorted_and_scaled_frame_by_frame(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 1000, (4, 6, 5))
    write_enhanced(tmp_path / "scan.dcm", voxels, order=[2, 0, 3, 1])
    expected = voxels * np.arange(1, 5)[:, None, None] - 5
    for place in (tmp_path, tmp_path / "scan.dcm"):
        volume = Volume.read(place)
        np.testing.assert_array_equal(volume.array, expected)
        assert (volume.spacing, volume.geometry.origin, volume.modality) == ((0.75, 0.5, 3), (1, 2, 0), "MR")
    assert volume.series is not None and volume.series.uid == "1.2.4"
    assert [item.frame for item in find_series(tmp_path)] == [1, 3, 0, 2]


def test_an_enhanced_file_of_several_time_points_is_refused(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "scan.dcm", np.zeros((3, 4, 5)), times=4)
    with pytest.raises(VolumeError, match="4 slices at each of 3 places.*differ in TemporalPositionIndex"):
        read_series(tmp_path)


def test_many_frames_without_places_are_refused(tmp_path: Path) -> None:
    write_slice(tmp_path / "a", (0, 0, 0), np.zeros((12, 5)), Rows=4, NumberOfFrames=3)
    with pytest.raises(VolumeError, match="many frames and no position"):
        read_series(tmp_path)


def test_a_real_folder_with_an_rtstruct_and_one_with_dicom_seg(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "dicom"
    assert read_series(folder / "ibsi1_lung" / "image").image.GetSize() == (204, 201, 60)
    assert read_series(folder / "liver_seg" / "ct-3slice")[0].GetSize() == (512, 512, 3)
    with pytest.raises(VolumeError, match="subfolders: ct-3slice"):
        read_series(folder / "liver_seg")
