"""The module `slicer.parameterNodeWrapper`: typed parameters kept in a parameter node, and bound to widgets.

Written after its documentation (Slicer developer guide, "Parameter nodes"). Kinds of parameters: nodes and lists of nodes, which
are node references; bool, int, float, str, Path, Enum, lists of these, and any of them or None.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import vtk

from slicer_host.parameters import Choice, Decimals, Default, Maximum, Minimum, Parameter, SingleStep, WithinRange

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Maximum",
    "Minimum",
    "SingleStep",
    "WithinRange",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]

NAME_PROPERTY = "SlicerParameterName"


class Wrapper:
    """Base of what `parameterNodeWrapper` makes."""

    allParameters: dict[str, Parameter] = {}

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._bound: dict[int, tuple[dict[str, Any], int]] = {}
        self._updating = False
        for parameter in self.allParameters.values():
            if not parameter.is_in(parameterNode):
                parameter.write(parameterNode, parameter.default)

    def getValue(self, name: str) -> Any:
        return self.allParameters[name].read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self.allParameters[name].write(self.parameterNode, value)

    def default(self, name: str) -> Default:
        return Default(self.allParameters[name].default)

    @classmethod
    def dataType(cls, name: str) -> Any:
        return cls.allParameters[name].hint

    def connectGui(self, gui: Any) -> None:
        """Bind the widgets that have the dynamic property SlicerParameterName. As in many Slicer versions, without a tag."""
        import qt

        widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "isWidgetType") else vars(gui).values()
        named = [widget for widget in widgets if hasattr(widget, "property")]
        self.connectParametersToGui({w.property(NAME_PROPERTY): w for w in named if w.property(NAME_PROPERTY)})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        from slicer_host.connectors import connector

        unknown = sorted(set(mapping) - set(self.allParameters))
        if unknown:
            raise ValueError(f"Cannot find a param with the given name: {unknown}")
        bound = {name: connector(widget, self.allParameters[name]) for name, widget in mapping.items()}
        for name, one in bound.items():
            one.write(self.getValue(name))
            one.on_changed(self._to_node(name, one))
        tag = max(self._bound, default=0) + 1
        self._bound[tag] = bound, self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *told: self._to_gui())
        return tag

    def disconnectGui(self, tag: int) -> None:
        bound, observer = self._bound.pop(tag, ({}, None))
        for one in bound.values():
            one.on_changed(None)
        if observer is not None:
            self.RemoveObserver(observer)

    def _to_node(self, name: str, one: Any) -> Callable[..., None]:
        def changed(*told: Any) -> None:
            if not self._updating:
                self.setValue(name, one.read())

        return changed

    def _to_gui(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for bound, _ in self._bound.values():
                for name, one in bound.items():
                    one.write(self.getValue(name))
        finally:
            self._updating = False

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was: int) -> None:
        self.parameterNode.EndModify(was)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)


def parameterNodeWrapper(cls: Any = None) -> Any:
    """Class decorator: members with type hints become parameters."""
    if cls is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: Parameter(name, hint, getattr(cls, name, None)) for name, hint in hints.items()}
    members = {name: _member(name) for name in parameters}
    return type(
        cls.__name__,
        (cls, Wrapper),
        {**members, "allParameters": parameters, "__init__": Wrapper.__init__, "__module__": cls.__module__},
    )


def _member(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def isParameterNodeWrapper(thing: Any) -> bool:
    return isinstance(thing, Wrapper) or (isinstance(thing, type) and issubclass(thing, Wrapper))
