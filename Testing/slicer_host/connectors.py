"""How a parameter and a widget are bound: as in Slicer, by the exact class of the widget."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable
from typing import Any

from slicer_host.parameters import Choice, Parameter, WithinRange


class Connector:
    """Reads and writes one property of a widget, and tells of its changes."""

    prop, signal = "", ""

    def __init__(self, widget: Any, parameter: Parameter) -> None:
        self.widget, self.parameter = widget, parameter
        self._slot: Callable[..., None] | None = None

    def read(self) -> Any:
        return getattr(self.widget, self.prop)

    def write(self, value: Any) -> None:
        if self.read() != value:
            setattr(self.widget, self.prop, value)

    def on_changed(self, slot: Callable[..., None] | None) -> None:
        """Call `slot` on changes; None: no longer."""
        if self._slot is not None:
            self.widget.disconnect(self.signal, self._slot)
        self._slot = slot
        if slot is not None:
            self.widget.connect(self.signal, slot)


class Checked(Connector):
    prop, signal = "checked", "toggled(bool)"


class Text(Connector):
    prop, signal = "text", "textChanged(QString)"

    def read(self) -> Any:
        return self.widget.text if self.parameter.item is str else pathlib.Path(self.widget.text)

    def write(self, value: Any) -> None:
        if self.widget.text != str(value):
            self.widget.text = str(value)


class PlainText(Connector):
    prop, signal = "plainText", "textChanged()"


class Label(Connector):
    prop = "text"

    def write(self, value: Any) -> None:
        self.widget.text = str(value)

    def on_changed(self, slot: Callable[..., None] | None) -> None:
        pass


class Number(Connector):
    """Spin boxes and sliders; a range of the parameter is given to the widget."""

    prop, signal = "value", "valueChanged(double)"

    def __init__(self, widget: Any, parameter: Parameter) -> None:
        super().__init__(widget, parameter)
        for note in parameter.notes:
            if isinstance(note, WithinRange):
                widget.minimum, widget.maximum = note.minimum, note.maximum

    def read(self) -> Any:
        return self.parameter.item(self.widget.value)


class WholeNumber(Number):
    signal = "valueChanged(int)"


class Chosen(Connector):
    """A combo box of the choices, whose texts are the values (or the names of the Enum)."""

    prop, signal = "currentText", "currentIndexChanged(int)"

    def __init__(self, widget: Any, parameter: Parameter) -> None:
        super().__init__(widget, parameter)
        told = [note.choices for note in parameter.notes if isinstance(note, Choice)]
        if issubclass(parameter.item, enum.Enum):
            told = [list(parameter.item)]
        if not told:
            raise ValueError(f"A QComboBox needs a Choice or an Enum: {parameter.name}")
        self.values = told[0]
        widget.clear()
        widget.addItems([_shown(value) for value in self.values])

    def read(self) -> Any:
        return self.values[self.widget.currentIndex] if self.widget.currentIndex >= 0 else None

    def write(self, value: Any) -> None:
        index = self.values.index(value) if value in self.values else -1
        if self.widget.currentIndex != index:
            self.widget.currentIndex = index


def _shown(value: Any) -> str:
    """An Enum may have a method `label`, for texts that can be translated."""
    if not isinstance(value, enum.Enum):
        return str(value)
    return value.label() if hasattr(value, "label") else value.name


class Place(Connector):
    prop, signal = "currentPath", "currentPathChanged(QString)"

    def read(self) -> Any:
        return self.parameter.item(getattr(self.widget, self.prop))

    def write(self, value: Any) -> None:
        text = "" if value is None or value == pathlib.Path() else str(value)
        if getattr(self.widget, self.prop) != text:
            setattr(self.widget, self.prop, text)


class Folder(Place):
    prop, signal = "directory", "directoryChanged(QString)"


class Node(Connector):
    signal = "currentNodeChanged(vtkMRMLNode*)"

    def read(self) -> Any:
        return self.widget.currentNode()

    def write(self, value: Any) -> None:
        if self.widget.currentNode() is not value:
            self.widget.setCurrentNode(value)


KINDS: dict[str, type[Connector]] = {
    "QCheckBox": Checked,
    "QPushButton": Checked,
    "QRadioButton": Checked,
    "ctkCheckBox": Checked,
    "QLineEdit": Text,
    "QTextEdit": PlainText,
    "QPlainTextEdit": PlainText,
    "QLabel": Label,
    "QSpinBox": WholeNumber,
    "QSlider": WholeNumber,
    "QDoubleSpinBox": Number,
    "ctkSliderWidget": Number,
    "ctkDoubleSlider": Number,
    "ctkDoubleSpinBox": Number,
    "qMRMLSliderWidget": Number,
    "qMRMLSpinBox": Number,
    "QComboBox": Chosen,
    "ctkComboBox": Chosen,
    "ctkPathLineEdit": Place,
    "ctkDirectoryButton": Folder,
    "qMRMLNodeComboBox": Node,
}


def connector(widget: Any, parameter: Parameter) -> Connector:
    """The connector of a widget and a parameter; ValueError where Slicer has none either."""
    kind = KINDS.get(type(widget).__name__)
    if kind is None or (parameter.many and not isinstance(widget, str)):
        raise ValueError(f"Unable to create GUI connector from {type(widget).__name__} to {parameter.hint}")
    return kind(widget, parameter)
