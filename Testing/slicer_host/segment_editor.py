"""A stand-in for the Segment Editor, over real nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6 import QtWidgets
from PySide6.QtCore import Signal

from slicer_host.qmrml import option
from slicer_host.qt import register
from slicer_host.segments import SegmentList


@register
class qMRMLSegmentEditorWidget(SegmentList):
    """The Segment Editor: keeps its settings in the editor node and paints only by `paint`, for there are no views."""

    segmentationNodeChanged = Signal(object)
    sourceVolumeNodeChanged = Signal(object)
    currentSegmentIDChanged = Signal(str)
    segmentationNodeSelectorVisible = option(bool, True, "segmentationNodeSelectorVisible")
    sourceVolumeNodeSelectorVisible = option(bool, True, "sourceVolumeNodeSelectorVisible")
    switchToSegmentationsButtonVisible = option(bool, True, "switchToSegmentationsButtonVisible")
    autoShowSourceVolumeNode = option(bool, True, "autoShowSourceVolumeNode")
    jumpToSelectedSegmentEnabled = option(bool, False, "jumpToSelectedSegmentEnabled")
    undoEnabled = option(bool, True, "undoEnabled")
    maximumNumberOfUndoStates = option(int, 10, "maximumNumberOfUndoStates")
    readOnly = option(bool, False, "readOnly")
    unorderedEffectsVisible = option(bool, True, "unorderedEffectsVisible")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._editor, self._effect, self._observed = None, "", False
        self._title = QtWidgets.QLabel("Segment Editor (test host: effects and views are Slicer's own)")
        self._title.setWordWrap(True)
        self.layout().insertWidget(0, self._title)

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._editor = node
        self._set_node(node.GetSegmentationNode() if node is not None else None)

    def mrmlSegmentEditorNode(self) -> Any:
        return self._editor

    def setSegmentationNode(self, node: Any) -> None:
        if self._editor is not None:
            self._editor.SetAndObserveSegmentationNode(node)
        self._set_node(node)
        self.segmentationNodeChanged.emit(node)

    def segmentationNode(self) -> Any:
        return self._node

    def setSourceVolumeNode(self, node: Any) -> None:
        if self._editor is not None:
            self._editor.SetAndObserveSourceVolumeNode(node)
        if self._node is not None and node is not None and not self._node.GetSegmentation().GetNumberOfSegments():
            self._node.SetReferenceImageGeometryParameterFromVolumeNode(node)
        self.sourceVolumeNodeChanged.emit(node)

    setMasterVolumeNode = setSourceVolumeNode

    def sourceVolumeNode(self) -> Any:
        return self._editor.GetSourceVolumeNode() if self._editor is not None else None

    def setCurrentSegmentID(self, key: str) -> None:
        self._list.clearSelection()
        self._select([key])

    def currentSegmentID(self) -> str:
        return next(iter(self._ids()), "")

    def _selected(self) -> None:
        if self._editor is not None:
            self._editor.SetSelectedSegmentID(self.currentSegmentID())
        self.currentSegmentIDChanged.emit(self.currentSegmentID())

    def setActiveEffectByName(self, name: str) -> None:
        self._effect = name

    def setActiveEffect(self, effect: Any) -> None:
        self._effect = effect or ""

    def activeEffect(self) -> Any:
        return self._effect or None

    def setEffectNameOrder(self, names: Any) -> None:
        self.__dict__["_order"] = list(names)

    def setUnorderedEffectsVisible(self, visible: bool) -> None:
        self.unorderedEffectsVisible = visible

    def effectNameOrder(self) -> list[str]:
        return self.__dict__.get("_order", [])

    def setupViewObservations(self) -> None:
        self._observed = True

    def removeViewObservations(self) -> None:
        self._observed = False

    def installKeyboardShortcuts(self, parent: Any = None) -> None:
        pass

    def uninstallKeyboardShortcuts(self) -> None:
        pass

    def updateWidgetFromMRML(self) -> None:
        self._refresh()

    def setSegmentationNodeSelectorVisible(self, visible: bool) -> None:
        self.segmentationNodeSelectorVisible = visible

    def setSourceVolumeNodeSelectorVisible(self, visible: bool) -> None:
        self.sourceVolumeNodeSelectorVisible = visible

    def setSwitchToSegmentationsButtonVisible(self, visible: bool) -> None:
        self.switchToSegmentationsButtonVisible = visible

    def addSegment(self, name: str = "Segment_1") -> str:
        """What the button "Add" does; returns the segment's ID."""
        key = self._node.GetSegmentation().AddEmptySegment("", name)
        self.setCurrentSegmentID(key)
        return key

    def paint(self, mask: np.ndarray, segment_id: str | None = None) -> None:
        """What a brush does: make a segment (the current one) what `mask` (z, y, x) shows on the source volume."""
        import slicer.util

        key = segment_id or self.currentSegmentID()
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), self._node, key, self.sourceVolumeNode())
