"""The module `ctk`: stand-ins for the CTK widgets that module panels use."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal

from slicer_host import qt
from slicer_host.qt import register

STYLE = "QToolButton { text-align: left; font-weight: bold; background: #dde2ea; border: 1px solid #b8c0cc }"
_SAME_AS_QT = {
    "ctkCheckBox": "QCheckBox",
    "ctkComboBox": "QComboBox",
    "ctkPushButton": "QPushButton",
    "ctkDoubleSpinBox": "QDoubleSpinBox",
    "ctkFittedTextBrowser": "QTextBrowser",
    "ctkMenuButton": "QPushButton",
    "ctkSearchBox": "QLineEdit",
    "ctkMessageBox": "QMessageBox",
    "ctkExpandableWidget": "QWidget",
}
for _name, _base in _SAME_AS_QT.items():
    globals()[_name] = register(type(_name, (getattr(qt, _base),), {"__module__": __name__}))


@register
class ctkCollapsibleButton(qt.QWidget):  # type: ignore[name-defined]
    """A titled section; collapsed, its children are hidden."""

    HEADER = 24
    contentsCollapsed = Signal(bool)
    toggled = Signal(bool)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._collapsed = False
        self._button = QtWidgets.QToolButton(self)
        self._button.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._button.setStyleSheet(STYLE)
        self._button.clicked.connect(lambda: self._collapse(not self._collapsed))
        self.setContentsMargins(0, self.HEADER + 2, 0, 0)
        self._collapse(False)

    def _collapse(self, collapsed: bool) -> None:
        self._collapsed = collapsed
        arrow = QtCore.Qt.ArrowType.RightArrow if collapsed else QtCore.Qt.ArrowType.DownArrow
        self._button.setArrowType(arrow)
        for child in self.findChildren(QtWidgets.QWidget):
            if child is not self._button and QtCore.QObject.parent(child) is self:
                child.setVisible(not collapsed)
        self.setMaximumHeight(self.HEADER + 2 if collapsed else 16777215)
        self.contentsCollapsed.emit(collapsed)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._collapse(self._collapsed)

    def resizeEvent(self, event: Any) -> None:
        self._button.setGeometry(0, 0, event.size().width(), self.HEADER)

    text = Property(str, lambda self: self._button.text(), lambda self, value: self._button.setText(value))
    collapsed = Property(bool, lambda self: self._collapsed, lambda self, value: self._collapse(value))
    checked = Property(bool, lambda self: not self._collapsed, lambda self, value: self._collapse(not value))


class _Slider(qt.QWidget):  # type: ignore[name-defined]
    """A slider with a spin box."""

    valueChanged = Signal(float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal), QtWidgets.QDoubleSpinBox()
        self._slider.setRange(0, 1000)
        self._box.setRange(0, 100)
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._changed)
        self._slider.sliderMoved.connect(lambda at: self._box.setValue(self._box.minimum() + at / 1000 * self._range()))

    def _range(self) -> float:
        return self._box.maximum() - self._box.minimum()

    def _changed(self, value: float) -> None:
        self._slider.setValue(int(1000 * (value - self._box.minimum()) / (self._range() or 1)))
        self.valueChanged.emit(value)

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    value = Property(float, lambda self: self._box.value(), lambda self, value: self._box.setValue(value))
    minimum = Property(float, lambda self: self._box.minimum(), lambda self, value: self._box.setMinimum(value))
    maximum = Property(float, lambda self: self._box.maximum(), lambda self, value: self._box.setMaximum(value))
    singleStep = Property(float, lambda self: self._box.singleStep(), lambda self, value: self._box.setSingleStep(value))
    decimals = Property(int, lambda self: self._box.decimals(), lambda self, value: self._box.setDecimals(value))
    suffix = Property(str, lambda self: self._box.suffix(), lambda self, value: self._box.setSuffix(value))


class _Range(qt.QWidget):  # type: ignore[name-defined]
    """Two spin boxes, for the ends of a range."""

    valuesChanged = Signal(float, float)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._low, self._high = QtWidgets.QDoubleSpinBox(), QtWidgets.QDoubleSpinBox()
        for box in (self._low, self._high):
            layout.addWidget(box)
            box.valueChanged.connect(lambda value: self.valuesChanged.emit(self._low.value(), self._high.value()))

    def setRange(self, minimum: float, maximum: float) -> None:
        self._low.setRange(minimum, maximum)
        self._high.setRange(minimum, maximum)

    def setValues(self, low: float, high: float) -> None:
        self._low.setValue(low)
        self._high.setValue(high)

    minimumValue = Property(float, lambda self: self._low.value(), lambda self, value: self._low.setValue(value))
    maximumValue = Property(float, lambda self: self._high.value(), lambda self, value: self._high.setValue(value))


_SHAPES = {"ctkSliderWidget": _Slider, "ctkDoubleSlider": _Slider, "ctkRangeWidget": _Range, "ctkDoubleRangeSlider": _Range}
for _name, _shape in _SHAPES.items():
    globals()[_name] = register(type(_name, (_shape,), {"__module__": __name__}))


@register
class ctkPathLineEdit(qt.QWidget):  # type: ignore[name-defined]
    """A line for a path."""

    Files, Dirs = 2, 1
    currentPathChanged = Signal(str)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._line, self._more = QtWidgets.QLineEdit(), QtWidgets.QToolButton()
        self._more.setText("...")
        self._filters, self._names = 0, []
        layout.addWidget(self._line)
        layout.addWidget(self._more)
        self._line.textChanged.connect(self.currentPathChanged)

    currentPath = Property(str, lambda self: self._line.text(), lambda self, value: self._line.setText(value))
    filters = Property(int, lambda self: self._filters, lambda self, value: self.__dict__.update(_filters=value))
    nameFilters = Property("QStringList", lambda self: self._names, lambda self, value: self.__dict__.update(_names=list(value)))
    settingKey = Property(str, lambda self: "", lambda self, value: None)


@register
class ctkDirectoryButton(qt.QPushButton):  # type: ignore[name-defined]
    """A button that shows a folder."""

    directoryChanged = Signal(str)

    def _go(self, folder: str) -> None:
        self.setText(folder)
        self.directoryChanged.emit(folder)

    directory = Property(str, lambda self: QtWidgets.QPushButton.text(self), _go)


@register
class ctkCollapsibleGroupBox(qt.QGroupBox):  # type: ignore[name-defined]
    """A group box whose content can be hidden."""

    def _collapse(self, collapsed: bool) -> None:
        self.__dict__["_collapsed"] = collapsed
        for child in self.findChildren(QtWidgets.QWidget):
            if QtCore.QObject.parent(child) is self:
                child.setVisible(not collapsed)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._collapse(self.__dict__.get("_collapsed", False))

    collapsed = Property(bool, lambda self: self.__dict__.get("_collapsed", False), _collapse)
