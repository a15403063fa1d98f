"""Scans and drawings as nodes of the page, and what becomes of a result: corrected, used again, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from mrml_nodes import new_scene

pytest.importorskip("trame_slicer", reason="the page needs the extra 'app'")

from FewShotSegLib.app.drawing import organs_of
from FewShotSegLib.app.nodes import drawing_node, labels_of, node_from_volume
from FewShotSegLib.app.results import Result, slice_with_most, write
from FewShotSegLib.app.scans import CT_WINDOW, add_scan
from FewShotSegLib.errors import ConfigError, VolumeError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.mrml import support_from_nodes, volume_from_node
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

TURNED = tuple(sitk.VersorTransform((0.5, -0.3, 0.8), 0.4).GetMatrix())
GEOMETRY = Geometry((6, 5, 4), (1.5, 2.0, 4.0), (-10.0, 20.0, 30.0), TURNED)
ORGANS = (Organ("liver", 1), Organ("spleen", 2))


@pytest.fixture
def scene() -> Any:
    return new_scene()


def volume(kind: type = np.int16, modality: str = "MR") -> Volume:
    array = np.random.default_rng(0).integers(0, 100, GEOMETRY.shape).astype(kind)
    return Volume(array, GEOMETRY, "scan", modality)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.int64, np.bool_])
def test_a_scan_becomes_a_node_and_comes_back(scene: Any, kind: type) -> None:
    given = volume(kind)
    found = volume_from_node(node_from_volume(given, scene))
    assert found.geometry.same_as(given.geometry) and found.modality == "MR"
    assert np.array_equal(found.array, given.array.astype(found.array.dtype))


def test_voxels_that_vtk_does_not_have_are_refused(scene: Any) -> None:
    with pytest.raises(VolumeError, match="complex64"):
        node_from_volume(Volume(np.zeros(GEOMETRY.shape, np.complex64), GEOMETRY), scene)


def test_ct_is_shown_in_a_window_for_soft_tissue(scene: Any) -> None:
    scan = add_scan(volume(modality="CT"), None, scene)
    display = scan.node.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == CT_WINDOW
    assert scan.info.startswith("CT · 6 × 5 × 4 voxels") and not scan.shown()["dicom"]


def drawn(scan: Volume) -> Support:
    masks = np.zeros((2, *GEOMETRY.shape), bool)
    masks[0, 1:3, 1:3, 1:4] = masks[1, 2, 3:, 2:5] = True
    return Support.create(scan, masks, ORGANS, slices="all")


def test_a_drawing_becomes_a_node_and_comes_back(scene: Any) -> None:
    given = drawn(volume())
    node = node_from_volume(given.image, scene)
    drawing = drawing_node(given, node)
    found = support_from_nodes(node, drawing)
    assert [organ.name for organ in found.organs] == ["liver", "spleen"] and np.array_equal(found.masks, given.masks)
    assert [(organ.name, organ.slices) for organ in organs_of(drawing)] == [("liver", (1, 2)), ("spleen", (2,))]


@pytest.fixture
def result(scene: Any) -> Result:
    """A result as it was found; slice 1 and 2 have organs, slice 2 is sure of both."""
    support = drawn(volume())
    scan = add_scan(support.image, None, scene)
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    labels[support.masks[0]], labels[support.masks[1]] = 1, 2
    sure = np.array([[np.nan, 0.5, 0.9, np.nan], [np.nan, np.nan, 0.85, np.nan]])
    found = Segmentation(GEOMETRY, ORGANS, labels, np.array([0.7, 0.85]), sure)
    return Result("r", scan, found, drawing_node(support, scan.node), drawn=(0,))


def correct(result: Result, slice_number: int) -> None:
    """Take a voxel from the liver in the result's node."""
    support = support_from_nodes(result.scan.node, result.node)
    masks = support.masks.copy()
    masks[0, slice_number, 1, 1] = False
    result.node = drawing_node(Support.create(support.image, masks, support.organs, slices="all"), result.scan.node)


def test_nothing_is_corrected_at_first(result: Result) -> None:
    assert np.array_equal(result.current().labels, result.found.labels) and result.corrected_slices() == ()


def test_corrected_slices_and_sure_ones_teach_the_others(result: Result) -> None:
    correct(result, 1)
    assert result.corrected_slices() == (1,)
    assert result.settled_slices((1,)) == [0, 1, 2], "drawn, corrected, sure"
    now = result.current()
    assert not now.labels[1, 1, 1] and np.array_equal(now.confidence, result.found.confidence)


def test_an_organ_that_was_erased_wholly_is_left_out(result: Result) -> None:
    support = support_from_nodes(result.scan.node, result.node)
    only = Support.create(support.image, support.masks[1:], support.organs[1:], slices="all")
    result.node = drawing_node(only, result.scan.node)
    assert [organ.name for organ in result.current().organs] == ["spleen"] and result.corrected_slices() == (1, 2)


def test_files_are_written_and_read_back(result: Result, tmp_path: Path) -> None:
    for kind in ("seg.nrrd", "nii.gz"):
        path = write(result.found, kind, tmp_path, "Jane/Doe: 1", None)
        assert path.parent == tmp_path and path.name.endswith("." + kind)
        labels = read_labels(path)
        assert np.array_equal(labels.mask(labels.segments[1]), result.found.labels == 2)


def test_files_that_cannot_be_written_are_told(result: Result, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did not come as DICOM"):
        write(result.found, "dcm", tmp_path, "a", None)
    with pytest.raises(ConfigError, match="'exe'"):
        write(result.found, "exe", tmp_path, "a", None)
    assert labels_of(drawn(volume())).labels.max() == 2


def test_the_slice_with_most_is_looked_at_unless_the_shown_one_has_some() -> None:
    labels = np.zeros((6, 5, 4), np.uint8)
    assert slice_with_most(labels, 3) is None
    labels[4, :2], labels[2, 0, 0] = 2, 1
    assert [slice_with_most(labels, shown) for shown in (0, 2, 4, 7, None)] == [4, None, None, 4, 4]
