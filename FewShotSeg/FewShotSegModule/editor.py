"""Slicer's Segment Editor inside the panel; made when it is first wanted, so that opening the module stays fast."""

import slicer
from slicer.i18n import tr as _

TAG = "FewShotSeg"
EFFECTS = ["Paint", "Draw", "Erase", "Level tracing", "Scissors", "Islands", "Smoothing"]
UNDO_STEPS = 10


class DrawingEditor:
    """The editor with the few tools that drawing an organ takes. It follows the scan and the drawing of the panel."""

    def __init__(self, layout):
        self._layout, self._widget = layout, None

    def edit(self, segmentation, volume):
        """Let the user draw in this segmentation, on this scan."""
        if self._widget is None:
            self._make()
        self._widget.setMRMLSegmentEditorNode(self._node())
        self._widget.setSegmentationNode(segmentation)
        self._widget.setSourceVolumeNode(volume)
        self._widget.installKeyboardShortcuts()
        self._widget.updateWidgetFromMRML()

    def stop(self):
        """Put the tools down: the mouse and the keys belong to the views again."""
        if self._widget is not None:
            self._widget.setActiveEffect(None)
            self._widget.uninstallKeyboardShortcuts()
            self._widget.removeViewObservations()

    def close(self):
        """Let go of the drawing, before the scene or the module goes.

        The editor keeps its own node, as in Slicer's module: without one it would not notice that the scene was closed.
        """
        if self._widget is not None:
            self.stop()
            self._widget.setSegmentationNode(None)

    def _make(self):
        self._widget = slicer.qMRMLSegmentEditorWidget()
        self._widget.maximumNumberOfUndoStates = UNDO_STEPS
        self._widget.setMRMLSegmentEditorNode(self._node())
        self._widget.setMRMLScene(slicer.mrmlScene)
        self._widget.setEffectNameOrder(EFFECTS)
        self._widget.unorderedEffectsVisible = False
        self._widget.segmentationNodeSelectorVisible = False
        self._widget.sourceVolumeNodeSelectorVisible = False
        self._layout.addWidget(self._widget)

    def _node(self):
        """The editor's own node, so that the Segment Editor module keeps its settings."""
        node = slicer.mrmlScene.GetSingletonNode(TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(TAG)
            node.SetOverwriteMode(node.OverwriteNone)  # organs may be drawn over each other; nothing is erased unasked
            node = slicer.mrmlScene.AddNode(node)
        return node


def new_drawing(volume):
    """A segmentation node for a scan, with one empty segment to draw in."""
    name = slicer.mrmlScene.GenerateUniqueName(_("{scan} drawing").format(scan=volume.GetName()))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.GetSegmentation().AddEmptySegment("", _("organ"))
    return node
