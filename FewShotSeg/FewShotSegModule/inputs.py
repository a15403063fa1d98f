"""The inputs of the panel that the parameter node's own connectors do not know: segments and scans to tick."""

import qt
import slicer
from slicer.util import VTKObservationMixin

from FewShotSegModule.lists import SegmentList

SEGMENT_EVENTS = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SourceRepresentationModified")


class Inputs(VTKObservationMixin):
    """Shows the parameters in these widgets, and writes into them what the user chooses.

    Args:
        ui: the panel's widgets.
        drawn: called when the chosen drawing changes: a stroke, a new segment.
    """

    def __init__(self, ui, drawn):
        VTKObservationMixin.__init__(self)
        self._ui, self._drawn, self._parameters, self._drawing, self._showing = ui, drawn, None, None, False
        self._segments = SegmentList(ui.segmentList, self._on_segments)
        ui.queryVolumesSelector.connect("checkedNodesChanged()", self._on_queries)

    def show(self, parameters):
        """Show a parameter node, or nothing (None)."""
        self._parameters, self._showing = parameters, True
        try:
            self._observe(parameters.supportSegmentation if parameters is not None else None)
            if parameters is None:
                self._segments.show(None, [])
                return
            self._segments.show(parameters.supportSegmentation, parameters.excludedSegments)
            self._tick([node for node in parameters.queryVolumes if node is not None])
        finally:
            self._showing = False

    def _observe(self, node):
        """Hear of every stroke and every new segment of a drawing."""
        if node is self._drawing:
            return
        if self._drawing is not None and node is not None:
            self._parameters.excludedSegments = []  # they are the IDs of another drawing's segments
        self.removeObservers()
        self._drawing = node
        for name in SEGMENT_EVENTS if node is not None else ():
            self.addObserver(node.GetSegmentation(), getattr(slicer.vtkSegmentation, name), self._drawn)

    def _tick(self, wanted):
        selector = self._ui.queryVolumesSelector
        for node in list(selector.checkedNodes()):
            if node not in wanted:
                selector.setCheckState(node, qt.Qt.Unchecked)
        for node in wanted:
            selector.setCheckState(node, qt.Qt.Checked)

    def _on_segments(self, excluded):
        if self._parameters is not None:
            self._parameters.excludedSegments = excluded

    def _on_queries(self):
        if self._parameters is not None and not self._showing:
            self._parameters.queryVolumes = list(self._ui.queryVolumesSelector.checkedNodes())


def first_scan():
    """The first scan of the scene that the panel offers, so no label map; None without one."""
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return next((node for node in nodes if node.GetClassName() == "vtkMRMLScalarVolumeNode"), None)
