"""Results: volumes, and files that are whole or not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FewShotSegLib.errors import OutputError
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.volume import Geometry, Volume

GEOMETRY = Geometry((30, 24, 20), (1.0, 2.0, 2.5), (10.0, -20.0, 30.0), (0.0, 1.0, 0.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0))
ORGANS = (Organ("liver", 1), Organ("right kidney", 3), Organ("spleen", 4))
LABEL_FILES = ("x.seg.nrrd", "x.nrrd", "x.nii.gz", "x.nii", "x.mha")


def result(probabilities: bool = False) -> Segmentation:
    """Random labels of two organs; the third is absent."""
    rng = np.random.default_rng(0)
    labels = rng.choice(np.array([0, 1, 3], np.uint8), GEOMETRY.shape)
    shape = (len(ORGANS), *GEOMETRY.shape)
    scores = rng.random(shape).astype(np.float16) if probabilities else None
    return Segmentation(GEOMETRY, ORGANS, labels, np.ones(3), np.ones((3, GEOMETRY.shape[0])), scores)


@contextlib.contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a full disk."""
    resource = pytest.importorskip("resource", reason="file size limits exist on POSIX systems only")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", LABEL_FILES)
def test_labels_read_back_from_every_format(tmp_path: Path, name: str) -> None:
    path = result().write(tmp_path / "new folder" / name)
    back = Volume.read(path)
    assert np.array_equal(back.array, result().labels) and back.array.dtype == np.uint8
    assert back.geometry.same_as(GEOMETRY, tolerance_mm=1e-4)
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_segmentation_keeps_an_organ_that_was_not_found(tmp_path: Path) -> None:
    labels = read_labels(result().write(tmp_path / "x.seg.nrrd"))
    assert [segment.organ.name for segment in labels.segments] == ["liver", "right kidney", "spleen"]
    assert not labels.mask(labels.segments[2]).any()


def test_segmentation_is_compressed(tmp_path: Path) -> None:
    empty = Segmentation(GEOMETRY, (), np.zeros(GEOMETRY.shape, np.uint8), np.ones(0), np.ones((0, GEOMETRY.shape[0])))
    assert empty.write(tmp_path / "x.seg.nrrd").stat().st_size < np.prod(GEOMETRY.shape) / 10


@pytest.mark.parametrize("name", ["x.png", "x", "x.seg"])
def test_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="unknown file type") as caught:
        result().write(tmp_path / name)
    assert ".seg.nrrd" in caught.value.expected and caught.value.action
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LABEL_FILES)
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    with full_disk(2000), pytest.raises(OutputError) as caught:
        result().write(tmp_path / name)
    assert caught.value.expected and caught.value.action
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "old")]


@pytest.mark.parametrize("name", ["p.nrrd", "p.nii.gz"])
def test_a_full_disk_leaves_no_half_of_the_probabilities(tmp_path: Path, name: str) -> None:
    with full_disk(20000), pytest.raises(OutputError):
        result(probabilities=True).write_probabilities(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "x.nrrd").mkdir()
    for place in (tmp_path / "file" / "x.seg.nrrd", tmp_path / "x.nrrd"):
        with pytest.raises(OutputError) as caught:
            result().write(place)
        assert str(place) in caught.value.found and caught.value.expected and caught.value.action


@pytest.mark.parametrize("name", ["p.nrrd", "p.seq.nrrd", "p.mha"])
def test_probabilities_are_components(tmp_path: Path, name: str) -> None:
    scores = result(probabilities=True)
    assert scores.probabilities is not None
    image = sitk.ReadImage(str(scores.write_probabilities(tmp_path / name)))
    assert Geometry.of(image).same_as(GEOMETRY, tolerance_mm=1e-4)
    assert np.array_equal(np.moveaxis(sitk.GetArrayFromImage(image), -1, 0), scores.probabilities.astype(np.float32))


def test_probabilities_in_nifti_have_the_organs_last(tmp_path: Path) -> None:
    scores = result(probabilities=True)
    assert scores.probabilities is not None
    image = sitk.ReadImage(str(scores.write_probabilities(tmp_path / "p.nii.gz")))
    assert image.GetSize() == (*GEOMETRY.size, 3)
    assert Geometry.of(image[:, :, :, 0]).same_as(GEOMETRY, tolerance_mm=1e-4)
    assert np.array_equal(sitk.GetArrayFromImage(image), scores.probabilities.astype(np.float32))


def test_probabilities_that_were_not_kept_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no probabilities"):
        result().write_probabilities(tmp_path / "p.nrrd")
    for name in ("p.seg.nrrd", "p.txt"):
        with pytest.raises(OutputError, match="unknown file type"):
            result(probabilities=True).write_probabilities(tmp_path / name)


def test_volumes_and_masks() -> None:
    labels = np.zeros(GEOMETRY.shape, np.uint16)
    labels[:2, :10, :10] = 3
    found = Segmentation(GEOMETRY, ORGANS, labels, np.ones(3), np.ones((3, GEOMETRY.shape[0])))
    assert found.volumes_ml() == {"liver": 0.0, "right kidney": pytest.approx(200 * 0.005), "spleen": 0.0}
    for key in (ORGANS[1], "right kidney", 3):
        assert np.array_equal(found.mask(key), labels == 3)
    with pytest.raises(KeyError, match="heart"):
        found.mask("heart")


def test_arrays_that_do_not_fit_are_refused() -> None:
    labels, slices = np.zeros(GEOMETRY.shape, np.uint8), np.ones((3, GEOMETRY.shape[0]))
    for arrays in (
        (labels[1:], np.ones(3), slices),
        (labels, np.ones(2), slices),
        (labels, np.ones(3), slices[:, 1:]),
        (labels.astype(int), np.ones(3), slices),
        (labels, np.ones(3), slices, np.ones((2, *GEOMETRY.shape), np.float16)),
    ):
        with pytest.raises(ValueError, match="not"):
            Segmentation(GEOMETRY, ORGANS, *arrays)
