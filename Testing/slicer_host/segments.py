"""Stand-ins for the chooser and the table of segments, over real segmentation nodes."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from slicer_host.qmrml import option, qMRMLNodeComboBox, qMRMLWidget
from slicer_host.qt import register

_ID = QtCore.Qt.ItemDataRole.UserRole


class SegmentList(qMRMLWidget):
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
class qMRMLSegmentSelectorWidget(SegmentList):
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
class qMRMLSegmentsTableView(SegmentList):
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
