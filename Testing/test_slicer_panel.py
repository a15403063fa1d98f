"""The panel clicked through without a display: choose, Apply, progress, cancel, error, correct, run again, close the scene."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from slicer_cases import SHAPE, slicer_with_module


@pytest.fixture(scope="module")
def opened() -> Iterator[SimpleNamespace]:
    with slicer_with_module() as (host, loaded):
        from FewShotSegModule.parameters import options_of

        widget = loaded.widget
        yield SimpleNamespace(host=host, loaded=loaded, widget=widget, ui=widget.ui, defaults=options_of(widget._parameters))


@pytest.fixture
def panel(opened: SimpleNamespace) -> Iterator[SimpleNamespace]:
    """The panel with two patients loaded and the first one's drawing chosen; its runner pastes the drawing."""
    from FewShotSegModule.parameters import keep_options
    from FewShotSegModule.sample_data import load_patients

    keep_options(opened.widget._parameters, opened.defaults)
    opened.drawn, opened.drawing, opened.new = load_patients(SHAPE)
    opened.parameters = opened.widget._parameters
    opened.parameters.supportVolume, opened.parameters.supportSegmentation = opened.drawn, opened.drawing
    opened.host.process_events()
    yield opened
    opened.host.clear_scene()
    found, opened.host.slot_errors[:] = list(opened.host.slot_errors), []
    opened.host.messages.clear()
    assert found == []


def use(panel: SimpleNamespace, **told: Any) -> Any:
    """Give the panel a pasting runner; returns it."""
    from FewShotSegModule.logic import FewShotSegLogic
    from FewShotSegModule.pasting import PastingRunner

    runner = PastingRunner(**told)
    panel.widget.logic = FewShotSegLogic(runner)
    return runner


def click(button: Any) -> None:
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    assert button.enabled, button.toolTip
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def finish(panel: SimpleNamespace, timeout_s: float = 120) -> None:
    panel.host.wait(lambda: not panel.widget.logic.running, timeout_s)
    panel.host.process_events()


def tick(panel: SimpleNamespace, row: int, on: bool) -> None:
    from PySide6.QtCore import Qt

    panel.ui.segmentList.item(row).setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)


def cells(panel: SimpleNamespace) -> list[list[str]]:
    table = panel.ui.resultsTable
    return [[table.item(row, column).text() for column in range(4)] for row in range(table.rowCount)]


def result_names(panel: SimpleNamespace) -> list[str]:
    from FewShotSegModule import results

    return [node.GetName() for node in results.result_nodes(panel.host.scene)]


def correct(panel: SimpleNamespace, node: Any, volume: Any, k: int) -> None:
    """Change the first organ of a result on slice k, as a brush does."""
    import slicer.util

    name = node.GetSegmentation().GetNthSegmentID(0)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, name, volume).copy()
    mask[k] = 0
    mask[k, 20:26, 20:26] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, name, volume)


def test_apply_is_disabled_with_the_reason(panel: SimpleNamespace) -> None:
    use(panel)
    assert panel.ui.applyButton.enabled and "new segmentation" in panel.ui.applyButton.toolTip
    panel.ui.sameScanCheckBox.checked = False
    assert not panel.ui.applyButton.enabled and "what to segment" in panel.ui.applyButton.toolTip
    panel.ui.queryVolumesSelector.setCheckState(panel.new, 2)
    assert panel.ui.applyButton.enabled
    for row in range(4):
        tick(panel, row, False)
    assert not panel.ui.applyButton.enabled and "segment" in panel.ui.applyButton.toolTip
    panel.ui.supportVolumeSelector.setCurrentNode(None)
    assert not panel.ui.applyButton.enabled and "scan" in panel.ui.applyButton.toolTip
    assert "list" in panel.ui.correctButton.toolTip and not panel.ui.reuseButton.enabled


def test_result_list_of_two_scans_begins_with_what_is_least_sure(panel: SimpleNamespace) -> None:
    runner = use(panel, confidence=(0.9, 0.5, float("nan"), 0.65))
    panel.ui.queryVolumesSelector.setCheckState(panel.new, 2)
    click(panel.ui.applyButton)
    assert not panel.ui.applyButton.enabled and panel.ui.cancelButton.enabled
    finish(panel)
    assert [job.supports[0].is_sparse for job in runner.jobs]
    assert [row[0] for row in cells(panel)] == ["–", "–", "50 %", "50 %", "65 %", "65 %", "90 %", "90 %"]
    assert cells(panel)[0][3] == "not found" and cells(panel)[2][3] == "look at this one" and cells(panel)[-1][3] == ""
    assert result_names(panel) == ["Drawn patient segmented", "New patient segmented"]
    assert panel.ui.statusLabel.text.startswith("Done.") and not panel.ui.cancelButton.enabled


def test_only_ticked_segments_are_used(panel: SimpleNamespace) -> None:
    runner = use(panel)
    tick(panel, 1, False)
    tick(panel, 3, False)
    click(panel.ui.applyButton)
    finish(panel)
    assert [organ.name for organ in runner.jobs[0].supports[0].organs] == ["liver", "left kidney"]
    tick(panel, 1, True)
    assert len(panel.parameters.excludedSegments) == 1


def test_progress_and_time_left_are_shown_and_cancel_ends(panel: SimpleNamespace) -> None:
    use(panel, steps=5, seconds=600)
    click(panel.ui.applyButton)
    panel.host.wait(lambda: "s left" in panel.ui.statusLabel.text, 60)
    assert "Drawn patient: pasting" in panel.ui.statusLabel.text and panel.ui.progressBar.value > 0
    click(panel.ui.cancelButton)
    finish(panel)
    assert panel.ui.statusLabel.text == "Cancelled. 0 of 1 scans were segmented."
    assert result_names(panel) == [] and panel.ui.applyButton.enabled


def test_scans_that_wait_for_a_second_time_are_named(panel: SimpleNamespace) -> None:
    use(panel, unsure=("Drawn patient",), seconds=1.0)
    panel.ui.queryVolumesSelector.setCheckState(panel.new, 2)
    click(panel.ui.applyButton)
    panel.host.wait(lambda: "once more at the end: Drawn patient" in panel.ui.statusLabel.text, 60)
    finish(panel)
    assert panel.ui.statusLabel.text.startswith("Done.") and "once more" not in panel.ui.statusLabel.text
    assert sorted(result_names(panel)) == ["Drawn patient segmented", "New patient segmented"]


def test_notes_name_their_scans_where_they_are_not_about_all(panel: SimpleNamespace) -> None:
    use(panel, notes={"Drawn patient": ["Slow.", "Turned."], "New patient": ["Slow."]})
    panel.ui.queryVolumesSelector.setCheckState(panel.new, 2)
    click(panel.ui.applyButton)
    finish(panel)
    assert panel.ui.statusLabel.text.splitlines()[1:] == ["Slow.", "Drawn patient: Turned."]


def test_errors_say_what_was_found_expected_and_what_to_do(panel: SimpleNamespace) -> None:
    use(panel, fail="The GPU is full. Expected: memory. What to do: choose the CPU.")
    click(panel.ui.applyButton)
    finish(panel)
    assert panel.ui.statusLabel.text.splitlines()[-3:] == ["The GPU is full.", "Expected: memory.", "What to do: choose the CPU."]
    use(panel)
    transform = panel.host.scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    panel.drawn.SetAndObserveTransformNodeID(transform.GetID())
    click(panel.ui.applyButton)
    finish(panel)
    assert "not linear" in panel.ui.statusLabel.text and "harden" in panel.ui.statusLabel.text
    assert panel.host.errors == [] and result_names(panel) == []


def test_closing_the_scene_ends_a_running_job(panel: SimpleNamespace) -> None:
    runner = use(panel, seconds=600)
    panel.ui.drawButton.click()
    click(panel.ui.applyButton)
    panel.host.wait(lambda: runner.running, 60)
    panel.host.clear_scene()
    assert not runner.running and not panel.widget.logic.running
    assert not panel.ui.applyButton.enabled and panel.ui.resultsTable.rowCount == 0
    assert panel.ui.supportVolumeSelector.currentNode() is None


def test_a_corrected_result_becomes_the_drawing_of_the_next_run(panel: SimpleNamespace) -> None:
    from FewShotSegModule import results

    panel.host.answers.clear()
    runner = use(panel)
    click(panel.ui.applyButton)
    finish(panel)
    (made,) = results.result_nodes(panel.host.scene)
    panel.ui.resultsTable.selectRow(0)
    panel.widget._update()
    click(panel.ui.reuseButton)
    assert "was not changed" in panel.ui.statusLabel.text and len(runner.jobs) == 1
    click(panel.ui.correctButton)
    assert not panel.ui.editorSection.collapsed
    correct(panel, made, panel.drawn, 3)
    click(panel.ui.reuseButton)
    finish(panel)
    before, after = (job.supports[0] for job in runner.jobs)
    assert after.drawn[0, 3] and after.drawn[0].sum() == before.drawn[0].sum() + (not before.drawn[0, 3])
    assert after.masks[0, 3].sum() == 36
    assert panel.parameters.supportSegmentation is made and len(result_names(panel)) == 2
    assert panel.drawing.GetSegmentation().GetNumberOfSegments() == 4


def test_a_click_on_a_result_goes_to_its_least_sure_place(panel: SimpleNamespace) -> None:
    use(panel)
    red = panel.host.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    click(panel.ui.applyButton)
    finish(panel)
    row = panel.widget._results.rows[-1]
    panel.widget._results._on_click(len(panel.widget._results.rows) - 1, 0)
    assert red.GetSliceToRAS().GetElement(2, 3) == pytest.approx(row.place[2], abs=0.01)  # an axial view


def test_options_stay_when_the_scene_is_closed(panel: SimpleNamespace) -> None:
    panel.ui.everyMmSlider.value = 8.5
    panel.ui.methodComboBox.currentIndex = 2
    panel.host.clear_scene()
    assert (panel.ui.everyMmSlider.value, panel.ui.methodComboBox.currentText) == (8.5, "visa")
    assert panel.widget._parameters.supportVolume is None


def test_settings_and_results_survive_saving_and_loading(panel: SimpleNamespace) -> None:
    from FewShotSegModule.selftest import _load_scene_text, _scene_text

    use(panel)
    panel.ui.methodComboBox.currentIndex = 1
    panel.ui.everyMmSlider.value = 7.5
    panel.ui.ownCheckpointPathLineEdit.currentPath = "mine.safetensors"
    assert "licence is not known" in panel.ui.licenceLabel.text
    panel.ui.queryVolumesSelector.setCheckState(panel.new, 2)
    text = _scene_text()
    panel.host.clear_scene()
    panel.ui.everyMmSlider.value = 5.0
    panel.ui.methodComboBox.currentIndex = 0
    _load_scene_text(text)
    panel.host.process_events()
    assert (panel.ui.methodComboBox.currentText, panel.ui.everyMmSlider.value) == ("alpnet", 7.5)
    assert panel.ui.ownCheckpointPathLineEdit.currentPath == "mine.safetensors"
    assert [node.GetName() for node in panel.ui.queryVolumesSelector.checkedNodes()] == ["New patient"]


def test_licence_of_the_bundled_checkpoint_is_shown(panel: SimpleNamespace) -> None:
    assert panel.ui.checkpointComboBox.currentText == "carry-abdomen-heart"
    assert "Research use only" in panel.ui.licenceLabel.text


def test_drawing_starts_with_one_click(panel: SimpleNamespace) -> None:
    panel.ui.supportSegmentationSelector.setCurrentNode(None)
    click(panel.ui.drawButton)
    drawing = panel.parameters.supportSegmentation
    assert drawing.GetName() == "Drawn patient drawing" and not panel.ui.editorSection.collapsed
    assert not panel.ui.applyButton.enabled and "empty" in panel.ui.applyButton.toolTip
    import slicer.util

    mask = np.zeros(SHAPE, np.uint8)
    mask[3, 10:20, 10:20] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, drawing, drawing.GetSegmentation().GetNthSegmentID(0), panel.drawn)
    panel.host.process_events()
    assert panel.ui.applyButton.enabled, panel.ui.applyButton.toolTip
