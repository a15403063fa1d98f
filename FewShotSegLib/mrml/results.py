"""A `Segmentation` as a new segmentation node."""

from __future__ import annotations

from typing import Any

import numpy as np

from FewShotSegLib.errors import OutputError
from FewShotSegLib.mrml.supports import LABELMAP
from FewShotSegLib.segfiles import TERMINOLOGY_TAG
from FewShotSegLib.segmentation import Segmentation

CONFIDENCE_TAG = "FewShotSeg.Confidence"
"""Tag of a result's segments: the confidence, "0.000".."1.000", or "nan" for an organ that was not found."""


def show_segmentation(segmentation: Segmentation, query_node: Any, scene: Any = None, name: str | None = None) -> Any:
    """Add a result to the scene: a new segmentation node on the voxels of the query and under its parent transform.

    Segments have the names, colours and terminology of the organs, and their confidence as the tag `CONFIDENCE_TAG`; an organ
    that was not found is an empty segment. No other node is changed.

    Args:
        segmentation: the result for this query.
        query_node: the volume node that was segmented.
        scene: where to add it; None: the scene of the query.
        name: of the new node, made unique; None: after the query.

    Returns:
        vtkMRMLSegmentationNode.

    Raises:
        OutputError: the query has left the scene, or has other voxels than when it was segmented.
    """
    scene = scene or query_node.GetScene()
    _check_fits(segmentation, query_node, scene)
    wanted = name or f"{query_node.GetName() or 'Scan'} segmented"
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GetUniqueNameByString(wanted))
    try:
        _fill(node, segmentation, query_node)
    except BaseException:
        scene.RemoveNode(node)
        raise
    return node


def _check_fits(segmentation: Segmentation, query_node: Any, scene: Any) -> None:
    image = query_node.GetImageData()
    if scene is None or not scene.IsNodePresent(query_node):
        raise OutputError(f"{query_node.GetName()!r} is no longer in the scene", "the segmented volume", "load it and run again")
    if image is None or image.GetDimensions()[::-1] != segmentation.geometry.shape:
        raise OutputError(
            f"{query_node.GetName()!r} has other voxels than when it was segmented", "the segmented volume", "run again"
        )


def _fill(node: Any, segmentation: Segmentation, query_node: Any) -> None:
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(query_node)
    node.SetAndObserveTransformNodeID(query_node.GetTransformNodeID())
    node.GetSegmentation().SetSourceRepresentationName(LABELMAP)
    labels = _labelmap(segmentation.labels, query_node)
    for organ, confidence in zip(segmentation.organs, segmentation.confidence, strict=True):
        tags = {TERMINOLOGY_TAG: organ.terminology, CONFIDENCE_TAG: f"{confidence:.3f}"}
        node.GetSegmentation().AddSegment(_segment(organ.name, organ.color, organ.label, labels, tags))


def _labelmap(labels: np.ndarray, query_node: Any) -> Any:
    """The labels (z, y, x) as vtkOrientedImageData on the voxels of a volume node; all segments share it, as in Slicer."""
    import slicer
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    matrix, image = vtkMatrix4x4(), slicer.vtkOrientedImageData()
    query_node.GetIJKToRASMatrix(matrix)
    image.SetExtent(query_node.GetImageData().GetExtent())
    image.SetImageToWorldMatrix(matrix)
    image.GetPointData().SetScalars(numpy_to_vtk(np.ascontiguousarray(labels).ravel(), deep=True))
    return image


def _segment(name: str, color: tuple[float, float, float], label: int, labels: Any, tags: dict[str, str]) -> Any:
    import slicer

    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetColor(color)
    segment.SetLabelValue(label)
    for tag, value in tags.items():
        segment.SetTag(tag, value)
    segment.AddRepresentation(LABELMAP, labels)
    return segment
