"""The inputs of the panel that the parameter node's own connectors do not know: segments, scans to tick, checkpoints."""

import ctk
import qt
import slicer
from slicer.util import VTKObservationMixin

from FewShotSegModule import checkpoints
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
        self._cards = checkpoints.list_cards()
        for name in self._cards:
            ui.checkpointComboBox.addItem(name)
        ui.ownCheckpointPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        ui.ownCheckpointPathLineEdit.nameFilters = ["*.safetensors"]
        ui.queryVolumesSelector.connect("checkedNodesChanged()", self._on_queries)
        ui.checkpointComboBox.connect("currentIndexChanged(int)", self._on_checkpoint)
        ui.ownCheckpointPathLineEdit.connect("currentPathChanged(QString)", self._on_own_checkpoint)

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
            self._show_checkpoint()
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

    def _show_checkpoint(self):
        ui, names, own = self._ui, list(self._cards), self._parameters.ownCheckpoint
        chosen = self._parameters.checkpoint
        ui.checkpointComboBox.currentIndex = names.index(chosen) if chosen in names else 0
        ui.checkpointComboBox.enabled = not own
        if ui.ownCheckpointPathLineEdit.currentPath != own:
            ui.ownCheckpointPathLineEdit.currentPath = own
        card = checkpoints.own_card(own) if own else self._cards.get(ui.checkpointComboBox.currentText)
        ui.licenceLabel.text = checkpoints.licence_text(card)

    def _on_segments(self, excluded):
        if self._parameters is not None:
            self._parameters.excludedSegments = excluded

    def _on_queries(self):
        if self._parameters is not None and not self._showing:
            self._parameters.queryVolumes = list(self._ui.queryVolumesSelector.checkedNodes())

    def _on_checkpoint(self, index):
        if self._parameters is not None and not self._showing and index >= 0:
            self._parameters.checkpoint = list(self._cards)[index]

    def _on_own_checkpoint(self, path):
        if self._parameters is not None and not self._showing:
            self._parameters.ownCheckpoint = path
