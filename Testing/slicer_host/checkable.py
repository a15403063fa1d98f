"""Stand-ins for the chooser of several nodes, and for CTK's widgets under their qMRML names."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Signal

from slicer_host import ctk, qt
from slicer_host.qmrml import NodeList, option
from slicer_host.qt import register


@register
class qMRMLCheckableNodeComboBox(NodeList, qt.QListWidget):  # type: ignore[name-defined]
    """Chooses several nodes."""

    checkedNodesChanged = Signal()
    nodeTypes = option("QStringList", [], "nodeTypes")
    showHidden = option(bool, False, "showHidden")
    showChildNodeTypes = option(bool, True, "showChildNodeTypes")
    addEnabled = option(bool, True, "addEnabled")
    removeEnabled = option(bool, True, "removeEnabled")
    editEnabled = option(bool, False, "editEnabled")
    renameEnabled = option(bool, False, "renameEnabled")
    noneEnabled = option(bool, False, "noneEnabled")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._before: list[str] = []
        self.setMaximumHeight(70)
        self.itemChanged.connect(lambda item: self._tell())

    def _refresh(self) -> None:
        if "_before" not in self.__dict__:
            return
        checked = set(self._before)
        self.blockSignals(True)
        self.clear()
        for node in self._nodes():
            item = QtWidgets.QListWidgetItem(node.GetName())
            item.setData(QtCore.Qt.ItemDataRole.UserRole, node.GetID())
            item.setFlags(item.flags() | QtCore.Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(QtCore.Qt.CheckState.Checked if node.GetID() in checked else QtCore.Qt.CheckState.Unchecked)
            self.addItem(item)
        self.blockSignals(False)
        self._tell()

    def _tell(self) -> None:
        now = [node.GetID() for node in self.checkedNodes()]
        if now != self._before:
            self._before = now
            self.checkedNodesChanged.emit()

    def _items(self) -> list[Any]:
        return [self.item(row) for row in range(QtWidgets.QListWidget.model(self).rowCount())]

    def checkedNodes(self) -> list[Any]:
        checked = [item for item in self._items() if item.checkState() == QtCore.Qt.CheckState.Checked]
        nodes = [self._scene.GetNodeByID(item.data(QtCore.Qt.ItemDataRole.UserRole)) for item in checked] if self._scene else []
        return [node for node in nodes if node is not None]

    def uncheckedNodes(self) -> list[Any]:
        checked = [node.GetID() for node in self.checkedNodes()]
        return [node for node in self._nodes() if node.GetID() not in checked]

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def checkState(self, node: Any) -> Any:
        checked = node.GetID() in [other.GetID() for other in self.checkedNodes()]
        return QtCore.Qt.CheckState.Checked if checked else QtCore.Qt.CheckState.Unchecked

    def setCheckState(self, node: Any, state: Any) -> None:
        for item in self._items():
            if item.data(QtCore.Qt.ItemDataRole.UserRole) == node.GetID():
                item.setCheckState(QtCore.Qt.CheckState(state))

    def nodeCount(self) -> int:
        return len(self._nodes())


def _with_scene(base: Any) -> type:
    """A CTK widget under its qMRML name."""
    return type(
        "_", (base,), {"setMRMLScene": lambda self, scene: None, "mrmlSceneChanged": Signal(object), "__module__": __name__}
    )


for _name, _base in {
    "qMRMLCollapsibleButton": ctk.ctkCollapsibleButton,
    "qMRMLRangeWidget": ctk.ctkRangeWidget,  # type: ignore[attr-defined]
    "qMRMLSliderWidget": ctk.ctkSliderWidget,  # type: ignore[attr-defined]
    "qMRMLSpinBox": ctk.ctkDoubleSpinBox,  # type: ignore[attr-defined]
}.items():
    _class = _with_scene(_base)
    _class.__name__ = _name
    globals()[_name] = register(_class)
