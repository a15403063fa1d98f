"""The Slicer module file, without Slicer: its shape, its imports, and its panel on the smallest possible stand-ins."""

from __future__ import annotations

import ast
import importlib.util
import struct
import sys
import types
import unittest
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "FewShotSeg"
MODULE = FOLDER / "FewShotSeg.py"


class Label:
    def __init__(self, text: str) -> None:
        self.text = text


class Layout:
    def __init__(self) -> None:
        self.widgets: list[object] = []

    def addWidget(self, widget: object) -> None:
        self.widgets.append(widget)

    def addStretch(self, factor: int) -> None:
        pass


class Widget:
    def __init__(self, parent: object = None) -> None:
        self.parent = parent
        self.layout = Layout()

    def setup(self) -> None:
        pass


class Module:
    def __init__(self, parent: object) -> None:
        self.parent = parent


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The module file, imported with stand-ins for `qt` and `slicer`."""
    stand_ins = {
        "qt": {"QLabel": Label, "Qt": types.SimpleNamespace(TextSelectableByMouse=1)},
        "slicer": {},
        "slicer.i18n": {"tr": lambda text: text, "translate": lambda context, text: text},
        "slicer.ScriptedLoadableModule": {
            "ScriptedLoadableModule": Module,
            "ScriptedLoadableModuleWidget": Widget,
            "ScriptedLoadableModuleLogic": type("Logic", (), {}),
            "ScriptedLoadableModuleTest": unittest.TestCase,
        },
    }
    for name, content in stand_ins.items():
        stand_in = types.ModuleType(name)
        vars(stand_in).update(content)
        monkeypatch.setitem(sys.modules, name, stand_in)
    spec = importlib.util.spec_from_file_location("FewShotSeg", MODULE)
    assert spec and spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_module_file_has_the_four_classes_and_light_imports() -> None:
    tree = ast.parse(MODULE.read_text(encoding="utf-8"))
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert classes == ["FewShotSeg", "FewShotSegWidget", "FewShotSegLogic", "FewShotSegTest"]
    imported = {alias.name.split(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    imported |= {(node.module or "").split(".")[0] for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert imported <= set(sys.stdlib_module_names) | {"vtk", "slicer", "numpy", "qt", "ctk"}


def test_module_describes_itself(module: types.ModuleType) -> None:
    parent = types.SimpleNamespace()
    module.FewShotSeg(parent)
    assert parent.title and parent.helpText and parent.contributors
    assert parent.categories == ["Segmentation"]


def test_panel_shows_how_to_segment_and_promises_nothing_else(module: types.ModuleType) -> None:
    widget = module.FewShotSegWidget()
    widget.setup()
    (label,) = widget.layout.widgets
    assert "fewshotseg segment --support-image" in label.text
    assert "later release" in label.text


def test_in_module_tests_pass(module: types.ModuleType) -> None:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(module.FewShotSegTest).run(result)
    assert result.testsRun >= 1 and result.wasSuccessful(), result.failures + result.errors


def test_command_of_the_panel_is_one_that_exists(module: types.ModuleType) -> None:
    typer_testing = pytest.importorskip("typer.testing")
    cli = pytest.importorskip("FewShotSegLib.cli")
    listed = typer_testing.CliRunner().invoke(cli.app, ["segment", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    for option in ("--support-image", "--support-labels", "--query", "--output"):
        assert option in module.COMMAND and option in listed


def test_icon_is_a_128_pixel_png() -> None:
    header = (FOLDER / "Resources" / "Icons" / "FewShotSeg.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", header[16:24]) == (128, 128)
