"""What is set in the panel stays when the panel is left and entered again, and when a scene is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from slicer_cases import SHAPE, slicer_with_module


@pytest.fixture
def panel() -> Iterator[SimpleNamespace]:
    with slicer_with_module() as (host, loaded):
        yield SimpleNamespace(host=host, widget=loaded.widget, ui=loaded.widget.ui)


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
    for _ in range(3):
        panel.widget.exit()
        panel.widget.enter()
    assert chosen(panel) == CHOSEN
    assert (panel.ui.finishedComboBox.currentText, panel.ui.deviceComboBox.currentText) == ("Every slice", "cpu")


def test_loading_a_scene_brings_its_settings(panel: SimpleNamespace) -> None:
    from FewShotSegModule.sample_data import load_patients
    from FewShotSegModule.selftest import _load_scene_text, _scene_text

    load_patients(SHAPE)
    choose(panel)
    text = _scene_text()
    panel.host.clear_scene()
    panel.ui.finishedComboBox.currentIndex, panel.ui.deviceComboBox.currentIndex, panel.ui.everyMmSlider.value = 0, 0, 5.0
    _load_scene_text(text)
    panel.host.process_events()
    assert chosen(panel) == CHOSEN
    assert panel.ui.finishedComboBox.currentText == "Every slice"
