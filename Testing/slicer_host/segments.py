"""Stand-ins for the widgets of segments: chooser, table and Segment Editor, over real segmentation nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from slicer_host.qmrml import option, qMRMLNodeComboBox, qMRMLWidget
from slicer_host.qt import register

_ID = QtCore.Qt.ItemDataRole.UserRole


class _SegmentList(qMRMLWidget):
    """The segments of a node in a list; several may be selected."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._node, self._tags, self._list = None, [], QtWidgets.QListWidget()
        self._list.setMaximumHeight(90)
        self._list.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode.ExtendedSelection)
        layout.addWidget(self._list)
        self._list.itemSelectionChanged.connect(self._selected)

    def _set_node(self, node: Any) -> None:
        for subject, tag in self._tags:
            subject.RemoveObserver(tag)
        self._node = node
        self._tags = []
        if node is not None:
            segmentation = node.GetSegmentation()
            events = (segmentation.SegmentAdded, segmentation.SegmentRemoved, segmentation.SegmentModified)
            self._tags = [(segmentation, segmentation.AddObserver(event, lambda *told: self._refresh())) for event in events]
        self._refresh()

    def _refresh(self) -> None:
        chosen = self._ids()
        self._list.blockSignals(True)
        self._list.clear()
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        for key in segmentation.GetSegmentIDs() if segmentation else ():
            item = QtWidgets.QListWidgetItem(segmentation.GetSegment(key).GetName())
            item.setData(_ID, key)
            self._list.addItem(item)
            item.setSelected(key in chosen)
        self._list.blockSignals(False)
        if self._ids() != chosen:
            self._selected()

    def _ids(self) -> list[str]:
        return [item.data(_ID) for item in self._list.selectedItems()]

    def _select(self, keys: Any) -> None:
        for row in range(self._list.count()):
            self._list.item(row).setSelected(self._list.item(row).data(_ID) in list(keys))

    def _selected(self) -> None:
        raise NotImplementedError


@register
class qMRMLSegmentSelectorWidget(_SegmentList):
    """Chooses a segmentation node and one or, with `multiSelection`, several of its segments."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)
    segmentSelectionChanged = Signal("QStringList")
    multiSelection = option(bool, False, "multiSelection")
    noneEnabled = option(bool, False, "noneEnabled")
    segmentationNodeSelectorVisible = option(bool, True, "segmentationNodeSelectorVisible")
    selectNodeUponCreation = option(bool, False, "selectNodeUponCreation")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._box = qMRMLNodeComboBox()
        self._box.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._box.addEnabled, self._box.noneEnabled = False, True
        self._box.currentNodeChanged.connect(self._node_changed)
        self.layout().insertWidget(0, self._box)

    def _refresh(self) -> None:
        if "_box" in self.__dict__:
            self._box.setVisible(self.segmentationNodeSelectorVisible)
        mode = QtWidgets.QAbstractItemView.SelectionMode
        self._list.setSelectionMode(mode.MultiSelection if self.multiSelection else mode.SingleSelection)
        super()._refresh()

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        self._box.setMRMLScene(scene)

    def _node_changed(self, node: Any) -> None:
        self._set_node(node)
        if node is not None and not self._ids() and self._list.count():
            self._list.item(0).setSelected(True)
        self.currentNodeChanged.emit(node)

    def _selected(self) -> None:
        self.currentSegmentChanged.emit(self.currentSegmentID())
        self.segmentSelectionChanged.emit(self._ids())

    def currentNode(self) -> Any:
        return self._node

    def setCurrentNode(self, node: Any) -> None:
        self._box.setCurrentNode(node)

    def currentNodeID(self) -> str:
        return self._node.GetID() if self._node is not None else ""

    def setCurrentNodeID(self, key: str) -> None:
        self._box.setCurrentNodeID(key)

    def currentSegmentID(self) -> str:
        return next(iter(self._ids()), "")

    def setCurrentSegmentID(self, key: str) -> None:
        self._list.clearSelection()
        self._select([key])

    def selectedSegmentIDs(self) -> list[str]:
        return self._ids()

    def setSelectedSegmentIDs(self, keys: Any) -> None:
        self._list.clearSelection()
        self._select(keys)


@register
class qMRMLSegmentsTableView(_SegmentList):
    """The table of a node's segments, of which the names and the selection are copied here."""

    selectionChanged = Signal(object, object)
    segmentAboutToBeModified = Signal(str)
    segmentVisibilityChanged = Signal(str)
    headerVisible = option(bool, True, "headerVisible")
    visibilityColumnVisible = option(bool, True, "visibilityColumnVisible")
    colorColumnVisible = option(bool, True, "colorColumnVisible")
    opacityColumnVisible = option(bool, True, "opacityColumnVisible")
    statusColumnVisible = option(bool, False, "statusColumnVisible")
    layerColumnVisible = option(bool, False, "layerColumnVisible")
    selectionMode = option(int, 3, "selectionMode")
    readOnly = option(bool, False, "readOnly")
    filterBarVisible = option(bool, False, "filterBarVisible")

    def setSegmentationNode(self, node: Any) -> None:
        self._set_node(node)

    def segmentationNode(self) -> Any:
        return self._node

    def selectedSegmentIDs(self) -> list[str]:
        return self._ids()

    def setSelectedSegmentIDs(self, keys: Any) -> None:
        self._list.clearSelection()
        self._select(keys)

    def clearSelection(self) -> None:
        self._list.clearSelection()

    def segmentCount(self) -> int:
        return self._list.count()

    def setReadOnly(self, value: bool) -> None:
        self.readOnly = value

    def setSelectionMode(self, mode: Any) -> None:
        self._list.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode(mode))

    def _selected(self) -> None:
        self.selectionChanged.emit(None, None)


@register
class qMRMLSegmentEditorWidget(_SegmentList):
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
