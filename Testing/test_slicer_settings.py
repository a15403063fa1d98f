"""What is set in the panel stays when the panel is left and entered again, and when a scene is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from slicer_cases import SHAPE, slicer_with_module


@pytest.fixture(scope="module")
def opened() -> Iterator[SimpleNamespace]:
    with slicer_with_module() as (host, loaded):
        yield SimpleNamespace(host=host, widget=loaded.widget, ui=loaded.widget.ui)


@pytest.fixture
def panel(opened: SimpleNamespace) -> Iterator[SimpleNamespace]:
    from FewShotSegModule.parameters import keep_options, options_of

    before = options_of(opened.widget._parameters)
    yield opened
    keep_options(opened.widget._parameters, before)
    opened.host.clear_scene()
    assert opened.host.slot_errors == []


def choose(panel: SimpleNamespace) -> None:
    """Other options than the first ones, in every kind of widget that is bound to a parameter."""
    panel.ui.finishedComboBox.currentIndex = 2
    panel.ui.deviceComboBox.currentIndex = 1
    panel.ui.everyMmSlider.value = 7.5
    panel.ui.batchSpinBox.value = 3
    panel.ui.refineCheckBox.checked = False


def chosen(panel: SimpleNamespace) -> tuple[object, ...]:
    found = panel.widget._parameters
    return found.finished.name, found.device, found.everyMm, found.batch, found.refine


CHOSEN = ("ALL", "cpu", 7.5, 3, False)


def test_entering_again_keeps_every_setting(panel: SimpleNamespace) -> None:
    choose(panel)
    assert chosen(panel) == CHOSEN
    before = panel.widget._parameters
    for _ in range(3):
        panel.widget.exit()
        panel.widget.enter()
    assert chosen(panel) == CHOSEN
    assert panel.widget._parameters is before, "in Slicer, each connection leaves observers behind"
    assert (panel.ui.finishedComboBox.currentText, panel.ui.deviceComboBox.currentText) == ("Every slice", "cpu")


def test_a_label_map_is_not_taken_for_the_scan(panel: SimpleNamespace) -> None:
    from FewShotSegModule.sample_data import load_patients

    panel.host.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    panel.widget.enter()
    assert panel.widget._parameters.supportVolume is None
    drawn, _drawing, _new = load_patients(SHAPE)
    panel.widget.enter()
    assert panel.widget._parameters.supportVolume is drawn is panel.ui.supportVolumeSelector.currentNode()


@pytest.mark.parametrize("entered", [True, False])
def test_loading_a_scene_brings_its_settings(panel: SimpleNamespace, entered: bool) -> None:
    from FewShotSegModule.sample_data import load_patients
    from FewShotSegModule.selftest import _load_scene_text, _scene_text

    load_patients(SHAPE)
    choose(panel)
    text = _scene_text()
    panel.ui.finishedComboBox.currentIndex, panel.ui.deviceComboBox.currentIndex, panel.ui.everyMmSlider.value = 0, 0, 5.0
    if not entered:
        panel.widget.exit()
    panel.host.clear_scene()
    _load_scene_text(text)
    panel.host.process_events()
    panel.widget.enter()
    assert chosen(panel) == CHOSEN
    assert panel.ui.finishedComboBox.currentText == "Every slice"
