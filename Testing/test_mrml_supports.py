"""Segments drawn in a scene as `Support`: which, where, and what is refused; the drawing itself stays as it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from mrml_nodes import add_segmentation, add_transform, add_volume, new_scene

from FewShotSegLib.errors import SupportError, VolumeError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.mrml import support_from_nodes
from FewShotSegLib.segfiles import TERMINOLOGY_TAG

TURNED = tuple(sitk.VersorTransform((0.5, -0.3, 0.8), 0.7).GetMatrix())
GRID = Geometry((12, 10, 6), (1.0, 1.5, 4.0), (-31.5, 12.25, 207.75), TURNED)


@pytest.fixture
def scene() -> Any:
    return new_scene()


def box(*slices: slice, shape: tuple[int, int, int] = GRID.shape) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slices] = True
    return mask


LIVER = box(slice(1, 5), slice(2, 8), slice(1, 7))
VEIN = box(slice(2, 4), slice(4, 9), slice(3, 5))
ONE = box(slice(3, 4), slice(1, 4), slice(8, 12))


def drawn(scene: Any, **masks: np.ndarray) -> tuple[Any, Any]:
    """A scan and its drawing, on the same grid."""
    volume = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID)
    return volume, add_segmentation(scene, GRID, masks, volume)


def test_overlapping_segments_stay_whole(scene: Any) -> None:
    support = support_from_nodes(*drawn(scene, liver=LIVER, vein=VEIN))
    assert (LIVER & VEIN).any()
    assert np.array_equal(support.masks, [LIVER, VEIN])
    assert [(organ.name, organ.label) for organ in support.organs] == [("liver", 1), ("vein", 2)]


def test_segments_that_share_a_layer_are_told_apart(scene: Any) -> None:
    volume, drawing = drawn(scene, liver=LIVER & ~VEIN, vein=VEIN, one=ONE)
    drawing.GetSegmentation().CollapseBinaryLabelmaps(True)
    assert drawing.GetSegmentation().GetNumberOfLayers() == 1
    assert np.array_equal(support_from_nodes(volume, drawing).masks, [LIVER & ~VEIN, VEIN, ONE])


def test_segments_are_chosen_by_id_in_the_order_given(scene: Any) -> None:
    volume, drawing = drawn(scene, liver=LIVER, vein=VEIN, one=ONE)
    support = support_from_nodes(volume, drawing, ["one", "liver"])
    assert [organ.name for organ in support.organs] == ["one", "liver"]
    assert np.array_equal(support.masks, [ONE, LIVER])


def test_one_slice_is_one_drawn_slice(scene: Any) -> None:
    volume, drawing = drawn(scene, one=ONE, liver=LIVER)
    support = support_from_nodes(volume, drawing)
    assert support.drawn[0].tolist() == [k == 3 for k in range(6)] and support.drawn[1].all()
    few = support_from_nodes(volume, drawing, ["liver"], slices=[2])
    assert np.flatnonzero(few.drawn[0]).tolist() == [2] and np.array_equal(few.masks[0, 2], LIVER[2])
    assert support_from_nodes(volume, drawing, ["one"], slices="all").drawn.all()


def test_names_colors_and_terminology_are_kept(scene: Any) -> None:
    volume, drawing = drawn(scene, a=LIVER, b=VEIN, c=ONE)
    terminology = "Context~SCT^123037004^Structure~SCT^10200004^Liver~^^~Anatomic~^^~^^"
    for key, name in (("a", "Große Vene"), ("b", "Große Vene"), ("c", "")):
        segment = drawing.GetSegmentation().GetSegment(key)
        segment.SetName(name)
        segment.SetColor(0.25, 0.5, 1.0)
        segment.SetTag(TERMINOLOGY_TAG, terminology)
    organs = support_from_nodes(volume, drawing).organs
    assert [organ.name for organ in organs] == ["Große Vene", "Große Vene (2)", "Segment 3"]
    assert {organ.color for organ in organs} == {(0.25, 0.5, 1.0)}
    assert {organ.terminology for organ in organs} == {terminology}


# ------------------------------------------------------------------------------------------------ other grids
def test_segments_on_a_finer_grid_are_resampled(scene: Any) -> None:
    volume = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID)
    fine = Geometry((36, 30, 18), (1 / 3, 0.5, 4 / 3), corner_of(GRID, 1 / 3), TURNED)
    mask = LIVER.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    support = support_from_nodes(volume, add_segmentation(scene, fine, {"liver": mask}))
    assert np.array_equal(support.masks[0], LIVER)


def corner_of(grid: Geometry, factor: float) -> tuple[float, float, float]:
    """Origin of a grid whose voxels are smaller by the factor and whose outer edges are the same."""
    x, y, z = (grid.affine() @ np.array([*[(factor - 1) / 2] * 3, 1.0]))[:3]
    return x, y, z


def test_segments_on_a_turned_grid_are_resampled(scene: Any) -> None:
    volume = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID)
    straight = Geometry((60, 60, 60), (1, 1, 1), tuple(GRID.corners().min(axis=0) - 4))
    moved = sitk.Resample(
        GRID.to_sitk(LIVER), straight.size, sitk.Transform(), sitk.sitkNearestNeighbor, straight.origin, straight.spacing
    )
    support = support_from_nodes(volume, add_segmentation(scene, straight, {"liver": sitk.GetArrayFromImage(moved)}))
    there, back = support.masks[0], LIVER
    assert 2 * (there & back).sum() / (there.sum() + back.sum()) > 0.9


def test_what_lies_outside_the_volume_is_cut_off(scene: Any) -> None:
    volume = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID)
    shifted = GRID.affine() @ np.array([-3, 2, -2, 1.0])
    larger = Geometry((20, 7, 9), GRID.spacing, tuple(shifted[:3]), TURNED)
    support = support_from_nodes(volume, add_segmentation(scene, larger, {"all": np.ones(larger.shape, bool)}))
    expected = box(slice(None), slice(2, 9), slice(None))
    assert np.array_equal(support.masks[0], expected)


def test_segments_outside_the_volume_are_left_out_or_refused(scene: Any) -> None:
    volume, drawing = drawn(scene, liver=LIVER)
    far = Geometry(GRID.size, GRID.spacing, (900.0, 0.0, 0.0), TURNED)
    other = add_segmentation(scene, far, {"far": VEIN})
    drawing.GetSegmentation().AddSegment(other.GetSegmentation().GetSegment("far"), "far")
    assert [organ.name for organ in support_from_nodes(volume, drawing).organs] == ["liver"]
    with pytest.raises(SupportError, match="'far' lies in the volume"):
        support_from_nodes(volume, drawing, ["liver", "far"])
    with pytest.raises(SupportError, match="'far' lies in the volume"):
        support_from_nodes(volume, other)


# ------------------------------------------------------------------------------------------------ transforms
def test_volume_and_drawing_may_lie_under_one_transform(scene: Any) -> None:
    volume, drawing = drawn(scene, liver=LIVER)
    matrix = np.array([[0, -1, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    add_transform(scene, matrix, volume, drawing)
    assert np.array_equal(support_from_nodes(volume, drawing).masks[0], LIVER)


def test_a_moved_drawing_lands_where_it_is_seen(scene: Any) -> None:
    volume, drawing = drawn(scene, liver=LIVER)
    step = GRID.axes[:, 2] * GRID.spacing[2] * [-1, -1, 1]  # one slice up, RAS
    matrix = np.eye(4)
    matrix[:3, 3] = step
    add_transform(scene, matrix, drawing)
    assert np.array_equal(support_from_nodes(volume, drawing).masks[0], np.roll(LIVER, 1, 0))
    add_transform(scene, matrix, volume)
    assert np.array_equal(support_from_nodes(volume, drawing).masks[0], LIVER)


def test_a_drawing_under_a_warp_is_refused(scene: Any) -> None:
    volume, drawing = drawn(scene, liver=LIVER)
    drawing.SetAndObserveTransformNodeID(scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp").GetID())
    with pytest.raises(VolumeError, match="'warp', which is not linear"):
        support_from_nodes(volume, drawing)


# ------------------------------------------------------------------------------------------------ refused, and left alone
def test_nothing_drawn_is_refused(scene: Any) -> None:
    volume, drawing = drawn(scene, liver=np.zeros(GRID.shape, bool))
    drawing.GetSegmentation().AddEmptySegment("never", "never")
    for wanted in (None, ["liver"], ["never"]):
        with pytest.raises(SupportError, match="draw"):
            support_from_nodes(volume, drawing, wanted)
    with pytest.raises(SupportError, match="No segment 'lung'"):
        support_from_nodes(volume, drawing, ["liver", "lung"])
    with pytest.raises(SupportError, match="No segment"):
        support_from_nodes(volume, drawing, [])
    with pytest.raises(SupportError, match="No segmentation"):
        support_from_nodes(volume, None)
    with pytest.raises(SupportError, match="No segment"):
        support_from_nodes(volume, scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "new"))


def test_empty_segments_are_left_out(scene: Any) -> None:
    volume, drawing = drawn(scene, none=np.zeros(GRID.shape, bool), liver=LIVER)
    drawing.GetSegmentation().AddEmptySegment("never", "never")
    assert [(organ.name, organ.label) for organ in support_from_nodes(volume, drawing).organs] == [("liver", 1)]


@pytest.fixture
def conversions() -> Any:
    """Between voxels and surfaces; Slicer registers them when it starts."""
    import slicer

    factory = slicer.vtkSegmentationConverterFactory.GetInstance()
    rules = [slicer.vtkBinaryLabelmapToClosedSurfaceConversionRule(), slicer.vtkClosedSurfaceToBinaryLabelmapConversionRule()]
    for rule in rules:
        factory.RegisterConverterRule(rule)
    yield
    for rule in rules:
        factory.UnregisterConverterRule(rule)


def test_a_drawing_of_surfaces_is_converted_aside(scene: Any, conversions: None) -> None:
    volume, drawing = drawn(scene, liver=LIVER)
    segmentation = drawing.GetSegmentation()
    assert segmentation.CreateRepresentation("Closed surface")
    segmentation.SetSourceRepresentationName("Closed surface")
    segmentation.RemoveRepresentation("Binary labelmap")
    mask = support_from_nodes(volume, drawing).masks[0]
    assert not (mask & ~LIVER).any() and mask.sum() > 0.6 * LIVER.sum(), "Slicer smooths the surface, which takes off the corners"
    assert not segmentation.ContainsRepresentation("Binary labelmap"), "the drawing stays as it was"


def test_the_nodes_are_not_changed(scene: Any) -> None:
    volume, drawing = drawn(scene, liver=LIVER, vein=VEIN)
    before = [node.GetMTime() for node in (volume, drawing, drawing.GetSegmentation())], scene.GetNumberOfNodes()
    support = support_from_nodes(volume, drawing)
    support.masks[:] = False
    assert ([node.GetMTime() for node in (volume, drawing, drawing.GetSegmentation())], scene.GetNumberOfNodes()) == before
    assert np.array_equal(support_from_nodes(volume, drawing).masks, [LIVER, VEIN])
