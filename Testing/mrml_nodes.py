"""Nodes of a MRML scene for tests: scans, drawings and transforms made from arrays, and voxels read back from segments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from FewShotSegLib.geometry import Geometry

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def new_scene() -> Any:
    """An empty scene of the real MRML libraries; skips where the wheel slicer-core is not installed."""
    slicer = pytest.importorskip("slicer", reason="the wheel slicer-core is not installed")
    if not hasattr(slicer, "vtkMRMLSegmentationNode"):
        pytest.skip("the module slicer is not that of the wheel slicer-core")
    return slicer.vtkMRMLScene()


def vtk_matrix(array: np.ndarray) -> Any:
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, float).ravel().tolist())
    return matrix


def add_volume(scene: Any, array: np.ndarray, geometry: Geometry, name: str = "scan") -> Any:
    """A scan node with the voxels (z, y, x)."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetAndObserveImageData(image_of(array))
    node.SetIJKToRASMatrix(vtk_matrix(RAS_TO_LPS @ geometry.affine()))
    return node


def add_transform(scene: Any, matrix: np.ndarray, *children: Any) -> Any:
    """A linear transform node (RAS) above the children."""
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(vtk_matrix(matrix))
    for child in children:
        child.SetAndObserveTransformNodeID(node.GetID())
    return node


def add_segmentation(scene: Any, geometry: Geometry, masks: Mapping[str, np.ndarray], volume: Any = None) -> Any:
    """A drawing: one segment per name, with its ID the same, from masks (z, y, x) on the grid. Overlaps stay overlaps."""
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawing")
    node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
    if volume is not None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, mask in masks.items():
        labels = slicer.vtkOrientedImageData()
        labels.DeepCopy(image_of(mask.astype(np.uint8)))
        labels.SetImageToWorldMatrix(vtk_matrix(RAS_TO_LPS @ geometry.affine()))
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.AddRepresentation("Binary labelmap", labels)
        node.GetSegmentation().AddSegment(segment, name)
    return node


def image_of(array: np.ndarray) -> Any:
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(array.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(array).ravel(), deep=True))
    return image


def world_of(node: Any) -> np.ndarray:
    """(4, 4) matrix of a node's parent transforms, to world RAS."""
    matrix = vtk_matrix(np.eye(4))
    if node.GetParentTransformNode():
        assert node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    return array_of(matrix)


def array_of(matrix: Any) -> np.ndarray:
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def mask_in(node: Any, segment_id: str, geometry: Geometry) -> np.ndarray:
    """A segment's voxels on a grid in the world, bool (z, y, x), each found through its position in world space."""
    import slicer
    from vtkmodules.util.numpy_support import vtk_to_numpy

    labels = slicer.vtkOrientedImageData()
    mask = np.zeros(geometry.shape, bool)
    assert node.GetBinaryLabelmapRepresentation(segment_id, labels)
    if labels.IsEmpty():
        return mask
    matrix = vtk_matrix(np.eye(4))
    labels.GetImageToWorldMatrix(matrix)
    voxels = vtk_to_numpy(labels.GetPointData().GetScalars()).reshape(labels.GetDimensions()[::-1])
    kji = np.argwhere(voxels)
    ijk = np.column_stack([kji[:, ::-1] + np.array(labels.GetExtent()[::2]), np.ones(len(kji))])
    found = ijk @ (np.linalg.inv(geometry.affine()) @ RAS_TO_LPS @ world_of(node) @ array_of(matrix)).T
    nearest = np.rint(found[:, :3]).astype(int)
    assert np.abs(found[:, :3] - nearest).max(initial=0) < 1e-3
    mask[tuple(nearest[:, ::-1].T)] = True
    return mask
