"""Stand-ins for the qMRML widgets, over a real scene. They land in the module `slicer`, as in Slicer."""

from __future__ import annotations

from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal

from slicer_host import qt
from slicer_host.qt import register


def option(kind: Any, default: Any, name: str) -> Any:
    """A property that is only kept, and after whose change the widget is refreshed."""

    def get(self: Any) -> Any:
        return self.__dict__.get("_options", {}).get(name, default)

    def put(self: Any, value: Any) -> None:
        self.__dict__.setdefault("_options", {})[name] = value
        self._refresh()

    return Property(kind, get, put)


@register
class qMRMLWidget(qt.QWidget):  # type: ignore[name-defined]
    """A widget that knows the scene."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._scene = None

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene


class SceneWatcher:
    """Calls `_refresh` of the widget when nodes come, go or change their names."""

    _scene: Any = None
    _tags: list[tuple[Any, int]] = []

    def setMRMLScene(self, scene: Any) -> None:
        self._forget()
        self._scene = scene
        if scene is not None:
            events = (
                scene.NodeAddedEvent,
                scene.NodeRemovedEvent,
                scene.EndCloseEvent,
                scene.EndImportEvent,
                scene.EndBatchProcessEvent,
            )
            self._tags = [(scene, scene.AddObserver(event, self._scene_event)) for event in events]
        self._refresh()

    def mrmlScene(self) -> Any:
        return self._scene

    def _scene_event(self, caller: Any, event: str) -> None:
        if self._scene is not None and not self._scene.IsBatchProcessing():
            self._refresh()

    def _forget(self) -> None:
        for subject, tag in self._tags:
            subject.RemoveObserver(tag)
        self._tags = []

    def _refresh(self) -> None:
        raise NotImplementedError


class NodeList(SceneWatcher):
    """The nodes a selector offers, by its properties."""

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        every = (self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes()))
        return [node for node in every if node is not None and self._offers(node)]

    def _offers(self, node: Any) -> bool:
        kinds = self.nodeTypes
        child = self.showChildNodeTypes
        fits = any(node.IsA(kind) if child else node.GetClassName() == kind for kind in kinds)
        wanted = self.__dict__.get("_attributes", {})
        has = all(node.GetAttribute(name) == value for (kind, name), value in wanted.items() if node.IsA(kind) and value)
        return fits and has and (self.showHidden or not node.GetHideFromEditors())

    def addAttribute(self, kind: str, name: str, value: Any = None) -> None:
        self.__dict__.setdefault("_attributes", {})[kind, name] = value
        self._refresh()


@register
class qMRMLNodeComboBox(NodeList, qt.QWidget):  # type: ignore[name-defined]
    """Chooses one node of some classes."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)
    nodeAdded = Signal(object)
    nodeActivated = Signal(object)
    nodeTypes = option("QStringList", [], "nodeTypes")
    addEnabled = option(bool, True, "addEnabled")
    removeEnabled = option(bool, True, "removeEnabled")
    editEnabled = option(bool, False, "editEnabled")
    renameEnabled = option(bool, False, "renameEnabled")
    noneEnabled = option(bool, False, "noneEnabled")
    showHidden = option(bool, False, "showHidden")
    showChildNodeTypes = option(bool, True, "showChildNodeTypes")
    selectNodeUponCreation = option(bool, True, "selectNodeUponCreation")
    baseName = option(str, "", "baseName")
    noneDisplay = option(str, "None", "noneDisplay")

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._box, self._ids, self._told, self._busy = QtWidgets.QComboBox(), [], None, False
        layout.addWidget(self._box)
        self._box.currentIndexChanged.connect(lambda index: self._busy or self._tell())
        self._box.activated.connect(self._activated)

    def _refresh(self) -> None:
        if self._busy:
            return
        self._busy = True
        current, nodes = self._told, self._nodes()
        entries = [(None, self.noneDisplay)] if self.noneEnabled or not nodes else []
        entries += [(node.GetID(), node.GetName()) for node in nodes]
        entries += [
            (f"+{kind}", f"Create new {self.baseName or kind[7:-4]}") for kind in (self.nodeTypes if self.addEnabled else [])
        ]
        self._ids = [key for key, _ in entries]
        self._box.clear()
        self._box.addItems([title for _, title in entries])
        if current not in self._ids:
            current = None if self.noneEnabled or not nodes else nodes[0].GetID()
        self._box.setCurrentIndex(self._ids.index(current) if current in self._ids else -1)
        self._busy = False
        self._tell()

    def _tell(self) -> None:
        node = self.currentNode()
        key = node.GetID() if node else None
        if key != self._told:
            self._told = key
            self.currentNodeChanged.emit(node)
            self.currentNodeIDChanged.emit(key or "")

    def _activated(self, index: int) -> None:
        key = self._ids[index]
        if key and key.startswith("+"):
            self.nodeAddedByUser.emit(self.addNode(key[1:]))
        else:
            self.nodeActivated.emit(self.currentNode())

    def currentNode(self) -> Any:
        index = self._box.currentIndex()
        key = self._ids[index] if 0 <= index < len(self._ids) else None
        return self._scene.GetNodeByID(key) if key and not key.startswith("+") and self._scene else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None else None)

    def setCurrentNodeID(self, key: str | None) -> None:
        key = key or None
        if key is not None and key not in self._ids:
            self._refresh()
        self._box.setCurrentIndex(self._ids.index(key) if key in self._ids else -1)

    currentNodeID = Property(str, lambda self: self._told or "", lambda self, value: self.setCurrentNodeID(value))

    def addNode(self, kind: str | None = None) -> Any:
        name = self._scene.GetUniqueNameByString(self.baseName or (kind or self.nodeTypes[0])[7:-4])
        node = self._scene.AddNewNodeByClass(kind or self.nodeTypes[0], name)
        self._refresh()
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAdded.emit(node)
        return node

    def nodeCount(self) -> int:
        return len(self._nodes())
