"""The Slicer module from outside: its shape, what it imports, what it says of itself, its panel file, its lists in CMake."""

from __future__ import annotations

import ast
import re
import struct
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from slicer_cases import MODULE, slicer_with_module

FOLDER = MODULE.parent
PARTS = FOLDER / "FewShotSegModule"
UI = FOLDER / "Resources" / "UI" / "FewShotSeg.ui"
START_UP = set(sys.stdlib_module_names) | {"vtk", "slicer", "numpy", "qt", "ctk", "FewShotSegModule"}
HEAVY = ("torch", "SimpleITK", "scipy", "skimage", "pydicom", "einops", "safetensors")


def imports_at_start_up(path: Path) -> set[str]:
    """What a file imports when it is loaded, as first parts of the names; not what its functions import."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", [MODULE, *sorted(PARTS.glob("*.py"))], ids=lambda path: path.stem)
def test_files_import_only_what_slicer_has(path: Path) -> None:
    names = imports_at_start_up(path) - {"FewShotSegLib.errors"}  # which imports nothing itself
    assert {name.split(".")[0] for name in names} <= START_UP
    assert imports_at_start_up(MODULE.parents[1] / "FewShotSegLib" / "errors.py") == {"__future__"}


def test_starting_slicer_and_opening_the_panel_imports_nothing_heavy() -> None:
    """In a process of its own, for others have imported everything here."""
    pytest.importorskip("slicer")
    pytest.importorskip("PySide6.QtWidgets")
    code = (
        "import sys; from slicer_cases import slicer_with_module\n"
        "with slicer_with_module() as (host, loaded):\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], host.installs, host.messages)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "[] [] []"


def test_module_has_the_four_classes_and_describes_itself() -> None:
    with slicer_with_module(panel=False) as (host, loaded):
        for part in ("", "Widget", "Logic", "Test"):
            assert isinstance(getattr(loaded.file, f"FewShotSeg{part}"), type)
        parent = loaded.module.parent
        assert parent.title == "Few-Shot Segmentation" and parent.categories == ["Segmentation"]
        assert "research only" in parent.helpText and parent.contributors and "CHAOS" in parent.acknowledgementText
        assert "startupCompleted()" in host.app._slots


def test_sample_data_are_registered_and_the_patients_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: dict[str, dict] = {}
    logic = types.SimpleNamespace(registerCustomSampleDataSource=lambda **told: registered.update({told["sampleName"]: told}))
    monkeypatch.setitem(sys.modules, "SampleData", types.SimpleNamespace(SampleDataLogic=logic))
    with slicer_with_module(panel=False) as (host, _loaded):
        host.app.emit("startupCompleted()")
        assert set(registered) == {"FewShotSegPatients", "FewShotSegLiver"}
        liver = registered["FewShotSegLiver"]
        assert liver["uris"].endswith(liver["checksums"].removeprefix("SHA256:"))
        assert all(Path(told["thumbnailFileName"]).is_file() for told in registered.values())
        from FewShotSegModule.sample_data import load_patients

        from FewShotSegLib.samples import find_sample

        assert find_sample("CTLiver").url == liver["uris"]
        drawn, drawing, new = load_patients((8, 32, 32))
        assert drawing.GetSegmentation().GetNumberOfSegments() == 4 and new.GetImageData().GetDimensions() == (32, 32, 8)
        assert drawn.GetIJKToRASDirectionMatrix is not None


def test_choices_and_tags_are_the_librarys() -> None:
    with slicer_with_module(panel=False):
        from FewShotSegModule import parameters, results

        from FewShotSegLib.methods import list_methods
        from FewShotSegLib.mrml import CONFIDENCE_TAG
        from FewShotSegLib.report.hints import GLANCE_BELOW, LOOK_BELOW
        from FewShotSegLib.strategies import NAMES

        assert list_methods() == parameters.METHODS, "correct METHODS in FewShotSegModule/parameters.py"
        assert sorted(NAMES) == sorted(parameters.STRATEGIES)
        assert results.CONFIDENCE_TAG == CONFIDENCE_TAG
        assert (results.LOOK_BELOW, results.GLANCE_BELOW) == (LOOK_BELOW, GLANCE_BELOW)


def test_methods_without_a_checkpoint_are_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    with slicer_with_module(panel=False) as (host, loaded):
        from FewShotSegModule import checkpoints
        from FewShotSegModule.logic import FewShotSegLogic
        from FewShotSegModule.parameters import METHODS
        from FewShotSegModule.pasting import PastingRunner
        from FewShotSegModule.sample_data import load_patients

        from FewShotSegLib.cards import Card

        assert checkpoints.usable_methods(checkpoints.list_cards().values(), METHODS) == METHODS, "the bundled one is for all"
        cards = {name: Card(name, methods=[method]) for name, method in (("carry-abdomen-heart", "match"), ("head", "rpt"))}
        monkeypatch.setattr(checkpoints, "list_cards", lambda: cards)
        widget = host.show(loaded)
        widget.logic, box, apply = FewShotSegLogic(PastingRunner()), widget.ui.methodComboBox, widget.ui.applyButton
        parameters = widget._parameters
        parameters.supportVolume, parameters.supportSegmentation, _new = load_patients((8, 32, 32))
        assert [box.itemText(row) for row in range(box.count)] == ["match", "rpt"] and apply.enabled
        box.currentIndex = 1
        assert parameters.method == "rpt" and not apply.enabled and "not for the method rpt" in apply.toolTip
        widget.ui.checkpointComboBox.currentIndex = 1
        assert parameters.checkpoint == "head" and apply.enabled
        parameters.checkpoint = "of-another-computer"
        assert "not on this computer" in apply.toolTip == widget.ui.licenceLabel.text
        parameters.checkpoint, parameters.method = "", "alpnet"
        assert "no checkpoint for the method alpnet" in apply.toolTip and box.currentIndex == -1
        host.unload(loaded)


def test_every_widget_of_the_panel_that_asks_something_has_a_tool_tip() -> None:
    silent = {"QLabel", "ctkCollapsibleButton", "ctkCollapsibleGroupBox", "qMRMLWidget", "QProgressBar", "QSpacer"}
    told_by_code = {"applyButton", "correctButton", "reuseButton"}
    without = [
        widget.get("name")
        for widget in ElementTree.parse(UI).iter("widget")
        if widget.get("class") not in silent and widget.find("property[@name='toolTip']") is None
    ]
    assert set(without) - told_by_code == set()


@pytest.mark.parametrize("path", [MODULE, *sorted(PARTS.glob("*.py"))], ids=lambda path: path.stem)
def test_texts_can_be_translated(path: Path) -> None:
    """What is given to `_` is text as it stands, or its extraction for translators fails; what is shown goes through it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    translated = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "_"]
    assert all(isinstance(call.args[0], ast.Constant) for call in translated)
    shown = [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in ("_say", "errorDisplay")]
    plain = [call.args[0].value for call in shown if isinstance(call.args[0], ast.Constant)]
    assert [text for text in plain if text] == []


def test_every_parameter_of_the_panel_exists() -> None:
    bound = {
        prop.findtext("string") for prop in ElementTree.parse(UI).iter("property") if prop.get("name") == "SlicerParameterName"
    }
    source = (PARTS / "parameters.py").read_text(encoding="utf-8")
    known = set(re.findall(r"^    (\w+): ", source, re.MULTILINE))
    assert bound and bound <= known


def test_cmake_lists_every_file_of_the_module() -> None:
    listing = (FOLDER / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "FewShotSeg")
    listed = set(re.findall(r"^  (\S+\.(?:py|png|ui|txt))$", listing, re.MULTILINE))
    files = {path.relative_to(FOLDER).as_posix() for path in [MODULE, *PARTS.glob("*.py"), *(FOLDER / "Resources").rglob("*.*")]}
    assert listed == files


def test_pictures_of_the_extension_are_in_the_repository() -> None:
    text = (FOLDER.parent / "CMakeLists.txt").read_text(encoding="utf-8")
    named = re.findall(r"EXTENSION_HOMEPAGE\}/(\S+?\.png)", text)
    assert len(named) >= 2 and all((FOLDER.parent / name).is_file() for name in named)


@pytest.mark.parametrize("path", sorted((FOLDER / "Resources" / "Icons").glob("FewShotSeg*.png")), ids=lambda path: path.stem)
def test_icons_are_small_pngs(path: Path) -> None:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size < 200_000
    assert path.stem != "FewShotSeg" or struct.unpack(">II", header[16:24]) == (128, 128)
