"""The module `qt` as PythonQt presents it to scripted modules, over PySide6.

What differs from PySide6 and is copied here: properties are attributes (`label.text`, not `label.text()`), `name` is objectName,
`obj.connect("clicked(bool)", slot)` connects by signature, and unknown attributes cannot be set on Qt objects.
"""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import PySide6.QtCore
import PySide6.QtGui
import PySide6.QtUiTools
import PySide6.QtWidgets
from PySide6.QtCore import Property
from PySide6.QtCore import QObject as _QObject

from slicer_host.pyside_fault import give_spare_references

give_spare_references()

CUSTOM: dict[str, type] = {}
"""Widgets that a .ui file may name besides Qt's own: those of ctk.py and qmrml.py."""
_TYPES = {"bool": bool, "int": int, "double": float, "float": float, "QString": str}
_kept: list[Any] = []  # PySide forgets the Python side of a widget that nobody refers to
_loading: list[bool] = []


def register(cls: type) -> type:
    """Class decorator: a widget that .ui files may name."""
    CUSTOM[cls.__name__] = cls
    return cls


class PythonQt:
    """Mixed into every widget, timer and action."""

    def __getattribute__(self, name: str) -> Any:
        cls = type(self)
        if name.startswith("_"):
            return super().__getattribute__(name)
        if name in ("connect", "disconnect", "findChildren"):
            return getattr(PythonQt, name).__get__(self, cls)
        name = "objectName" if name == "name" else name
        if name not in _properties(cls):
            return super().__getattribute__(name)
        own = _python_property(cls, name)
        value = own.fget(self) if own is not None else _QObject.property(self, name)
        return _plain(value)

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        name = "objectName" if name == "name" else name
        if name in _properties(cls):
            own = _python_property(cls, name)
            if own is not None:
                own.fset(self, value)
            elif _QObject.setProperty(self, name, value) is False:
                raise AttributeError(f"{cls.__name__}.{name} cannot be {value!r}")
        elif name.startswith("_"):
            super().__setattr__(name, value)
        elif not _loading:  # PySide's loader sets every child as an attribute of the root; PythonQt's does not
            raise AttributeError(f"{cls.__name__} has no property {name!r}: PythonQt sets no new attributes on Qt objects")

    def connect(self, signal: str, slot: Callable[..., Any]) -> bool:
        """Connect "name(types)"; the slot gets as many arguments as the signature has."""
        count = len([part for part in signal.partition("(")[2].rstrip(")").split(",") if part])

        def call(*arguments: Any) -> None:
            slot(*arguments[:count])

        self._signal(signal).connect(call)
        self.__dict__.setdefault("_slots", []).append((signal, slot, call))
        return True

    def disconnect(self, signal: str, slot: Callable[..., Any]) -> bool:
        """Undo `connect` with the same arguments."""
        for entry in self.__dict__.get("_slots", []):
            if entry[0] == signal and entry[1] == slot:
                self._signal(signal).disconnect(entry[2])
                self.__dict__["_slots"].remove(entry)
                return True
        return False

    def _signal(self, text: str) -> Any:
        name, _, rest = text.partition("(")
        signal = super().__getattribute__(name)
        kinds = [_TYPES.get(part.strip()) for part in rest.rstrip(")").split(",") if part]
        try:
            return signal[tuple(kinds)] if len(kinds) > 1 else signal[kinds[0]] if kinds else signal[()]
        except (KeyError, IndexError, TypeError):
            return signal

    def findChildren(self, cls: type = _QObject, name: str = "") -> list[Any]:
        return list(_QObject.findChildren(self, cls, name) if name else _QObject.findChildren(self, cls))  # type: ignore[call-overload]

    def className(self) -> str:
        return type(self).__name__

    def delete(self) -> None:
        _QObject.deleteLater(self)  # type: ignore[arg-type]


@functools.cache
def _properties(cls: Any) -> frozenset[str]:
    meta = cls.staticMetaObject
    return frozenset(meta.property(index).name() for index in range(meta.propertyCount()))


@functools.cache
def _python_property(cls: type, name: str) -> Any:
    found = (base.__dict__.get(name) for base in cls.__mro__)
    return next((value for value in found if isinstance(value, Property)), None)


def _plain(value: Any) -> Any:
    """PythonQt's enumerations are numbers; PySide's that are not stay themselves."""
    inner = getattr(value, "value", None)
    return inner if isinstance(inner, int) and type(value).__module__.startswith("PySide6") else value


def _wrap(module: Any) -> None:
    """Take over a module's names, its widgets and a few others with PythonQt's habits."""
    habits = (PySide6.QtWidgets.QWidget, PySide6.QtCore.QTimer, PySide6.QtGui.QAction)
    for name in dir(module):
        value = getattr(module, name)
        if name.startswith("_") or name in globals():
            continue
        if isinstance(value, type) and issubclass(value, habits):
            value = type(name, (PythonQt, value), {"__module__": __name__})
        globals()[name] = value


for _module in (PySide6.QtCore, PySide6.QtGui, PySide6.QtWidgets, PySide6.QtUiTools):
    _wrap(_module)


class QUiLoader(PySide6.QtUiTools.QUiLoader):
    """Builds .ui files out of the widgets of this module and `CUSTOM`."""

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        cls = CUSTOM.get(class_name) or globals().get(class_name)
        if cls is None:
            raise RuntimeError(f"The .ui file uses {class_name}, of which the test host has no stand-in")
        widget = cls(parent) if parent is not None else cls()
        _QObject.setObjectName(widget, name)
        _kept.append(widget)
        return widget

    def load(self, file: Any, parent: Any = None) -> Any:
        for cls in CUSTOM.values():
            self.registerCustomWidget(cls)
        path = file if isinstance(file, str) else file.fileName()
        tree = ElementTree.parse(path)
        scene_connections = _take_scene_connections(tree)
        content = PySide6.QtCore.QBuffer()
        content.setData(ElementTree.tostring(tree.getroot()))
        self.setWorkingDirectory(PySide6.QtCore.QFileInfo(path).dir())
        _loading.append(True)
        try:
            root = super().load(content, parent)
        finally:
            _loading.pop()
        _connect_scene(root, scene_connections)
        return root


def _take_scene_connections(tree: ElementTree.ElementTree) -> list[dict[str, str]]:
    """Take out the connections between signals and slots of MRML pointers, which Qt cannot see on Python classes."""
    taken = []
    for parent in tree.iter("connections"):
        for entry in parent.findall("connection"):
            told = {tag: entry.findtext(tag, "") for tag in ("sender", "signal", "receiver", "slot")}
            if "MRML" in told["signal"]:
                parent.remove(entry)
                taken.append(told)
    return taken


def _connect_scene(root: Any, connections: list[dict[str, str]]) -> None:
    children = [root, *root.findChildren(PySide6.QtWidgets.QWidget)]
    widgets = {widget.objectName: widget for widget in children if isinstance(widget, PythonQt)}
    for told in connections:
        slot = getattr(widgets[told["receiver"]], told["slot"].partition("(")[0])
        widgets[told["sender"]]._signal(told["signal"].partition("(")[0]).connect(slot)
