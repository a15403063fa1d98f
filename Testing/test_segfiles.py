"""Label files: Slicer's segmentations in all their forms, and what is not a label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import slicerio

from FewShotSegLib.errors import SupportError, VolumeError
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import read_labels, write_segmentation
from FewShotSegLib.volume import Geometry, Volume

GEOMETRY = Geometry((6, 5, 4), (1.0, 2.0, 3.0), (10.0, -20.0, 30.0))
SLICER_FILES = Path(slicerio.__file__).parent / "data"


def layered(path: Path, layers: list[np.ndarray], fields: dict[str, str]) -> Path:
    """Write layers (z, y, x) as one NRRD file with header fields."""
    images = [GEOMETRY.to_sitk(layer.astype(np.uint8)) for layer in layers]
    image = sitk.Compose(images) if len(images) > 1 else images[0]
    for key, value in fields.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def blob(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(GEOMETRY.shape) < 0.4


@pytest.mark.parametrize("name", ["Segmentation.seg.nrrd", "SegmentationOverlapping.seg.nrrd"])
def test_files_of_slicer_are_read_as_slicerio_reads_them(name: str) -> None:
    labels = read_labels(SLICER_FILES / name)
    expected = slicerio.read_segmentation(str(SLICER_FILES / name))
    assert [segment.organ.name for segment in labels.segments] == [segment["name"] for segment in expected["segments"]]
    assert len({segment.organ.label for segment in labels.segments}) == len(labels.segments)
    assert np.allclose(labels.geometry.affine(), expected["ijkToLPS"], atol=1e-6)
    for ours, theirs in zip(labels.segments, expected["segments"], strict=True):
        assert np.array_equal(labels.mask(ours).transpose(), slicerio.segment_mask(expected, theirs))
        assert np.allclose(ours.organ.color, theirs["color"])
        entry = slicerio.segmentation.terminology_entry_from_string(ours.organ.terminology)
        assert entry["type"] == theirs["terminology"]["type"]


def test_layers_of_slicer_before_4_11_have_one_segment_each(tmp_path: Path) -> None:
    fields = {"Segment0_ID": "a", "Segment0_Name": "first", "Segment1_ID": "b", "Segment1_Name": "second"}
    labels = read_labels(layered(tmp_path / "old.seg.nrrd", [blob(1), blob(2)], fields))
    assert [(s.organ.name, s.organ.label) for s in labels.segments] == [("first", 1), ("second", 2)]
    assert all(np.array_equal(labels.mask(s), blob(n)) for s, n in zip(labels.segments, (1, 2), strict=True))


def test_the_header_makes_a_segmentation_not_the_name_of_the_file(tmp_path: Path) -> None:
    fields = {"Segment0_Name": "Gefäß", "Segment0_LabelValue": "4", "Segment0_Layer": "0"}
    labels = read_labels(layered(tmp_path / "renamed.nrrd", [blob(1) * 4], fields))
    assert [(s.organ.name, s.organ.label) for s in labels.segments] == [("Gefäß", 4)]
    assert labels.mask(labels.segments[0]).sum() == blob(1).sum()


def test_segment_without_name_colour_or_terminology_gets_them(tmp_path: Path) -> None:
    fields = {"Segment0_LabelValue": "1", "Segment0_Name": "liver", "Segment1_LabelValue": "2", "Segment1_ID": "Segment_9"}
    first, second = (s.organ for s in read_labels(layered(tmp_path / "x.seg.nrrd", [blob(1)], fields)).segments)
    assert first == Organ("liver", 1)
    assert second == Organ("Segment_9", 2)


def test_segments_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    fields = {f"Segment{n}_{key}": value for n in range(3) for key, value in (("Name", "cyst"), ("LabelValue", str(n + 1)))}
    labels = read_labels(layered(tmp_path / "x.seg.nrrd", [blob(1)], fields))
    assert [s.organ.name for s in labels.segments] == ["cyst", "cyst (2)", "cyst (3)"]


def test_written_segmentation_reads_back(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).choice(np.array([0, 300, 600], np.uint16), GEOMETRY.shape)
    organs = (Organ("Große Vene | 2", 300, (0.1, 0.2, 0.3)), Organ("liver", 600), Organ("not there", 601))
    path = write_segmentation(GEOMETRY.to_sitk(voxels), organs, tmp_path / "x.seg.nrrd")
    labels = read_labels(path)
    assert tuple(segment.organ.name for segment in labels.segments) == tuple(organ.name for organ in organs)
    assert [s.organ.label for s in labels.segments] == [300, 600, 601]
    assert [s.organ.terminology for s in labels.segments] == [organ.terminology for organ in organs]
    assert np.allclose([s.organ.color for s in labels.segments], [organ.color for organ in organs], atol=1e-6)
    assert all(np.array_equal(labels.mask(segment), voxels == segment.organ.label) for segment in labels.segments)
    assert labels.geometry.same_as(GEOMETRY, tolerance_mm=1e-9)


@pytest.mark.parametrize(
    ("voxels", "found"),
    [
        (np.linspace(0, 2, 120).reshape(GEOMETRY.shape), "not whole"),
        (np.full(GEOMETRY.shape, np.nan), "not whole"),
        (np.full(GEOMETRY.shape, -3, np.int16), "from -3"),
        (np.full(GEOMETRY.shape, 70000, np.int32), "to 70000"),
    ],
)
def test_voxels_that_are_not_labels_are_refused(tmp_path: Path, voxels: np.ndarray, found: str) -> None:
    with pytest.raises(SupportError, match=found):
        read_labels(Volume(voxels, GEOMETRY).write(tmp_path / "x.nii.gz"))


def test_an_image_given_as_labels_is_refused(tmp_path: Path) -> None:
    geometry = Geometry((20, 20, 1), (1.0, 1.0, 1.0))
    image = Volume(np.arange(400, dtype=np.int16).reshape(geometry.shape), geometry).write(tmp_path / "x.nrrd")
    with pytest.raises(SupportError, match="399 different values"):
        read_labels(image)


def test_whole_numbers_stored_as_float_are_labels(tmp_path: Path) -> None:
    labels = read_labels(Volume(blob(1).astype(np.float32) * 5, GEOMETRY).write(tmp_path / "x.nii.gz"))
    assert [segment.organ.label for segment in labels.segments] == [5]


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SupportError, match="is a folder"):
        read_labels(tmp_path)


def test_a_cut_off_segmentation_is_refused(tmp_path: Path) -> None:
    source = (SLICER_FILES / "SegmentationOverlapping.seg.nrrd").read_bytes()
    broken = tmp_path / "broken.seg.nrrd"
    for share in (0.2, 0.9):
        broken.write_bytes(source[: int(len(source) * share)])
        with pytest.raises(VolumeError, match="broken.seg.nrrd"):
            read_labels(broken)
