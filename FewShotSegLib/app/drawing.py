"""The drawing of organs on a scan: trame-slicer's segment editor, with the few tools that the page offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from trame_slicer.core import SlicerApp
from trame_slicer.segmentation import (
    BrushDiameterMode,
    ModificationMode,
    SegmentationEffectErase,
    SegmentationEffectNoTool,
    SegmentationEffectPaint,
    SegmentationEffectThreshold,
)
from trame_slicer.utils import vtk_image_to_np
from undo_stack import Signal, UndoStack

from FewShotSegLib.mrml.places import voxels_of
from FewShotSegLib.organs import default_color, default_terminology
from FewShotSegLib.segfiles import TERMINOLOGY_TAG, distinct_names


class FlatPaint(SegmentationEffectPaint):
    """A brush for slices alone: with Slicer's own, a drag that should turn the 3D view would paint."""

    def _create_pipeline(self, view_node: Any, parameter: Any) -> Any:
        return super()._create_pipeline(view_node, parameter) if view_node.IsA("vtkMRMLSliceNode") else None


class FlatErase(SegmentationEffectErase):
    """See `FlatPaint`."""

    def _create_pipeline(self, view_node: Any, parameter: Any) -> Any:
        return super()._create_pipeline(view_node, parameter) if view_node.IsA("vtkMRMLSliceNode") else None


BRUSHES = (FlatPaint, FlatErase)
TOOLS = {
    "look": SegmentationEffectNoTool,
    "paint": FlatPaint,
    "erase": FlatErase,
    "threshold": SegmentationEffectThreshold,
}
UNDO_LIMIT = 50
SMALLEST_BRUSH_MM, LARGEST_BRUSH_MM = 2.0, 80.0


@dataclass(frozen=True)
class DrawnOrgan:
    """A segment, for the page's list; `color` is "#rrggbb", `slices` are those where it has a voxel (first = 0)."""

    id: str
    name: str
    color: str
    slices: tuple[int, ...]


class Drawing:
    """What the user draws on one scan at a time. Every change can be undone until another segmentation is opened."""

    changed = Signal()

    def __init__(self, slicer: SlicerApp) -> None:
        self.editor = slicer.segmentation_editor
        self.undo_stack = UndoStack(undo_limit=UNDO_LIMIT)
        self.editor.set_undo_stack(self.undo_stack)
        self.editor.segmentation_modified.connect(self.changed)
        for kind in BRUSHES:
            self.editor.register_effect_type(kind)
        self.node: Any = None
        self.volume: Any = None
        self.brush_mm = 16.0

    def open(self, segmentation: Any, volume: Any) -> None:
        """Edit this segmentation of this scan."""
        self.node, self.volume = segmentation, volume
        self.editor.set_active_segmentation(segmentation, volume)
        self.undo_stack.clear()
        self.changed()

    def new(self, volume: Any, name: str) -> Any:
        """An empty segmentation of this scan, opened."""
        node = self.editor.create_empty_segmentation_node()
        node.SetName(name)
        self.open(node, volume)
        return node

    def add(self, name: str) -> str:
        """An empty organ, chosen; returns its id. A name that is taken gets a number."""
        names = distinct_names([*self.editor.get_segment_names(), name.strip() or "organ"])
        label = len(names)
        segment_id = self.editor.add_empty_segment(segment_name=names[-1], segment_color=list(default_color(names[-1], label)))
        self.editor.get_segment(segment_id).SetTag(TERMINOLOGY_TAG, default_terminology(names[-1]))
        return segment_id

    def rename(self, segment_id: str, name: str) -> None:
        """Give an organ another name, with its colour and terminology where the name is known."""
        segment = self.editor.get_segment(segment_id)
        if segment is None or not name.strip() or segment.GetName() == name.strip():
            return
        others = [
            other
            for key, other in zip(self.editor.get_segment_ids(), self.editor.get_segment_names(), strict=True)
            if key != segment_id
        ]
        segment.SetName(distinct_names([*others, name.strip()])[-1])
        segment.SetTag(TERMINOLOGY_TAG, default_terminology(segment.GetName()))
        segment.SetColor(default_color(segment.GetName(), len(others) + 1))

    def remove(self, segment_id: str) -> None:
        """Remove an organ."""
        self.editor.remove_segment(segment_id)

    def choose(self, segment_id: str) -> None:
        """Draw this organ from now on."""
        self.editor.set_active_segment_id(segment_id)

    @property
    def chosen(self) -> str:
        """Id of the organ that is drawn; "" when there is none."""
        return self.editor.active_segment_id

    def use(self, tool: str) -> None:
        """Take a tool, a key of `TOOLS`."""
        self.editor.set_active_effect_type(TOOLS[tool])
        self.set_brush(self.brush_mm)

    def set_brush(self, millimetres: float) -> None:
        """Diameter of the flat brush, which paints one slice."""
        self.brush_mm = min(max(float(millimetres), SMALLEST_BRUSH_MM), LARGEST_BRUSH_MM)
        for kind in BRUSHES:
            effect = self.editor.get_effect(kind)
            effect.set_use_sphere_brush(False)
            effect.set_brush_diameter(self.brush_mm, BrushDiameterMode.Absolute)

    def set_range(self, low: float, high: float) -> None:
        """Grey values that the threshold shows and that painting may be limited to."""
        self.editor.get_effect(SegmentationEffectThreshold).set_threshold_min_max_values((float(low), float(high)))
        self.editor.editor_node.SetSourceVolumeIntensityMaskRange(float(low), float(high))

    def limit_to_range(self, limited: bool) -> None:
        """Paint only where the grey value lies in the range."""
        self.editor.editor_node.SetSourceVolumeIntensityMask(limited)

    def fill_range(self, slice_number: int, low: float, high: float) -> None:
        """Add all voxels of one slice whose grey value lies in the range to the chosen organ."""
        modifier = self.editor.active_segment_modifier
        if modifier is None or not self.chosen:
            return
        labels = modifier.create_modifier_labelmap()
        voxels = vtk_image_to_np(labels)
        voxels[:] = 0
        plane = voxels_of(self.volume.GetImageData())[slice_number]
        voxels[slice_number] = (plane >= low) & (plane <= high)
        labels.Modified()
        modifier.apply_labelmap(labels, modification_mode=ModificationMode.Add)

    def undo(self) -> None:
        """Take the last change back."""
        self.undo_stack.undo()

    def redo(self) -> None:
        """Make the change that was taken back again."""
        self.undo_stack.redo()

    def organs(self) -> list[DrawnOrgan]:
        """The organs and where they are drawn."""
        return organs_of(self.node) if self.node is not None else []


def organs_of(node: Any) -> list[DrawnOrgan]:
    """The segments of a segmentation on its scan's slices (its reference grid)."""
    segmentation = node.GetSegmentation()
    found = []
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        color = "#" + "".join(f"{round(255 * value):02x}" for value in segment.GetColor())
        found.append(DrawnOrgan(segment_id, segment.GetName(), color, slices_of(segment)))
    return found


def slices_of(segment: Any) -> tuple[int, ...]:
    """Slices on which a segment has a voxel, first = 0, read from its own voxels without copying them."""
    image = segment.GetRepresentation("Binary labelmap")
    if image is None or image.GetPointData().GetScalars() is None or image.IsEmpty():
        return ()
    filled = (voxels_of(image) == segment.GetLabelValue()).any((1, 2))
    return tuple(int(k) for k in np.flatnonzero(filled) + image.GetExtent()[4])
