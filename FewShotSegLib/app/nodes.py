"""Scans and drawings of the library as new MRML nodes, for the page. Results become nodes in `FewShotSegLib.mrml`."""

from __future__ import annotations

from typing import Any

import numpy as np

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.mrml import show_segmentation
from FewShotSegLib.mrml.places import RAS_TO_LPS
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.support import Support
from FewShotSegLib.volume import MODALITY_KEY, Volume

VTK_TYPES = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64)


def node_from_volume(volume: Volume, scene: Any) -> Any:
    """Add a scan to the scene, a vtkMRMLScalarVolumeNode with the same voxels at the same place.

    Raises:
        VolumeError: voxels of a type that VTK does not have.
    """
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(volume.geometry.size)
    voxels = np.ascontiguousarray(_shown(volume.array))
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GetUniqueNameByString(volume.name or "Scan"))
    node.SetIJKToRASMatrix(_matrix(RAS_TO_LPS @ volume.geometry.affine()))
    node.SetAndObserveImageData(image)
    if volume.modality:
        node.SetAttribute(MODALITY_KEY, volume.modality)
    node.CreateDefaultDisplayNodes()
    return node


def drawing_node(support: Support, volume_node: Any) -> Any:
    """Add a drawing to the scene of its scan. Where organs overlap, the last one is kept."""
    labels = np.zeros(support.image.geometry.shape, np.uint16)
    for organ, mask in zip(support.organs, support.masks, strict=True):
        labels[mask] = organ.label
    unknown = np.full((len(support.organs), labels.shape[0]), np.nan)
    result = Segmentation(support.image.geometry, support.organs, labels, unknown[:, 0].copy(), unknown)
    return show_segmentation(result, volume_node, name="Drawing")


def labels_of(support: Support, like: Segmentation | None = None) -> Segmentation:
    """A drawing or a corrected result, as `Segmentation` for files; confidence is that of `like` where organs are the same."""
    labels = np.zeros(support.image.geometry.shape, np.uint8 if len(support.organs) < 256 else np.uint16)
    sure = np.full((len(support.organs), labels.shape[0] + 1), np.nan)
    known = {organ.name: number for number, organ in enumerate(like.organs)} if like else {}
    for number, (organ, mask) in enumerate(zip(support.organs, support.masks, strict=True)):
        labels[mask] = organ.label
        if like is not None and organ.name in known:
            sure[number] = [like.confidence[known[organ.name]], *like.slice_confidence[known[organ.name]]]
    return Segmentation(support.image.geometry, support.organs, labels, sure[:, 0].copy(), sure[:, 1:], name=support.image.name)


def _shown(array: np.ndarray) -> np.ndarray:
    if array.dtype in VTK_TYPES:
        return array
    if array.dtype in (np.int64, np.uint64, np.float16, np.bool_):
        return array.astype(np.float32)
    raise VolumeError(f"Voxels of type {array.dtype}", "whole or real numbers", "convert the scan")


def _matrix(values: np.ndarray) -> Any:
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix = vtkMatrix4x4()
    matrix.DeepCopy(values.ravel().tolist())
    return matrix
