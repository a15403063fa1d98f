"""A volume node as a `Volume`."""

from __future__ import annotations

from typing import Any

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.mrml.places import geometry_of, ijk_to_world, voxels_of
from FewShotSegLib.volume import MODALITIES, MODALITY_KEY, Volume

HOUNSFIELD = "[hnsf'U]"  # UCUM, as Slicer's DICOM reader sets it


def volume_from_node(node: Any) -> Volume:
    """A copy of a scan in the scene, where it lies in the world: under linear parent transforms, as if these were hardened.

    Args:
        node: vtkMRMLScalarVolumeNode.

    Raises:
        VolumeError: no node, a node of another kind, empty, several values per voxel, under a transform that is not linear, or
            with axes that are not perpendicular.
    """
    _check_is_scan(node)
    array = voxels_of(node.GetImageData()).copy()
    try:
        geometry = geometry_of(array.shape[::-1], ijk_to_world(node))
    except VolumeError as error:
        raise VolumeError(f"{node.GetName()!r}: {error.found}", error.expected, error.action) from error
    return Volume(array, geometry, node.GetName() or "", _modality(node))


def _check_is_scan(node: Any) -> None:
    if node is None:
        raise VolumeError("No volume is chosen", "a scan", "load one, and choose it")
    if not node.IsA("vtkMRMLScalarVolumeNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise VolumeError(
            f"{node.GetName()!r} is a {node.GetNodeTagName()}", "a scalar volume, as a scan is loaded", "choose the scan itself"
        )
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or min(image.GetDimensions()) < 1:
        raise VolumeError(f"{node.GetName()!r} has no voxels", "a scan", "load the volume again, or choose another")
    if image.GetNumberOfScalarComponents() != 1:
        raise VolumeError(
            f"{node.GetName()!r} has {image.GetNumberOfScalarComponents()} values per voxel",
            "one value per voxel",
            "take one component or frame of it (module 'Vector to Scalar Volume' or 'Sequences')",
        )


def _modality(node: Any) -> str:
    """MR or CT, where Slicer's DICOM reader, the file or the unit of the voxels tells; else empty."""
    units = node.GetVoxelValueUnits()
    if units is not None and units.GetCodeValue() == HOUNSFIELD:
        return "CT"
    told = (_dicom_modality(node), node.GetAttribute(f"DICOM.{MODALITY_KEY}"), node.GetAttribute(MODALITY_KEY))
    return next((name for name in told if name in MODALITIES), "")


def _dicom_modality(node: Any) -> str | None:
    scene = node.GetScene()
    hierarchy = scene and scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    return hierarchy.GetItemAttribute(hierarchy.GetItemByDataNode(node), f"DICOM.{MODALITY_KEY}") if hierarchy else None
