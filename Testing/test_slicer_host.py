"""The stand-in for Slicer: what a module file relies on behaves as in Slicer, and nothing of it stays behind."""

from __future__ import annotations

import enum
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np
import pytest
import slicer_host
from mrml_nodes import add_volume
from slicer_host import Host, LoadedModule
from slicer_host.host import BASE_PYTHON

from FewShotSegLib.geometry import Geometry

GRID = Geometry((5, 4, 3), (1, 1, 2))
MODULE = '''
"""A module for the tests of the test host."""
import qt
import slicer
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin


@parameterNodeWrapper
class TinyParameters:
    volume: slicer.vtkMRMLScalarVolumeNode
    text: str = "hello"


class Tiny(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Tiny")


class TinyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.closed = self.entered = self.cleaned = 0

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        root = slicer.util.loadUI(self.resourcePath("UI/Tiny.ui"))
        self.layout.addWidget(root)
        self.ui = slicer.util.childWidgetVariables(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.parameters = TinyParameters(TinyLogic().getParameterNode())
        self.tag = self.parameters.connectGui(self.ui)

    def enter(self):
        self.entered += 1

    def cleanup(self):
        self.cleaned += 1
        self.removeObservers()

    def onClose(self, caller, event):
        self.closed += 1

    def onApply(self, checked):
        with slicer.util.tryWithErrorDisplay(_("It failed."), waitCursor=True):
            if not slicer.util.confirmOkCancelDisplay("Install?"):
                raise RuntimeError("refused")
            slicer.util.pip_install("nothing>=1")


class TinyLogic(ScriptedLoadableModuleLogic):
    pass


class TinyTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_good(self):
        self.delayDisplay("good")
        self.assertEqual(TinyParameters(TinyLogic().getParameterNode()).text, "hello")

    def test_bad(self):
        self.fail("as it should")
'''
UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Tiny</class><widget class="qMRMLWidget" name="Tiny"><layout class="QVBoxLayout" name="all">
<item><widget class="ctkCollapsibleButton" name="inputs"><property name="text"><string>Inputs</string></property>
<layout class="QFormLayout" name="form">
<item row="0" column="1"><widget class="qMRMLNodeComboBox" name="volumeSelector">
<property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
<property name="noneEnabled"><bool>true</bool></property><property name="addEnabled"><bool>false</bool></property>
<property name="SlicerParameterName" stdset="0"><string>volume</string></property></widget></item>
<item row="1" column="1"><widget class="QLineEdit" name="textEdit">
<property name="SlicerParameterName" stdset="0"><string>text</string></property></widget></item>
</layout></widget></item>
<item><widget class="QPushButton" name="applyButton"><property name="text"><string>Apply</string></property></widget></item>
</layout></widget>
<customwidgets/><resources/><connections><connection><sender>Tiny</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
<receiver>volumeSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections></ui>
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    pytest.importorskip("slicer")
    pytest.importorskip("PySide6")
    with slicer_host.start() as host:
        yield host


@pytest.fixture
def scene(host: Host) -> Iterator[Any]:
    yield host.scene
    host.clear_scene()
    host.messages.clear()
    host.installs.clear()
    host.slot_errors.clear()


@pytest.fixture
def tiny(host: Host, scene: Any, tmp_path: Path) -> LoadedModule:
    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    (tmp_path / "Resources" / "UI" / "Tiny.ui").write_text(UI)
    (tmp_path / "Tiny.py").write_text(MODULE)
    return host.load_module(tmp_path / "Tiny.py")


def add_scan(scene: Any, name: str = "scan") -> Any:
    return add_volume(scene, np.arange(60, dtype=np.int16).reshape(GRID.shape), GRID, name)


def test_nothing_stays_behind_and_slicers_own_files_are_used_where_named(tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer")
    (tmp_path / "slicer").mkdir()
    (tmp_path / "slicer" / "i18n.py").write_text("def tr(text):\n    return text.upper()\ntranslate = None\n")
    before = list(slicer.__path__), slicer.util.errorDisplay, sys.excepthook
    with slicer_host.start(base_python=tmp_path):
        from slicer.i18n import tr
        from slicer.ScriptedLoadableModule import ScriptedLoadableModule

        assert tr("a") == "A", "Slicer's own file"
        assert ScriptedLoadableModule.__module__ == "slicer_host.scripted", "the stand-in where there is none"
    gone = {"qt", "ctk", "slicer.i18n", "slicer.ScriptedLoadableModule", "slicer.parameterNodeWrapper", "slicer.packaging"}
    assert not gone & set(sys.modules)
    assert not {name.partition(".")[2] for name in gone} & set(vars(slicer))
    assert (list(slicer.__path__), slicer.util.errorDisplay, sys.excepthook) == before
    with pytest.raises(ZeroDivisionError), slicer_host.start() as host:
        assert host.app.testingEnabled() is False
        raise ZeroDivisionError


@pytest.mark.skipif(not os.environ.get(BASE_PYTHON), reason=f"{BASE_PYTHON} does not name Slicer's own Python package")
@pytest.mark.parametrize("name", ["ScriptedLoadableModule", "parameterNodeWrapper", "i18n"])
def test_slicers_own_files_are_in_use(host: Host, name: str) -> None:
    base = Path(os.environ[BASE_PYTHON]).resolve()
    assert base in Path(importlib.import_module(f"slicer.{name}").__file__ or "").resolve().parents


# ------------------------------------------------------------------------------------------------ a module
def test_a_module_file_runs(host: Host, tiny: LoadedModule, scene: Any, tmp_path: Path) -> None:
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    assert tiny.module.parent.title == "Tiny"
    widget = host.show(tiny)
    assert widget.entered == 1 and widget.ui.inputs.text == "Inputs" and widget.ui.textEdit.text == "hello"

    scan = add_scan(scene)
    assert widget.parameters.volume is None, "the selector allows none"
    widget.ui.volumeSelector.setCurrentNode(scan)
    assert widget.parameters.volume is scan
    QTest.keyClicks(widget.ui.textEdit, "!")
    assert widget.parameters.text == "hello!"
    widget.parameters.text = "bye"
    assert widget.ui.textEdit.text == "bye"

    host.answers[:] = [True, False]
    QTest.mouseClick(widget.ui.applyButton, Qt.MouseButton.LeftButton)
    assert host.installs == [["nothing>=1"]] and host.errors == []
    QTest.mouseClick(widget.ui.applyButton, Qt.MouseButton.LeftButton)
    assert host.errors == ["It failed.\n\nrefused"]
    assert [str(error) for error in host.slot_errors] == ["refused"]

    picture = host.screenshot(tiny.panel, tmp_path / "panel.png")
    assert picture.stat().st_size > 1000
    host.clear_scene()
    assert widget.closed == 1 and widget.ui.volumeSelector.currentNode() is None
    host.unload(tiny)
    assert widget.cleaned == 1 and widget.Observations == []


def test_self_tests_run_one_by_one(host: Host, tiny: LoadedModule) -> None:
    result = host.self_test(tiny)
    assert result.testsRun == 2 and [case.id().split(".")[-1] for case, _ in result.failures] == ["test_bad"]
    assert result.errors == []


def test_unknown_widgets_are_named(host: Host, tmp_path: Path) -> None:
    import slicer

    (tmp_path / "x.ui").write_text(UI.replace("qMRMLNodeComboBox", "qMRMLPlotWidget"))
    with pytest.raises(RuntimeError, match="qMRMLPlotWidget"):
        slicer.util.loadUI(str(tmp_path / "x.ui"))


# ------------------------------------------------------------------------------------------------ PythonQt
def test_properties_are_attributes(host: Host) -> None:
    import qt

    label = qt.QLabel("a")
    label.text, label.wordWrap, label.name = "b", True, "title"
    assert (label.text, label.wordWrap, label.name, label.objectName) == ("b", True, "title", "title")
    with pytest.raises(AttributeError, match="no property 'txet'"):
        label.txet = "c"


def test_slots_get_the_arguments_of_the_signature(host: Host) -> None:
    import qt

    button, told = qt.QPushButton(), []
    for signature in ("clicked(bool)", "clicked()"):
        slot = lambda *given: told.append(given)  # noqa: E731
        button.connect(signature, slot)
        button.click()
        assert button.disconnect(signature, slot) and not button.disconnect(signature, slot)
        button.click()
    assert told == [(False,), ()]


# ------------------------------------------------------------------------------------------------ parameters
class Color(enum.Enum):
    RED = 1
    BLUE = 2


def parameters(host: Host, name: str = "test") -> Any:
    import slicer
    from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

    class Parameters:
        count = 2
        method = "match"
        color = Color.BLUE
        on = True

    Parameters.__annotations__ = {
        "scan": slicer.vtkMRMLScalarVolumeNode,
        "scans": list[slicer.vtkMRMLScalarVolumeNode],
        "names": list[str],
        "count": Annotated[int, WithinRange(1, 5)],
        "method": Annotated[str, Choice(["match", "alpnet"])],
        "color": Color,
        "path": Path,
        "on": bool,
        "maybe": Optional[float],  # noqa: UP045  # Slicer has no serializer for "float | None"
    }
    logic = ScriptedLoadableModuleLogic()
    logic.moduleName = name
    return parameterNodeWrapper(Parameters)(logic.getParameterNode())


def test_parameters_have_defaults_and_types(host: Host, scene: Any) -> None:
    found = parameters(host)
    assert (found.scan, found.scans, found.names, found.maybe) == (None, [], [], None)
    assert (found.count, found.method, found.color, found.path, found.on) == (2, "match", Color.BLUE, Path(), True)
    for name, wrong in (("count", 9), ("count", "3"), ("method", "other"), ("on", None), ("names", [3])):
        with pytest.raises((TypeError, ValueError)):
            setattr(found, name, wrong)
    assert found.count == 2 and found.method == "match"


def test_parameters_are_kept_in_the_node_and_tell_of_changes(host: Host, scene: Any) -> None:
    import vtk

    one, two, told = add_scan(scene, "one"), add_scan(scene, "two"), []
    found = parameters(host)
    found.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: told.append(event))
    found.scan, found.scans, found.names = one, [two, one], ["a", "b,c"]
    found.path, found.maybe, found.color = Path("x") / "y", 1.5, Color.RED
    assert len(told) >= 6
    again = parameters(host)
    assert again.scan is one and again.scans == [two, one] and again.names == ["a", "b,c"]
    assert (again.path, again.maybe, again.color) == (Path("x") / "y", 1.5, Color.RED)
    scene.RemoveNode(two)
    assert again.scans == found.scans == [None, one], "a node that has left the scene leaves its place"
    again.scan, again.scans, again.names = None, [], []
    assert (found.scan, found.scans, found.names) == (None, [], [])


REFUSED = ("short union", "choice without a default", "range without a default")


@pytest.mark.parametrize("kind", REFUSED)
def test_parameters_that_slicer_refuses_are_refused(host: Host, scene: Any, kind: str) -> None:
    from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
    from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

    hints = [float | None, Annotated[str, Choice(["match"])], Annotated[int, WithinRange(1, 5)]]
    wrapped = type("Refused", (), {"__annotations__": {"one": hints[REFUSED.index(kind)]}})
    with pytest.raises(Exception, match="serializer|one of|from 1 to 5|range"):
        parameterNodeWrapper(wrapped)(ScriptedLoadableModuleLogic().getParameterNode())


def test_parameters_survive_saving_the_scene(host: Host, scene: Any, tmp_path: Path) -> None:
    found = parameters(host)
    found.count, found.method = 4, "alpnet"
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    host.clear_scene()
    assert parameters(host).count == 2
    assert scene.Connect()
    assert (parameters(host).count, parameters(host).method) == (4, "alpnet")


# ------------------------------------------------------------------------------------------------ widgets
def test_selectors_follow_the_scene(host: Host, scene: Any) -> None:
    import slicer

    box = slicer.qMRMLNodeComboBox()
    box.nodeTypes, box.addEnabled, told = ["vtkMRMLScalarVolumeNode"], False, []
    box.connect("currentNodeChanged(vtkMRMLNode*)", told.append)
    box.setMRMLScene(scene)
    first, second = add_scan(scene, "first"), add_scan(scene, "second")
    assert box.currentNode() is first and box.nodeCount() == 2
    box.setCurrentNode(second)
    scene.RemoveNode(second)
    assert box.currentNode() is first
    assert [node and node.GetName() for node in told] == ["first", "second", "first"]
    box.setMRMLScene(None)


def test_several_volumes_and_segments_are_chosen(host: Host, scene: Any) -> None:
    import slicer
    from mrml_nodes import add_segmentation

    one, two = add_scan(scene, "one"), add_scan(scene, "two")
    many = slicer.qMRMLCheckableNodeComboBox()
    many.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    many.setMRMLScene(scene)
    assert many.noneChecked()
    many.setCheckState(two, 2)
    assert many.checkedNodes() == [two] and many.uncheckedNodes() == [one]
    many.setMRMLScene(None)

    masks = {"liver": np.ones(GRID.shape, bool), "vein": np.ones(GRID.shape, bool)}
    drawing = add_segmentation(scene, GRID, masks, one)
    selector = slicer.qMRMLSegmentSelectorWidget()
    selector.multiSelection = True
    selector.setMRMLScene(scene)
    selector.setCurrentNode(drawing)
    assert selector.selectedSegmentIDs() == ["liver"]
    selector.setSelectedSegmentIDs(["liver", "vein"])
    assert selector.selectedSegmentIDs() == ["liver", "vein"]
    drawing.GetSegmentation().RemoveSegment("liver")
    assert selector.selectedSegmentIDs() == ["vein"]
    selector.setMRMLScene(None)


def test_the_segment_editor_paints(host: Host, scene: Any) -> None:
    import slicer

    scan = add_scan(scene)
    drawing = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawing")
    editor = slicer.qMRMLSegmentEditorWidget()
    editor.setMRMLScene(scene)
    editor.setMRMLSegmentEditorNode(scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    editor.setSegmentationNode(drawing)
    editor.setSourceVolumeNode(scan)
    key = editor.addSegment("liver")
    mask = np.zeros(GRID.shape, bool)
    mask[1, 1:3, 2:4] = True
    editor.paint(mask)
    assert editor.currentSegmentID() == key
    assert np.array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(drawing, key, scan), mask)


# ------------------------------------------------------------------------------------------------ packages
def test_packages_are_checked_and_installs_only_noted(host: Host, scene: Any, tmp_path: Path) -> None:
    from slicer import packaging

    (tmp_path / "requirements.txt").write_text("numpy>=1  # there\n\nno-such-package-here>=3\n")
    listed = packaging.load_requirements(tmp_path / "requirements.txt")
    assert listed == ["numpy>=1", "no-such-package-here>=3"]
    assert packaging.pip_check("numpy>=1") and not packaging.pip_check(listed) and not packaging.pip_check("numpy>=99")
    packaging.pip_ensure(listed, requester="FewShotSeg")
    assert host.installs == [["no-such-package-here>=3"]]
