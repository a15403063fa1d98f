"""The self-test: runs with Slicer's ctest and with "Reload and Test", on generated data, in any order.

All tests but the last work without torch, on a runner that only pastes the drawing.
"""

import importlib.util
import unittest

import numpy as np
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from FewShotSegModule import corrections, results, sample_data
from FewShotSegModule.logic import FewShotSegLogic
from FewShotSegModule.parameters import Finished
from FewShotSegModule.pasting import PastingRunner

SHAPE = (8, 64, 64)
LIBRARY_NEEDS = ("torch", "torchvision", "einops", "safetensors", "platformdirs")


class FewShotSegTest(ScriptedLoadableModuleTest):
    """Tests of the logic on real nodes."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        """All tests, for Reload and Test; ctest runs them one by one."""
        for name in unittest.defaultTestLoader.getTestCaseNames(type(self)):
            self.setUp()
            self.delayDisplay(name)
            getattr(self, name)()

    def test_ApplyTellsWhyItIsDisabled(self):
        logic = FewShotSegLogic(PastingRunner())
        parameters = logic.getParameterNode()
        self.assertIn("scan", logic.whyNotReady(parameters))
        drawn, drawing, new = self._patients()
        parameters.supportVolume = drawn
        self.assertIn("segmentation", logic.whyNotReady(parameters))
        parameters.supportSegmentation = drawing
        self.assertEqual(logic.whyNotReady(parameters), "")
        parameters.sameScan = False
        self.assertIn("what to segment", logic.whyNotReady(parameters))
        parameters.queryVolumes = [new]
        self.assertEqual(logic.whyNotReady(parameters), "")
        parameters.excludedSegments = list(drawing.GetSegmentation().GetSegmentIDs())
        self.assertIn("segment", logic.whyNotReady(parameters))

    def test_ParametersAreSavedWithTheScene(self):
        drawn, drawing, new = self._patients()
        parameters = FewShotSegLogic().getParameterNode()
        parameters.supportVolume, parameters.supportSegmentation, parameters.queryVolumes = drawn, drawing, [new]
        parameters.finished, parameters.everyMm, parameters.method = Finished.DRAWN, 7.5, "alpnet"
        parameters.excludedSegments = ["Segment_2"]
        text = _scene_text()
        slicer.mrmlScene.Clear()
        _load_scene_text(text)
        again = FewShotSegLogic().getParameterNode()
        self.assertEqual(again.supportVolume.GetName(), drawn.GetName())
        self.assertEqual([node.GetName() for node in again.queryVolumes], [new.GetName()])
        self.assertEqual((again.finished, again.everyMm, again.method), (Finished.DRAWN, 7.5, "alpnet"))
        self.assertEqual(list(again.excludedSegments), ["Segment_2"])

    def test_ResultIsANewNodeLikeTheDrawing(self):
        drawn, drawing, new = self._patients()
        before = _voxels(drawing, drawn)
        _shift(new, 30.0)
        (result,) = self._process(PastingRunner(), drawn, drawing, [new])
        self.assertIsNot(result, drawing)
        self.assertIs(results.query_of(result), new)
        self.assertEqual(result.GetTransformNodeID(), new.GetTransformNodeID())
        self.assertEqual(_looks(result), _looks(drawing))
        np.testing.assert_array_equal(_voxels(result, new), before)
        np.testing.assert_array_equal(_voxels(drawing, drawn), before)

    def test_LeastSureIsListedFirst(self):
        drawn, drawing, new = self._patients()
        self._process(PastingRunner(confidence=(0.9, 0.5, float("nan"), 0.65)), drawn, drawing, [new])
        rows = results.rows(slicer.mrmlScene)
        self.assertEqual([row.percent for row in rows], ["–", "50 %", "65 %", "90 %"])
        self.assertEqual([row.is_low for row in rows], [True, True, False, False])
        self.assertIsNotNone(rows[-1].place)

    def test_OneDrawnSliceLeavesTheOthersOpen(self):
        drawn, drawing, _new = self._patients()
        k = _keep_one_slice(drawing, drawn)
        runner = PastingRunner()
        self._process(runner, drawn, drawing, [drawn])
        self.assertEqual(np.flatnonzero(runner.jobs[0].supports[0].drawn[0]).tolist(), [k])

    def test_CorrectedSlicesBecomeTheDrawing(self):
        drawn, drawing, _new = self._patients()
        k = _keep_one_slice(drawing, drawn)
        logic = FewShotSegLogic(PastingRunner())
        (result,) = self._process(None, drawn, drawing, [drawn], logic)
        parameters = logic.getParameterNode()
        name = result.GetSegmentation().GetNthSegmentID(0)
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(result, name, drawn).copy()
        mask[k - 1] = mask[k]
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, result, name, drawn)
        self.assertEqual(corrections.corrected_count(result, drawn), 1)
        self.assertEqual(logic.useAsSupport(parameters, result), 1)
        (again,) = logic.process(parameters)
        support = logic._given.jobs[-1].supports[0]
        self.assertEqual(np.flatnonzero(support.drawn[0]).tolist(), [k - 1, k])
        self.assertIsNot(again, result)
        self.assertFalse(result.GetDisplayNode().GetVisibility())

    def test_SegmentsAnInventedPatient(self):
        missing = [name for name in LIBRARY_NEEDS if importlib.util.find_spec(name) is None]
        if missing:
            self.skipTest(f"not installed: {', '.join(missing)}")
        drawn, drawing, new = self._patients((12, 96, 96))
        logic = FewShotSegLogic()
        try:
            (result,) = self._process(None, drawn, drawing, [new], logic)
        finally:
            logic.close()
        self.assertEqual(_looks(result), _looks(drawing))
        self.assertTrue(_voxels(result, new)[0].any(), "no liver was found")

    # ---- what the tests share

    def _patients(self, shape=SHAPE):
        return sample_data.load_patients(shape)

    def _process(self, runner, drawn, drawing, scans, logic=None):
        logic = logic or FewShotSegLogic(runner)
        parameters = logic.getParameterNode()
        parameters.supportVolume, parameters.supportSegmentation = drawn, drawing
        parameters.sameScan, parameters.queryVolumes = drawn in scans, [scan for scan in scans if scan is not drawn]
        return logic.process(parameters)


def _voxels(node, volume):
    """Bool (organ, z, y, x)"""
    names = node.GetSegmentation().GetSegmentIDs()
    return np.stack([slicer.util.arrayFromSegmentBinaryLabelmap(node, name, volume) for name in names]).astype(bool)


def _looks(node):
    """Name, colour and terminology of each segment."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    return [
        (
            segment.GetName(),
            tuple(round(part, 4) for part in segment.GetColor()),
            corrections.read_tag(segment, "TerminologyEntry"),
        )
        for segment in segments
    ]


def _keep_one_slice(node, volume):
    """Forget the drawing on all slices but one, where every organ is; its number."""
    masks = _voxels(node, volume)
    k = int(masks.any(axis=(2, 3)).sum(axis=0).argmax())
    for name, mask in zip(node.GetSegmentation().GetSegmentIDs(), masks, strict=True):
        one = np.zeros(mask.shape, np.uint8)
        one[k] = mask[k]
        slicer.util.updateSegmentBinaryLabelmapFromArray(one, node, name, volume)
    return k


def _shift(volume, millimetres):
    """Put a volume under a transform."""
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
    matrix = slicer.util.vtkMatrixFromArray(np.array([[1, 0, 0, millimetres], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())


def _scene_text():
    """The scene as it would be saved, without voxels."""
    scene = slicer.mrmlScene
    scene.SetSaveToXMLString(1)
    scene.Commit()
    scene.SetSaveToXMLString(0)
    return scene.GetSceneXMLString()


def _load_scene_text(text):
    scene = slicer.mrmlScene
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(text)
    scene.Import()
    scene.SetLoadFromXMLString(0)
