"""Results as DICOM SEG: voxel on voxel, valid, and readable by others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from dicom_folder import write_enhanced, write_volume
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from FewShotSegLib.dicom_labels import find_drawing
from FewShotSegLib.dicom_seg import organ_codes, write_dicom_seg
from FewShotSegLib.dicom_series import find_series
from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.job import Drawing, SegmentJob, run
from FewShotSegLib.organs import Organ
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

highdicom = pytest.importorskip("highdicom")

ORGANS = (Organ("liver", 2), Organ("left kidney", 7), Organ("Überbein", 4))


def result(volume: Volume, seed: int = 0, organs: tuple[Organ, ...] = ORGANS) -> Segmentation:
    """Random labels with an empty slice where there are several."""
    labels = (
        np.random.default_rng(seed).choice([0, 0, *(organ.label for organ in organs)], volume.geometry.shape).astype(np.uint8)
    )
    labels[1:2] = 0
    sure = np.ones(len(organs))
    return Segmentation(volume.geometry, organs, labels, sure, np.ones((len(organs), len(labels))))


def decoded(path: Path, volume: Volume) -> np.ndarray:
    """Segment numbers on the scan's grid (z, y, x), from the file's bits and positions alone: nothing of ours, nor highdicom."""
    item = pydicom.dcmread(path)
    rows, columns = item.Rows, item.Columns
    bits = np.unpackbits(np.frombuffer(item.PixelData, np.uint8), bitorder="little")
    found = np.zeros(volume.geometry.shape, int)
    orientation = item.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    np.testing.assert_allclose(np.reshape(orientation, (2, 3)).astype(float), volume.geometry.axes[:, :2].T, atol=1e-5)
    for number, frame in enumerate(item.PerFrameFunctionalGroupsSequence):
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        index = np.linalg.inv(volume.geometry.affine()) @ [*position, 1]
        np.testing.assert_allclose(index[:2], 0, atol=1e-3)
        groups = [frame, item.SharedFunctionalGroupsSequence[0]]
        segment = next(group.SegmentIdentificationSequence[0] for group in groups if "SegmentIdentificationSequence" in group)
        mask = bits[number * rows * columns : (number + 1) * rows * columns].reshape(rows, columns)
        found[round(index[2])] += mask * segment.ReferencedSegmentNumber
    return found


def numbered(segmentation: Segmentation) -> np.ndarray:
    """Labels as segment numbers: 1 for the first organ."""
    return sum(number * segmentation.mask(organ) for number, organ in enumerate(segmentation.organs, 1))


def check(path: Path) -> list[str]:
    """What dciodvfy calls an error."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian: dicom3tools) is not installed")
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
    assert "Segmentation" in done.stdout + done.stderr
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Five slices of 7 x 9 pixels, their files in another order."""
    voxels = np.random.default_rng(0).integers(0, 100, (5, 7, 9))
    write_volume(tmp_path / "scan", voxels, order=[3, 0, 4, 1, 2], PatientPosition="HFS")
    return tmp_path / "scan"


@st.composite
def series(draw: st.DrawFn) -> tuple[tuple[int, int, int], tuple[float, ...], float, list[int]]:
    """Shape, orientation (any rotation, of any handedness in the plane), spacing and order of files."""
    # highdicom 0.28 packs the bits of slices of less than 8 pixels wrongly; no scan has those.
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 11), st.integers(8, 11)))
    rotation, _ = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 999))).normal(size=(3, 3)))
    upright = draw(st.sampled_from([np.eye(3), np.eye(3)[[1, 2, 0]], -np.eye(3), rotation]))
    return shape, tuple(np.round(upright[:2].ravel(), 9)), draw(st.floats(0.5, 9)), draw(st.permutations(range(shape[0])))


@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(series(), st.integers(0, 99), st.booleans())
def test_any_result_comes_back_voxel_on_voxel(
    made: tuple[tuple[int, int, int], tuple[float, ...], float, list[int]], seed: int, omit_empty: bool
) -> None:
    shape, orientation, step, order = made
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_volume(folder / "scan", np.zeros(shape), orientation, step, order, SliceThickness=step)
        volume = Volume.read(folder / "scan")
        segmentation = result(volume, seed)
        path = write_dicom_seg(folder / "seg.dcm", segmentation, folder / "scan", omit_empty_frames=omit_empty)
        np.testing.assert_array_equal(decoded(path, volume), numbered(segmentation))
        drawing = find_drawing(path)
        assert drawing is not None
        ours = drawing.read(volume).on(volume.geometry)
        for segment, organ in zip(ours.segments, ORGANS, strict=True):
            np.testing.assert_array_equal(ours.mask(segment), segmentation.mask(organ))


def test_highdicom_reads_the_same_by_source_image(tmp_path: Path, scan: Path) -> None:
    segmentation = result(Volume.read(scan))
    found = highdicom.seg.segread(write_dicom_seg(tmp_path / "seg.dcm", segmentation, scan))
    uids = [item.sop for item in find_series(scan)]
    labels = found.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(labels, numbered(segmentation))


def test_the_file_is_valid_and_tells_what_it_is(tmp_path: Path, scan: Path) -> None:
    segmentation = result(Volume.read(scan))
    path = write_dicom_seg(tmp_path / "seg.dcm", segmentation, scan, settings={"method": "match"})
    item, source = pydicom.dcmread(path), pydicom.dcmread(scan / "000.dcm")
    assert (item.SegmentationType, item.Modality, item.NumberOfFrames) == ("BINARY", "SEG", 12)  # 3 organs, 4 slices with any
    for tag in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert item[tag].value == source[tag].value
    reference = item.ReferencedSeriesSequence[0]
    assert reference.SeriesInstanceUID == source.SeriesInstanceUID != item.SeriesInstanceUID
    assert len(reference.ReferencedInstanceSequence) == 5
    kidney = item.SegmentSequence[1]
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kidney.SegmentLabel, kind.CodeValue, kind.CodeMeaning) == ("left kidney", "64033007", "Kidney")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert kidney.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    algorithm = kidney.SegmentationAlgorithmIdentificationSequence[0]
    assert (kidney.SegmentAlgorithmType, algorithm.AlgorithmName) == ("SEMIAUTOMATIC", "FewShotSeg")
    assert "method" in str(algorithm.AlgorithmParameters) and item.SegmentSequence[2].SegmentLabel == "Überbein"
    support = Support.read(scan, path, slices="all")
    assert [organ.name for organ in support.organs] == [organ.name for organ in ORGANS]
    for organ, back in zip(ORGANS, support.organs, strict=True):
        assert back.color == pytest.approx(organ.color, abs=0.02)
        assert organ_codes(back) == organ_codes(organ)
    assert check(path) == []


def test_every_frame_points_to_the_image_it_lies_on(tmp_path: Path, scan: Path) -> None:
    path = write_dicom_seg(tmp_path / "seg.dcm", result(Volume.read(scan)), scan)
    places = {str(f.SOPInstanceUID): f.ImagePositionPatient for f in (pydicom.dcmread(p) for p in scan.iterdir())}
    for frame in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        uid = str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        assert frame.PlanePositionSequence[0].ImagePositionPatient == places[uid]


def test_an_enhanced_scan_with_frames_in_any_order(tmp_path: Path) -> None:
    write_enhanced(tmp_path / "scan.dcm", np.zeros((5, 7, 9)), order=[3, 0, 4, 1, 2])
    volume = Volume.read(tmp_path / "scan.dcm")
    segmentation = result(volume)
    path = write_dicom_seg(tmp_path / "seg.dcm", segmentation, tmp_path / "scan.dcm")
    np.testing.assert_array_equal(decoded(path, volume), numbered(segmentation))
    assert check(path) == []


def test_all_frames_where_asked_for_and_nothing_found(tmp_path: Path, scan: Path) -> None:
    volume = Volume.read(scan)
    segmentation = result(volume)
    path = write_dicom_seg(tmp_path / "all.dcm", segmentation, scan, omit_empty_frames=False)
    assert pydicom.dcmread(path).NumberOfFrames == 15
    segmentation.labels[:] = 0
    path = write_dicom_seg(tmp_path / "nothing.dcm", segmentation, scan)
    assert not decoded(path, volume).any()
    assert check(path) == []


@pytest.mark.parametrize(
    "terminology",
    ["nonsense", "~^^~^^~^^", "a~SCT^1^x"],
)
def test_an_organ_without_whole_codes_is_tissue(terminology: str) -> None:
    category, kind, modifier = organ_codes(Organ("liver", 1, terminology=terminology))
    assert (category.meaning, kind.meaning, modifier) == ("Tissue", "Tissue", None)


def test_names_that_dicom_cannot_hold_are_cut(tmp_path: Path, scan: Path) -> None:
    organs = (Organ("long " * 30, 1), Organ("back\\slash\nline", 2))
    path = write_dicom_seg(tmp_path / "seg.dcm", result(Volume.read(scan), organs=organs), scan)
    assert [s.SegmentLabel for s in pydicom.dcmread(path).SegmentSequence] == [("long " * 13)[:64].strip(), "back/slash line"]
    assert check(path) == []


def test_careless_headers_are_completed(tmp_path: Path) -> None:
    tags = {"SpecificCharacterSet": "", "PatientName": "X", "SeriesNumber": None}
    write_volume(tmp_path / "scan", np.zeros((2, 4, 5)), **tags)
    for path in (tmp_path / "scan").iterdir():
        item = pydicom.dcmread(path)
        for tag in ("PatientBirthDate", "StudyID", "AccessionNumber", "ReferringPhysicianName"):
            del item[tag]
        item.save_as(path)
    path = write_dicom_seg(tmp_path / "seg.dcm", result(Volume.read(tmp_path / "scan")), tmp_path / "scan")
    assert check(path) == []


def test_accents_in_the_patients_name_survive(tmp_path: Path) -> None:
    write_volume(tmp_path / "scan", np.zeros((2, 4, 5)), SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jérôme")
    path = write_dicom_seg(tmp_path / "seg.dcm", result(Volume.read(tmp_path / "scan")), tmp_path / "scan")
    assert str(pydicom.dcmread(path).PatientName) == "Müller^Jérôme"


def test_another_grid_and_a_series_without_frame_of_reference_are_refused(tmp_path: Path, scan: Path) -> None:
    segmentation = result(Volume.read(scan))
    write_volume(tmp_path / "other", np.zeros((5, 7, 9)), step=2.5)
    with pytest.raises(OutputError, match="does not lie on the grid"):
        write_dicom_seg(tmp_path / "seg.dcm", segmentation, tmp_path / "other")
    for path in scan.iterdir():
        item = pydicom.dcmread(path)
        del item.FrameOfReferenceUID
        item.save_as(path)
    with pytest.raises(OutputError, match="cannot be referred to.*Frame Of Reference"):
        write_dicom_seg(tmp_path / "seg.dcm", segmentation, scan)
    assert not (tmp_path / "seg.dcm").exists()


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path, scan: Path) -> None:
    (tmp_path / "seg.dcm").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        write_dicom_seg(tmp_path / "seg.dcm", result(Volume.read(scan)), scan)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan", "seg.dcm"]


def test_without_highdicom_it_is_told_what_to_install(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigError, match="pip install 'fewshotseg"):
        write_dicom_seg(tmp_path / "seg.dcm", result(Volume.read(scan)), scan)


@pytest.mark.parametrize("name", ["ibsi1_lung/image", "liver_seg/ct-3slice"])
def test_real_series(tmp_path: Path, shared_dir: Path, name: str) -> None:
    folder = shared_dir / "data" / "dicom" / name
    volume = Volume.read(folder)
    segmentation = result(volume)
    path = write_dicom_seg(tmp_path / "seg.dcm", segmentation, folder)
    np.testing.assert_array_equal(decoded(path, volume), numbered(segmentation))
    assert check(path) == []


def test_a_job_writes_dicom_seg_of_the_series_it_read(clinic: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    array = Volume.read(clinic / "b.nii.gz").array
    write_volume(tmp_path / "scans", np.rint(array), series="1.1", Modality="MR")
    write_volume(tmp_path / "second", np.rint(array[:3]), series="2.2", Modality="MR")
    for path in (tmp_path / "second").iterdir():
        path.rename(tmp_path / "scans" / f"second{path.name}")
    drawing = Drawing(clinic / "a.nii.gz", clinic / "a.seg.nrrd", (4,))
    config = SegmenterConfig(checkpoint=str(tiny_checkpoint))
    job = SegmentJob(
        (drawing,), (tmp_path / "scans",), tmp_path / "out", ("liver",), config=config, result_format="dicom-seg", series="2.2"
    )
    (outcome,) = run(job)
    assert outcome.output == tmp_path / "out" / "scans.dcm"
    item = pydicom.dcmread(outcome.output)
    assert item.ReferencedSeriesSequence[0].SeriesInstanceUID == "2.2"
    assert [segment.SegmentLabel for segment in item.SegmentSequence] == ["liver"]
    assert decoded(outcome.output, Volume.read(tmp_path / "scans", series="2.2")).shape[0] == 3
    with pytest.raises(ConfigError, match="b.nii.gz is no DICOM series"):
        run(SegmentJob((drawing,), (clinic / "b.nii.gz",), tmp_path / "b.dcm", config=config))
