"""A volume node and the segments drawn on it as a `Support`."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import SimpleITK as sitk

from FewShotSegLib.errors import SupportError
from FewShotSegLib.mrml.places import ijk_to_local, ijk_to_world, to_world, voxels_of
from FewShotSegLib.mrml.volumes import volume_from_node
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import TERMINOLOGY_TAG, distinct_names
from FewShotSegLib.support import Slices, Support

LABELMAP = "Binary labelmap"
SAME_VOXELS = 1e-3  # voxels; more than rounding, less than anybody sees

logger = logging.getLogger(__name__)


def support_from_nodes(
    volume_node: Any, segmentation_node: Any, segment_ids: Sequence[str] | None = None, slices: Slices | None = None
) -> Support:
    """A scan and the segments drawn on it, both where they lie in the world. The nodes are not changed.

    Segments may overlap, and may lie on another grid than the scan: each voxel of the scan takes the value of the segment's
    nearest voxel, and what lies outside the scan is cut off. Organs are labelled 1, 2, ... in the order of the segments.

    Args:
        volume_node: the scan, see `volume_from_node`.
        segmentation_node: vtkMRMLSegmentationNode.
        segment_ids: the segments to use; None: all that have a voxel in the scan.
        slices: see `Support.create`; None is "auto".

    Raises:
        VolumeError: see `volume_from_node`; a segmentation under a transform that is not linear.
        SupportError: no such segment, nothing drawn, nothing of a chosen segment in the scan, nothing on the chosen slices.
    """
    steps = support_steps(volume_node, segmentation_node, segment_ids, slices)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def support_steps(
    volume_node: Any, segmentation_node: Any, segment_ids: Sequence[str] | None = None, slices: Slices | None = None
) -> Generator[None, None, Support]:
    """As `support_from_nodes`, for a panel that must not freeze: yields between small steps, and returns the support."""
    image = volume_from_node(volume_node)
    if segmentation_node is None:
        raise SupportError("No segmentation is chosen", "a segmentation of the scan", "draw an organ in the Segment Editor")
    segmentation = segmentation_node.GetSegmentation()
    chosen = _chosen_ids(segmentation, segment_ids)
    local_to_ijk = np.linalg.inv(ijk_to_world(volume_node)) @ to_world(segmentation_node)
    masks = np.zeros((len(chosen), *image.geometry.shape), bool)
    drawn: list[bool] = []
    for name, mask in zip(chosen, masks, strict=True):
        yield
        labels = _labelmap(segmentation_node, name)
        yield
        drawn.append(labels is not None)
        if labels is not None:
            _put(voxels_of(labels), local_to_ijk @ ijk_to_local(labels), mask)
    yield
    inside = [bool(mask.any()) for mask in masks]
    _check_used(segmentation_node, chosen, inside, drawn, required=segment_ids is not None)
    organs = _organs([segmentation.GetSegment(name) for name in itertools.compress(chosen, inside)])
    return Support.create(image, masks if all(inside) else masks[inside], organs, slices="auto" if slices is None else slices)


def _chosen_ids(segmentation: Any, wanted: Sequence[str] | None) -> list[str]:
    present = list(segmentation.GetSegmentIDs())
    unknown = [name for name in wanted or [] if name not in present]
    if unknown or not present or (wanted is not None and not len(wanted)):
        found = f"No segment {', '.join(map(repr, unknown))}" if unknown else "No segment"
        raise SupportError(found, "at least one drawn segment", "draw an organ in the Segment Editor, and choose its segment")
    return present if wanted is None else list(dict.fromkeys(wanted))


def _labelmap(node: Any, segment_id: str) -> Any:
    """A copy of one segment's voxels, vtkOrientedImageData; None when it has none. A segment of surfaces is converted aside."""
    import slicer

    segmentation = node.GetSegmentation()
    if not segmentation.ContainsRepresentation(LABELMAP):
        node = _converted(segmentation, segment_id)
    labels = slicer.vtkOrientedImageData()
    if node is None or not node.GetBinaryLabelmapRepresentation(segment_id, labels):
        return None
    return None if labels.IsEmpty() else labels


def _converted(segmentation: Any, segment_id: str) -> Any:
    """A segmentation node outside any scene with this segment as voxels; None when there is nothing to convert."""
    import slicer

    aside = slicer.vtkMRMLSegmentationNode()
    copy = aside.GetSegmentation()
    copy.SetSourceRepresentationName(segmentation.GetSourceRepresentationName())
    copy.CopyConversionParameters(segmentation)
    copied = copy.CopySegmentFromSegmentation(segmentation, segment_id)
    return aside if copied and copy.CreateRepresentation(LABELMAP) else None


def _put(labels: np.ndarray, to_grid: np.ndarray, grid: np.ndarray) -> None:
    """Write a segment's voxels (z, y, x) into an empty mask on a grid of another shape, given the (4, 4) matrix from the indices
    (i, j, k, 1) of the one to those of the other.
    """
    shift = np.rint(to_grid[:3, 3]).astype(int)
    whole = np.eye(4)
    whole[:3, 3] = shift
    reach = np.array([*labels.shape[::-1], 1.0])
    if np.abs((to_grid - whole) * reach).max() < SAME_VOXELS:
        _paste(labels, tuple(shift[::-1].tolist()), grid)
        return
    back = np.linalg.inv(to_grid)
    move = sitk.AffineTransform(back[:3, :3].ravel().tolist(), back[:3, 3].tolist())
    image = sitk.GetImageFromArray((labels > 0).astype(np.uint8))
    moved = sitk.Resample(image, grid.shape[::-1], move, sitk.sitkNearestNeighbor)
    grid[:] = sitk.GetArrayViewFromImage(moved)


def _paste(labels: np.ndarray, start: tuple[int, ...], grid: np.ndarray) -> None:
    """Write a segment's voxels into a mask from index `start` (z, y, x) on; what sticks out is cut off."""
    there = tuple(slice(max(first, 0), max(first + size, 0)) for first, size in zip(start, labels.shape, strict=True))
    here = tuple(slice(max(-first, 0), max(total - first, 0)) for first, total in zip(start, grid.shape, strict=True))
    np.greater(labels[here], 0, out=grid[there])


def _check_used(node: Any, chosen: list[str], inside: list[bool], drawn: list[bool], *, required: bool) -> None:
    """Refuse when nothing is left, or not all of the segments that were asked for; tell of the others."""
    missing = [name for name, is_inside in zip(chosen, inside, strict=True) if not is_inside]
    names = ", ".join(repr(node.GetSegmentation().GetSegment(name).GetName()) for name in missing)
    if not missing:
        return
    if any(inside) and not required:
        logger.info("Segments without a voxel in the scan are left out: %s", names)
        return
    if any(is_drawn and not is_inside for is_drawn, is_inside in zip(drawn, inside, strict=True)):
        raise SupportError(
            f"Nothing of {names} lies in the volume",
            "segments drawn on this volume",
            "check that volume and segmentation belong together and lie under the same transform",
        )
    raise SupportError(f"{names} is empty", "a drawn organ", "draw it in the Segment Editor, or leave this segment out")


def _organs(segments: Sequence[Any]) -> list[Organ]:
    names = distinct_names([segment.GetName() or f"Segment {number}" for number, segment in enumerate(segments, 1)])
    return [
        Organ(name, number, tuple(segment.GetColor()), _tag(segment, TERMINOLOGY_TAG))
        for number, (name, segment) in enumerate(zip(names, segments, strict=True), 1)
    ]


def _tag(segment: Any, name: str) -> str:
    from vtkmodules.vtkCommonCore import mutable

    value = mutable("")
    return str(value) if segment.GetTag(name, value) else ""
