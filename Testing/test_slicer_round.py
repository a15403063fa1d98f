"""The clinician's whole round in the panel: load a scan, draw the liver on one slice, Apply, correct one slice, run again. On
a real scan where there is one, and on an invented patient; real MRML, real worker process, bundled checkpoint.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mrml_nodes import RAS_TO_LPS, array_of, mask_in, vtk_matrix
from slicer_cases import slicer_with_module

from FewShotSegLib.mrml.volumes import volume_from_node
from FewShotSegLib.phantom import ORGANS, make_patient
from FewShotSegLib.resources import resource_dir
from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT
from FewShotSegLib.volume import Volume

PATIENCE_S = 900.0

pytestmark = pytest.mark.skipif(
    not (resource_dir("checkpoints") / f"{DEFAULT_CHECKPOINT}.safetensors").is_file(), reason="the default checkpoint is absent"
)


class Clinician:
    """Works in the panel by its buttons, and in the Segment Editor by painting."""

    def __init__(self, host: Any, loaded: Any) -> None:
        self.host, self.widget, self.ui = host, loaded.widget, loaded.widget.ui
        self.widget.logic.install = lambda file: None
        self.ui.deviceComboBox.currentText = "cpu"

    def load(self, path: Path) -> Any:
        """A scan from its file, chosen in the panel."""
        node = loaded_node(self.host.scene, path)
        self.ui.supportVolumeSelector.setCurrentNode(node)
        return node

    def draw(self, name: str, mask: np.ndarray) -> Any:
        """Press "Draw here", and paint; the drawing."""
        self.click(self.ui.drawButton)
        drawing = self.ui.supportSegmentationSelector.currentNode()
        drawing.GetSegmentation().GetNthSegment(0).SetName(name)
        self.paint(drawing, mask)
        return drawing

    def correct(self, row: int, mask: np.ndarray) -> None:
        """Choose a result in the list, press "Correct", and paint."""
        self.ui.resultsTable.selectRow(row)
        self.widget._onResultClicked(self.widget._results.selected)
        self.click(self.ui.correctButton)
        self.paint(self.widget._results.selected.node, mask)

    def paint(self, node: Any, mask: np.ndarray) -> None:
        editor = self.widget._editor._widget
        assert not self.ui.editorSection.collapsed and editor.segmentationNode() is node
        editor.paint(mask, node.GetSegmentation().GetNthSegmentID(0))
        self.host.process_events()

    def run(self, button: Any) -> Any:
        """Press a button that starts a job; the newest result."""
        from FewShotSegModule import results

        before = results.result_nodes(self.host.scene)
        self.click(button)
        self.host.wait(lambda: not self.widget.logic.running, PATIENCE_S)
        new = [node for node in results.result_nodes(self.host.scene) if node not in before]
        assert len(new) == 1, self.ui.statusLabel.text
        return new[0]

    def click(self, button: Any) -> None:
        assert button.enabled, button.toolTip
        button.click()
        self.host.process_events()


def loaded_node(scene: Any, path: Path) -> Any:
    """A volume through MRML's own reader, which turns the axes of a left-handed file."""
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", path.name.split(".")[0])
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    return node


def truth_of(scene: Any, path: Path, label: int) -> np.ndarray:
    """The voxels (z, y, x) with this label, in the order of the node of a scan read in the same way."""
    node = loaded_node(scene, path)
    found = volume_from_node(node).array == label
    scene.RemoveNode(node)
    return found


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def liver_of(node: Any, volume: Volume) -> np.ndarray:
    """The result's voxels on the scan's grid, each found through its place in the world."""
    segmentation = node.GetSegmentation()
    assert [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())] == ["liver"]
    return mask_in(node, segmentation.GetNthSegmentID(0), volume.geometry)


def check_round(path: Path, labels: Path, label: int, least: float) -> None:
    """Draw the slice with most of the liver; segment; correct the slice with most errors; segment again."""
    with slicer_with_module() as (host, loaded):
        clinician = Clinician(host, loaded)
        truth = truth_of(host.scene, labels, label)
        first = int(truth.sum(axis=(1, 2)).argmax())
        one_slice = np.zeros_like(truth)
        one_slice[first] = truth[first]
        scan = clinician.load(path)
        volume = volume_from_node(scan)
        drawing = clinician.draw("liver", one_slice)
        result = clinician.run(clinician.ui.applyButton)
        found = liver_of(result, volume)
        assert result.GetName() == f"{scan.GetName()} segmented" and result is not drawing
        assert np.allclose(lattice_of(result), volume.geometry.affine(), atol=1e-4), "it lies on the scan's own voxels"
        assert np.array_equal(found[first], truth[first]), "the drawn slice stays as it was drawn"
        assert dice(found, truth) > least

        corrected = found.copy()
        worst = int((found != truth).sum(axis=(1, 2)).argmax())
        corrected[worst] = truth[worst]
        clinician.correct(0, corrected)
        again = liver_of(clinician.run(clinician.ui.reuseButton), volume)
        host.process_events()
        print(f"{path.name}: Dice {dice(found, truth):.3f}, slice {worst} corrected: {dice(again, truth):.3f}")
        others = np.arange(len(truth)) != worst
        assert dice(again, truth) > dice(found, truth)
        assert dice(again[others], truth[others]) > dice(found[others], truth[others]) - 0.01, "not at the cost of the others"
        assert np.array_equal(again[worst], truth[worst]) and np.array_equal(again[first], truth[first])
        assert np.array_equal(mask_in(drawing, drawing.GetSegmentation().GetNthSegmentID(0), volume.geometry), one_slice)
        assert host.errors == [] and host.slot_errors == []


def lattice_of(node: Any) -> np.ndarray:
    """(4, 4) matrix from a result's voxel indices to world LPS mm."""
    labels = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    matrix = vtk_matrix(np.eye(4))
    labels.GetImageToWorldMatrix(matrix)
    return RAS_TO_LPS @ array_of(matrix)


def test_on_an_invented_patient(tmp_path: Path) -> None:
    patient = make_patient(1, shape=(12, 128, 128))
    scan, labels = tmp_path / "Abdomen.nii.gz", tmp_path / "Truth.nii.gz"
    patient.volume.write(scan)
    replace(patient.volume, array=patient.labels.astype(np.uint8)).write(labels)
    check_round(scan, labels, ORGANS[0].label, least=0.6)


def test_on_a_real_scan(shared_dir: Path) -> None:
    """A left-handed one; with the whole liver's Dice from one drawn slice."""
    folder = shared_dir / "data" / "chaos_t2"
    if not folder.is_dir():
        pytest.skip("chaos_t2 is absent")
    check_round(folder / "01_image.nii.gz", folder / "01_label.nii.gz", 1, least=0.65)
