"""Volume nodes as `Volume`: voxels, place, modality, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from mrml_nodes import RAS_TO_LPS, add_transform, add_volume, image_of, new_scene, vtk_matrix

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.mrml import volume_from_node

TURNED = tuple(sitk.VersorTransform((0.5, -0.3, 0.8), 0.7).GetMatrix())
OBLIQUE = Geometry((7, 6, 5), (0.9, 1.3, 4.1), (-31.5, 12.25, 207.75), TURNED)
LEFT_HANDED = Geometry((7, 6, 5), (0.9, 1.3, 4.1), (1, 2, 3), (1, 0, 0, 0, 1, 0, 0, 0, -1))
VOXELS = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)


@pytest.fixture
def scene() -> Any:
    return new_scene()


def rigid() -> np.ndarray:
    """A turn and a move, (4, 4) RAS."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(sitk.VersorTransform((0.1, 0.9, -0.2), 1.1).GetMatrix()).reshape(3, 3)
    matrix[:3, 3] = 10, -20, 35
    return matrix


@pytest.mark.parametrize("geometry", [Geometry((7, 6, 5), (1, 2, 3)), OBLIQUE, LEFT_HANDED])
def test_voxels_and_place_are_those_of_the_node(scene: Any, geometry: Geometry) -> None:
    volume = volume_from_node(add_volume(scene, VOXELS, geometry, "Abdomen"))
    assert np.array_equal(volume.array, VOXELS) and volume.array.dtype == np.int16
    assert volume.geometry.same_as(geometry, 1e-6) and volume.name == "Abdomen" and volume.modality == ""


def test_voxels_are_a_copy(scene: Any) -> None:
    node = add_volume(scene, VOXELS, OBLIQUE)
    volume = volume_from_node(node)
    volume.array[:] = 0
    assert np.array_equal(volume_from_node(node).array, VOXELS)


def test_parent_transforms_move_the_volume_in_the_world(scene: Any) -> None:
    node = add_volume(scene, VOXELS, OBLIQUE)
    scaled = np.diag([2.0, 2.0, 2.0, 1.0])
    add_transform(scene, scaled, add_transform(scene, rigid(), node))
    volume = volume_from_node(node)
    expected = RAS_TO_LPS @ scaled @ rigid() @ RAS_TO_LPS @ OBLIQUE.affine()
    assert np.allclose(volume.geometry.affine(), expected, atol=1e-9)
    assert np.allclose(volume.spacing, [1.8, 2.6, 8.2])
    assert np.array_equal(volume.array, VOXELS)


def test_a_hardened_transform_is_the_same_as_an_observed_one(scene: Any) -> None:
    node = add_volume(scene, VOXELS, OBLIQUE)
    add_transform(scene, rigid(), node)
    observed = volume_from_node(node)
    assert node.HardenTransform()
    assert volume_from_node(node).geometry.same_as(observed.geometry, 1e-6)


@pytest.mark.parametrize(("given", "expected"), [("CT", "CT"), ("MR", "MR"), ("PT", "")])
def test_modality_comes_from_the_file_or_the_series(scene: Any, given: str, expected: str) -> None:
    node = add_volume(scene, VOXELS, OBLIQUE)
    node.SetAttribute("Modality", given)
    assert volume_from_node(node).modality == expected


def test_modality_comes_from_the_subject_hierarchy(scene: Any) -> None:
    import slicer

    node = add_volume(scene, VOXELS, OBLIQUE)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    assert volume_from_node(node).modality == "MR"


def test_hounsfield_units_mean_ct(scene: Any) -> None:
    import slicer

    node = add_volume(scene, VOXELS, OBLIQUE)
    units = slicer.vtkCodedEntry()
    units.SetValueSchemeMeaning("[hnsf'U]", "UCUM", "Hounsfield unit")
    node.SetVoxelValueUnits(units)
    assert volume_from_node(node).modality == "CT"


# ------------------------------------------------------------------------------------------------ refused
def refusal(node: Any) -> VolumeError:
    with pytest.raises(VolumeError) as told:
        volume_from_node(node)
    assert told.value.action, "it says what to do"
    return told.value


def test_no_node_and_empty_nodes_are_refused(scene: Any) -> None:
    assert "No volume" in str(refusal(None))
    assert "no voxels" in str(refusal(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")))


def test_label_maps_models_and_several_values_per_voxel_are_refused(scene: Any) -> None:
    assert "LabelMapVolume" in str(refusal(scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")))
    assert "Model" in str(refusal(scene.AddNewNodeByClass("vtkMRMLModelNode", "skin")))
    color = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    from vtkmodules.vtkCommonCore import VTK_UNSIGNED_CHAR

    image = image_of(np.zeros((2, 3, 4), np.uint8))
    image.AllocateScalars(VTK_UNSIGNED_CHAR, 3)
    color.SetAndObserveImageData(image)
    assert "3 values per voxel" in str(refusal(color))


def test_transforms_that_are_not_linear_are_refused(scene: Any) -> None:
    node = add_volume(scene, VOXELS, OBLIQUE, "Abdomen")
    warp = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    node.SetAndObserveTransformNodeID(warp.GetID())
    error = refusal(node)
    assert "'warp'" in error.found and "'Abdomen'" in error.found and "harden" in error.action


def test_sheared_volumes_are_refused(scene: Any) -> None:
    node = add_volume(scene, VOXELS, OBLIQUE, "Tilted")
    shear = np.eye(4)
    shear[0, 1] = 0.4
    transform = add_transform(scene, shear, node)
    error = refusal(node)
    assert "'Tilted'" in error.found and "perpendicular" in error.found and "Resample" in error.action
    transform.SetMatrixTransformToParent(vtk_matrix(np.eye(4)))
    assert volume_from_node(node).geometry.same_as(OBLIQUE, 1e-6)


def test_a_flat_matrix_is_refused(scene: Any) -> None:
    node = add_volume(scene, VOXELS, OBLIQUE)
    add_transform(scene, np.diag([1.0, 1.0, 0.0, 1.0]), node)
    refusal(node)
