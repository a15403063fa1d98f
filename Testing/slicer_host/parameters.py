"""One typed parameter of a parameter node, and the annotations that its type may carry."""

from __future__ import annotations

import enum
import json
import pathlib
import typing
from typing import Annotated, Any, Union

import slicer


class Default:
    def __init__(self, value: Any) -> None:
        self.value = value


class Choice:
    """The value is one of these."""

    def __init__(self, choices: Any) -> None:
        self.choices = list(choices)

    def check(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is not one of {self.choices}")


class WithinRange:
    """The value lies between two others, these included."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def check(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value!r} is not from {self.minimum} to {self.maximum}")


class Minimum(WithinRange):
    def __init__(self, minimum: float) -> None:
        super().__init__(minimum, float("inf"))


class Maximum(WithinRange):
    def __init__(self, maximum: float) -> None:
        super().__init__(float("-inf"), maximum)


class Decimals:
    def __init__(self, value: int) -> None:
        self.value = value


class SingleStep:
    def __init__(self, value: float) -> None:
        self.value = value


class Parameter:
    """One typed member of a parameter node."""

    def __init__(self, name: str, hint: Any, default: Any = None) -> None:
        self.name, self.hint = name, hint
        self.kind, self.notes = (hint.__origin__, hint.__metadata__) if typing.get_origin(hint) is Annotated else (hint, ())
        self.optional = typing.get_origin(self.kind) is Union
        if self.optional:
            (self.kind,) = [kind for kind in typing.get_args(self.kind) if kind is not type(None)]
        self.many = typing.get_origin(self.kind) is list
        self.item = typing.get_args(self.kind)[0] if self.many else self.kind
        if not (isinstance(self.item, type) and (self.is_node or issubclass(self.item, _PLAIN))):
            raise TypeError(f"The test host has no serializer for {name}: {hint}")
        told = [note.value for note in self.notes if isinstance(note, Default)]
        self.default = default if default is not None else told[0] if told else self._default()

    @property
    def is_node(self) -> bool:
        return self.item.__name__.startswith("vtkMRML")

    def _default(self) -> Any:
        if self.optional or (self.is_node and not self.many):
            return None
        return [] if self.many else next(iter(self.item)) if issubclass(self.item, enum.Enum) else self.item()

    def read(self, node: Any) -> Any:
        if self.is_node:
            found = [node.GetNodeReference(role) for role in self._roles(self._count(node))]
            return found if self.many else found[0]
        text = node.GetParameter(self.name)
        if not text:
            return self.default
        value = json.loads(text)
        return [self._loaded(one) for one in value] if self.many and value is not None else self._loaded(value)

    def write(self, node: Any, value: Any) -> None:
        for note in self.notes:
            if value is not None and hasattr(note, "check"):
                note.check(value)
        if self.is_node:
            self._write_nodes(node, value if self.many else [value])
            return
        if value is None and not self.optional:
            raise ValueError(f"{self.name} cannot be None")
        plain = [self._plain(one) for one in value] if self.many and value is not None else self._plain(value)
        node.SetParameter(self.name, json.dumps(plain))

    def _write_nodes(self, node: Any, values: list[Any]) -> None:
        wrong = [value for value in values if value is not None and not value.IsA(self.item.__name__)]
        if wrong:
            raise TypeError(f"{self.name} cannot be a {wrong[0].GetClassName()}")
        with slicer.util.NodeModify(node):
            for role in self._roles(self._count(node)):
                node.RemoveNodeReferenceIDs(role)
            for role, value in zip(self._roles(len(values)), values, strict=True):
                node.SetNodeReferenceID(role, value.GetID() if value is not None else None)
            node.SetParameter(self.name, str(len(values)))
            node.Modified()

    def _count(self, node: Any) -> int:
        return int(node.GetParameter(self.name) or 0) if self.many else 1

    def _roles(self, count: int) -> list[str]:
        """As in Slicer, each of a list's nodes has a role of its own: one that has left the scene leaves None in its place."""
        return [f"{self.name}.{index}" for index in range(count)] if self.many else [self.name]

    def is_in(self, node: Any) -> bool:
        return bool(node.GetParameter(self.name))

    def _plain(self, value: Any) -> Any:
        if value is None:
            return None
        if issubclass(self.item, enum.Enum):
            return value.name
        if not isinstance(value, self.item) and not (self.item is float and isinstance(value, int)) and not self._is_path(value):
            raise TypeError(f"{self.name} cannot be {value!r}: it is a {self.item.__name__}")
        return str(value) if issubclass(self.item, pathlib.PurePath) else value

    def _is_path(self, value: Any) -> bool:
        return issubclass(self.item, pathlib.PurePath) and isinstance(value, str)

    def _loaded(self, value: Any) -> Any:
        if value is None:
            return None
        return self.item[value] if issubclass(self.item, enum.Enum) else self.item(value)


_PLAIN = (bool, int, float, str, pathlib.PurePath, enum.Enum)
