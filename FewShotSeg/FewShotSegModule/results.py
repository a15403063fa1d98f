"""Results as nodes: written on the main thread in small steps, and listed with their confidence, the least sure first."""

import math
from dataclasses import dataclass

import numpy as np
import slicer
from slicer.i18n import tr as _

from FewShotSegModule import corrections

QUERY_ROLE = "FewShotSeg.Query"
CONFIDENCE_TAG = "FewShotSeg.Confidence"  # the library's; the library itself is not imported to list results
PLACE_TAG = "FewShotSeg.LeastSure"
LOOK_BELOW, GLANCE_BELOW = 0.6, 0.7  # as in the library's report


def write(segmentation, query_node, drawn=None):
    """Add a result to the scene; a generator that yields between small steps, and returns the node (`yield from`).

    The query's earlier results are hidden, not removed: the user may have corrected them.

    Args:
        segmentation: `FewShotSegLib.segmentation.Segmentation`.
        query_node: the volume node.
        drawn: bool (organ, z), the slices that were drawn on this very scan; None when the drawing was another scan's.

    Raises:
        OutputError: see `FewShotSegLib.mrml.show_segmentation`.
    """
    from FewShotSegLib.mrml import show_segmentation

    earlier = [node for node in result_nodes(query_node.GetScene()) if query_of(node) is query_node]
    node = show_segmentation(segmentation, query_node)
    node.SetNodeReferenceID(QUERY_ROLE, query_node.GetID())
    yield
    for row, organ in enumerate(segmentation.organs):
        segment = node.GetSegmentation().GetNthSegment(row)
        mask = segmentation.mask(organ)
        corrections.remember(segment, mask, None if drawn is None else drawn[row])
        yield
        place = least_sure_place(mask, segmentation.slice_confidence[row], segmentation.geometry)
        segment.SetTag(PLACE_TAG, "" if place is None else "{:.2f} {:.2f} {:.2f}".format(*place))
        yield
    for other in earlier:
        if other.GetDisplayNode() is not None:
            other.GetDisplayNode().SetVisibility(False)
    return node


def least_sure_place(mask, slice_confidence, geometry):
    """World RAS mm of the middle of an organ on the slice where it is least sure; None for an organ that was not found.

    Args:
        mask: bool (z, y, x).
        slice_confidence: (z,), NaN where the organ is absent.
        geometry: where the voxels lie, LPS.
    """
    present = np.flatnonzero(np.isfinite(slice_confidence))
    present = [k for k in present if mask[k].any()]
    if not present:
        return None
    k = min(present, key=lambda number: slice_confidence[number])
    j, i = np.argwhere(mask[k]).mean(axis=0)
    x, y, z, _one = geometry.affine() @ (i, j, k, 1.0)
    return -x, -y, z


@dataclass(frozen=True)
class Row:
    """One organ of one result. `confidence` is 0..1, NaN for an organ that was not found; `place` world RAS mm or None."""

    node: object
    scan: str
    organ: str
    confidence: float
    place: "tuple | None"

    @property
    def hint(self):
        """What the confidence asks of the user."""
        if math.isnan(self.confidence):
            return _("not found")
        if self.confidence < LOOK_BELOW:
            return _("look at this one")
        return _("worth a glance") if self.confidence < GLANCE_BELOW else ""

    @property
    def is_low(self):
        """Whether the user should look at it first."""
        return not self.confidence >= LOOK_BELOW

    @property
    def percent(self):
        """The confidence for the list."""
        return "–" if math.isnan(self.confidence) else f"{100 * self.confidence:.0f} %"


def result_nodes(scene):
    """This module's results whose scan is still in the scene."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene)
    return [node for node in nodes if query_of(node) is not None]


def query_of(node):
    """The scan that a segmentation node is the result of; None when it is no result of this module."""
    return node.GetNodeReference(QUERY_ROLE)


def rows(scene):
    """Every organ of every result: what was not found first, then the least sure."""
    found = [row for node in result_nodes(scene) for row in _rows_of(node)]
    return sorted(found, key=lambda row: (-1.0 if math.isnan(row.confidence) else row.confidence, row.scan, row.organ))


def _rows_of(node):
    segmentation = node.GetSegmentation()
    for number in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(number)
        told = corrections.read_tag(segment, CONFIDENCE_TAG)
        if told:
            place = tuple(float(word) for word in corrections.read_tag(segment, PLACE_TAG).split())
            yield Row(node, node.GetName(), segment.GetName(), float(told), place or None)


def show_in_3d(scene, shown):
    """Make the surfaces of all visible results, or hide them."""
    for node in result_nodes(scene):
        display = node.GetDisplayNode()
        if display is None or not display.GetVisibility():
            continue
        if shown:
            node.CreateClosedSurfaceRepresentation()
        display.SetVisibility3D(shown)


def go_to(row):
    """Show a row's scan and result in the slice views, at the place where the result is least sure."""
    scan = query_of(row.node)
    if slicer.app.layoutManager() is not None:
        slicer.util.setSliceViewerLayers(background=scan)
    for node in result_nodes(scan.GetScene()):
        if query_of(node) is scan and node.GetDisplayNode() is not None:
            node.GetDisplayNode().SetVisibility(node is row.node)
    if row.place is not None:
        slicer.vtkMRMLSliceNode.JumpAllSlices(scan.GetScene(), *row.place)
