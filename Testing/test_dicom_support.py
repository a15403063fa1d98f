"""Drawings in DICOM: DICOM SEG and RTSTRUCT on the series that they were drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_folder import FRAME, dicom_item, write_object, write_stack, write_volume
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from FewShotSegLib.dicom_contours import fill
from FewShotSegLib.dicom_labels import find_drawing
from FewShotSegLib.errors import SupportError, VolumeError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

SQUARE = [(2, 1), (6, 1), (6, 4), (2, 4)]


def write_rtstruct(
    path: Path,
    regions: dict[str, list[Sequence[Sequence[float]]]],
    series: str = "1.2.3",
    frame: str = FRAME,
    kind: str = "CLOSED_PLANAR",
) -> Path:
    """Regions, each a list of contours of LPS points."""
    reference = dicom_item(
        FrameOfReferenceUID=frame,
        RTReferencedStudySequence=[dicom_item(RTReferencedSeriesSequence=[dicom_item(SeriesInstanceUID=series)])],
    )
    write_object(
        path,
        RTStructureSetStorage,
        Modality="RTSTRUCT",
        SeriesInstanceUID="9.9",
        ReferencedFrameOfReferenceSequence=[reference],
        StructureSetROISequence=[dicom_item(ROINumber=n, ROIName=name) for n, name in enumerate(regions, 3)],
        ROIContourSequence=[
            dicom_item(
                ReferencedROINumber=n,
                ROIDisplayColor=[255, 0, 51],
                ContourSequence=[
                    dicom_item(ContourGeometricType=kind, ContourData=np.ravel(points).round(6).tolist()) for points in contours
                ],
            )
            for n, contours in enumerate(regions.values(), 3)
        ],
    )
    return path


def write_seg(
    path: Path, geometry: Geometry, frames: list[tuple[int, float, np.ndarray]], series: str = "1.2.3", **tags: object
) -> Path:
    """A hand-made DICOM SEG with the frames (segment, slice, mask); the bits are packed without gaps between frames."""
    bits = np.concatenate([mask.ravel() for *_, mask in frames]).astype(np.uint8)
    numbers = sorted({number for number, *_ in frames})
    axes = geometry.axes
    tissue = dicom_item(CodeValue="10200004", CodingSchemeDesignator="SCT", CodeMeaning="Liver")
    defaults = {
        "Modality": "SEG", "SeriesInstanceUID": "8.8", "FrameOfReferenceUID": FRAME, "SegmentationType": "BINARY",
        "Rows": geometry.size[1], "Columns": geometry.size[0], "NumberOfFrames": len(frames), "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelRepresentation": 0,
        "ReferencedSeriesSequence": [dicom_item(SeriesInstanceUID=series)],
        "SegmentSequence": [
            dicom_item(
                SegmentNumber=n, SegmentLabel=f"organ {n}", RecommendedDisplayCIELabValue=[65535, 32896, 32896],
                SegmentedPropertyCategoryCodeSequence=[tissue], SegmentedPropertyTypeCodeSequence=[tissue],
            )
            for n in numbers
        ],
        "SharedFunctionalGroupsSequence": [
            dicom_item(
                PixelMeasuresSequence=[
                    dicom_item(
                        PixelSpacing=[geometry.spacing[1], geometry.spacing[0]], SliceThickness=2.0,
                        SpacingBetweenSlices=geometry.spacing[2],
                    )
                ],
                PlaneOrientationSequence=[dicom_item(ImageOrientationPatient=axes[:, :2].T.ravel().round(9).tolist())],
            )
        ],
        "PerFrameFunctionalGroupsSequence": [
            dicom_item(
                SegmentIdentificationSequence=[dicom_item(ReferencedSegmentNumber=number)],
                PlanePositionSequence=[
                    dicom_item(ImagePositionPatient=(geometry.affine() @ [0, 0, z, 1])[:3].round(9).tolist())
                ],
            )
            for number, z, _ in frames
        ],
        "PixelData": np.packbits(bits, bitorder="little").tobytes(),
    }  # fmt: skip
    write_object(path, SegmentationStorage, **(defaults | tags))
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Five slices of 7 x 9 pixels, 0.75 x 0.5 x 2 mm, the first pixel at (3, -7, 11)."""
    write_volume(tmp_path / "scan", np.random.default_rng(0).integers(0, 100, (5, 7, 9)), order=[3, 0, 4, 1, 2])
    return tmp_path / "scan"


def masks_of(scan: Path, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((2, *Volume.read(scan).geometry.shape)) > 0.6


def at(points: Sequence[tuple[float, float]], z: float) -> list[tuple[float, float, float]]:
    """Voxel positions as LPS points of `scan`."""
    return [(3 + 0.75 * i, -7 + 0.5 * j, 11 + 2 * z) for i, j in points]


def test_a_seg_lies_voxel_on_voxel_whatever_the_order_of_its_frames(tmp_path: Path, scan: Path) -> None:
    masks = masks_of(scan)
    masks[:, 3] = False
    geometry = Volume.read(scan).geometry
    frames = [(n, z, masks[n - 1, z]) for n, z in [(2, 4), (1, 0), (2, 1), (1, 2), (1, 4), (2, 0), (1, 1), (2, 2)]]
    support = Support.read(scan, write_seg(tmp_path / "seg.dcm", geometry, frames), slices="all")
    np.testing.assert_array_equal(support.masks, masks)
    assert [(organ.name, organ.label) for organ in support.organs] == [("organ 1", 1), ("organ 2", 2)]
    assert support.organs[0].color == pytest.approx((1, 1, 1), abs=0.02)
    assert "~SCT^10200004^Liver~SCT^10200004^Liver~^^~" in support.organs[0].terminology


def test_a_seg_in_flipped_order_on_an_oblique_scan(tmp_path: Path) -> None:
    row, column = np.array([0.6, 0.8, 0]), np.array([0, 0, -1.0])
    write_volume(tmp_path / "scan", np.zeros((4, 6, 5)), orientation=(*row, *column), step=3.0)
    geometry = Volume.read(tmp_path / "scan").geometry
    mask = np.random.default_rng(1).random(geometry.shape) > 0.5
    first = (geometry.affine() @ [4, 5, 0, 1])[:3]  # rows and columns from the other end, slices in the same order
    flipped = Geometry(geometry.size, geometry.spacing, first, tuple((geometry.axes * [-1, -1, 1]).ravel()))
    frames = [(1, z, mask[z, ::-1, ::-1]) for z in (2, 0, 1, 3)]
    support = Support.read(tmp_path / "scan", write_seg(tmp_path / "seg.dcm", flipped, frames), slices="all")
    np.testing.assert_array_equal(support.masks[0], mask)


def test_single_frames_of_a_coarser_seg_are_carried_over(tmp_path: Path, scan: Path) -> None:
    geometry = Volume.read(scan).geometry
    coarse = Geometry((4, 3, 3), (1.5, 1.0, 3.0), (3.375, -6.75, 11), geometry.direction)
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    support = Support.read(scan, write_seg(tmp_path / "seg.dcm", coarse, [(1, 0, mask), (1, 2, mask)]))
    assert np.argwhere(support.masks[0]).tolist() == [[z, j, i] for z in (0, 3) for j in (2, 3) for i in (4, 5)]
    assert support.drawn[0].tolist() == [True, False, False, True, False]


def test_half_of_a_fractional_seg_is_the_organ(tmp_path: Path, scan: Path) -> None:
    geometry = Volume.read(scan).geometry
    values = np.random.default_rng(0).integers(0, 101, geometry.shape).astype(np.uint8)
    frames = [(1, z, values[z] > 0) for z in range(5)]
    path = write_seg(
        tmp_path / "seg.dcm", geometry, frames, SegmentationType="FRACTIONAL", MaximumFractionalValue=100, BitsAllocated=8,
        BitsStored=8, HighBit=7, PixelData=values.tobytes() + b"\0",
    )  # fmt: skip
    np.testing.assert_array_equal(Support.read(scan, path, slices="all").masks[0], values >= 50)


def test_a_labelmap_seg_is_read(tmp_path: Path, scan: Path) -> None:
    geometry = Volume.read(scan).geometry
    labels = np.random.default_rng(0).integers(0, 3, geometry.shape).astype(np.uint8)
    frames = [(n, z, labels[z] > 0) for n, z in zip((1, 2, 1, 2, 1), range(5), strict=True)]
    path = write_seg(
        tmp_path / "seg.dcm", geometry, frames, SegmentationType="LABELMAP", BitsAllocated=8, BitsStored=8, HighBit=7,
        PixelData=labels.tobytes() + b"\0",
    )  # fmt: skip
    item = pydicom.dcmread(path)
    for frame in item.PerFrameFunctionalGroupsSequence:
        del frame.SegmentIdentificationSequence
    item.save_as(path)
    np.testing.assert_array_equal(Support.read(scan, path, slices="all").masks, [labels == 1, labels == 2])


def test_uneven_frames_are_refused(tmp_path: Path, scan: Path) -> None:
    mask = np.ones((7, 9), bool)
    path = write_seg(tmp_path / "seg.dcm", Volume.read(scan).geometry, [(1, z, mask) for z in (0, 1, 2.4)])
    with pytest.raises(SupportError, match="do not form one even grid"):
        Support.read(scan, path)


def test_contours_are_filled_with_holes_and_islands(tmp_path: Path, scan: Path) -> None:
    hole, island = [(3, 1.6), (5.4, 1.6), (5.4, 3.4), (3, 3.4)], [(3.6, 2.6), (4.4, 2.6), (4.4, 3.2), (3.6, 3.2)]
    outer = [(1.6, 0.6), (6.4, 0.6), (6.4, 4.4), (1.6, 4.4)]
    path = write_rtstruct(tmp_path / "rt.dcm", {"liver": [at(points, 2) for points in (outer, hole, island)], "none": []})
    support = Support.read(scan, path)
    expected = np.zeros((5, 7, 9), bool)
    expected[2, 1:5, 2:7] = True
    expected[2, 2:4, 3:6] = False
    expected[2, 3, 4] = True
    np.testing.assert_array_equal(support.masks[0], expected)
    assert [(o.name, o.label, o.color) for o in support.organs] == [("liver", 3, (1.0, 0.0, 0.2))]
    assert support.drawn[0].tolist() == [False, False, True, False, False]


def test_of_contours_between_two_slices_the_nearest_counts() -> None:
    grid = Geometry((9, 7, 5), (1, 1, 3))
    contours = [np.array([(i, j, 3 * z) for i, j in SQUARE]) for z in (0.8, 1.1, 1.45, 7)]
    expected = np.zeros(grid.shape, bool)
    expected[1, 1:5, 2:7] = True
    np.testing.assert_array_equal(fill(contours, grid, Path("rt.dcm")), expected)


def test_the_filled_area_of_a_circle_is_that_of_the_circle() -> None:
    grid = Geometry((80, 60, 1), (0.5, 0.75, 3), (-20, -22, 4))
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = np.stack([12 * np.cos(angle) + 1, 12 * np.sin(angle) - 2, np.full(200, 4)], axis=1)
    mask = fill([circle], grid, Path("rt.dcm"))
    assert mask.sum() * 0.5 * 0.75 == pytest.approx(np.pi * 144, rel=0.01)
    centre = np.argwhere(mask[0]).mean(axis=0) * (0.75, 0.5) + (-22, -20)
    assert centre == pytest.approx((-2, 1), abs=0.1)


def test_contours_across_the_slices_are_refused(tmp_path: Path, scan: Path) -> None:
    path = write_rtstruct(tmp_path / "rt.dcm", {"liver": [[(4, -6, 11), (6, -6, 11), (6, -6, 17)]]})
    with pytest.raises(SupportError, match="cross the slices"):
        Support.read(scan, path)


def test_points_and_lines_are_no_drawing(tmp_path: Path, scan: Path) -> None:
    with pytest.raises(SupportError, match="no closed contour"):
        Support.read(scan, write_rtstruct(tmp_path / "rt.dcm", {"liver": [at(SQUARE, 1)]}, kind="OPEN_PLANAR"))


def test_the_drawing_chooses_its_series(tmp_path: Path) -> None:
    write_stack(tmp_path / "scans", [11, 13, 15, 17], series="1.1")
    write_stack(tmp_path / "scans", [11, 13], series="2.2")
    path = write_rtstruct(tmp_path / "scans" / "rt.dcm", {"liver": [[(1.6, 2, 11), (3, 2, 11), (3, 3.4, 11)]]}, series="2.2")
    for labels in (path, tmp_path / "scans"):
        support = Support.read(tmp_path / "scans", labels)
        assert support.image.series is not None and support.image.series.uid == "2.2"
    assert Support.read(tmp_path / "scans", path, series="1.1").image.geometry.size[2] == 4  # same frame of reference


def test_a_drawing_of_another_scan_is_refused(tmp_path: Path, scan: Path) -> None:
    path = write_rtstruct(tmp_path / "rt.dcm", {"liver": [at(SQUARE, 1)]}, series="5.5", frame="6.6")
    with pytest.raises(SupportError, match=r"drawn on series 5\.5, the scan is series 1\.2\.3"):
        Support.read(scan, path)
    Volume.read(scan).write(tmp_path / "scan.nrrd")
    assert Support.read(tmp_path / "scan.nrrd", path).masks.any()  # no series to compare with: by its place


def test_what_is_no_drawing_is_told(tmp_path: Path, scan: Path) -> None:
    with pytest.raises(SupportError, match="folder with no DICOM drawings"):
        Support.read(scan, scan)
    with pytest.raises(SupportError, match="is a DICOM image"):
        Support.read(scan, scan / "000.dcm")
    for name in ("a", "b"):
        write_rtstruct(scan / name, {"liver": [at(SQUARE, 1)]})
    with pytest.raises(SupportError, match="folder with 2 DICOM drawings: a, b"):
        Support.read(scan, scan)
    assert find_drawing(tmp_path / "missing.nrrd") is None


@pytest.mark.parametrize("kept", [0.9, 0.5])
def test_a_cut_off_drawing_is_told(tmp_path: Path, scan: Path, kept: float) -> None:
    geometry = Volume.read(scan).geometry
    path = write_seg(tmp_path / "seg.dcm", geometry, [(1, z, np.ones((7, 9), bool)) for z in range(5)])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(VolumeError, match="seg.dcm cannot be read"):
        Support.read(scan, path)


def test_a_real_seg_is_the_same_as_its_nrrd(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "dicom" / "liver_seg"
    support = Support.read(folder / "ct-3slice", folder / "liver.dcm", slices="all")
    nrrd = read_labels(folder / "liver_seg.nrrd").on(support.image.geometry)
    np.testing.assert_array_equal(support.masks[0], nrrd.layers[0] > 0)
    assert support.masks.sum() > 10_000 and support.organs[0].name == "Liver"


def test_a_real_seg_with_overlaps_keeps_every_segment_whole(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "dicom" / "liver_seg"
    path = folder / "partial_overlaps.dcm"
    support = Support.read(folder / "ct-3slice", path, slices="all")
    item = pydicom.dcmread(path)
    bits = np.unpackbits(np.frombuffer(item.PixelData, np.uint8), bitorder="little")[: 7 * 512 * 512].reshape(7, 512, 512)
    numbers = [frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber for frame in item.PerFrameFunctionalGroupsSequence]
    counts = [int(sum(bits[n].sum() for n in range(7) if numbers[n] == organ.label)) for organ in support.organs]
    assert len(counts) == 5 and support.masks.sum(axis=(1, 2, 3)).tolist() == counts
    assert (support.masks.sum(axis=0) > 1).any()


def test_a_real_rtstruct_has_the_published_volume(shared_dir: Path) -> None:
    """IBSI-1 reference manual, CT phantom, configuration A: approximate volume (voxel counting) 3.59e5 mm3 +- 5e3."""
    folder = shared_dir / "data" / "dicom" / "ibsi1_lung"
    for labels in (folder / "mask" / "DCM_RS_00060.dcm", folder / "image"):
        support = Support.read(folder / "image", labels)
        assert [organ.name for organ in support.organs] == ["GTV-1"]
        assert support.masks.sum() * support.image.geometry.voxel_ml * 1000 == pytest.approx(3.59e5, abs=5e3)
