"""The panel in Slicer, from choosing to the list of results; runs with ctest in Slicer, and on the project's test host."""

import time
import unittest

import qt
import slicer
from FewShotSegModule import sample_data
from FewShotSegModule.logic import FewShotSegLogic
from FewShotSegModule.pasting import PastingRunner

TIMEOUT_SECONDS = 60


class FewShotSegPanelTest(unittest.TestCase):
    """Works without torch: the runner only pastes the drawing."""

    def setUp(self):
        slicer.mrmlScene.Clear()
        self.panel = panel()
        self.logic, self.panel.logic = self.panel.logic, FewShotSegLogic(PastingRunner())
        self.panel.enter()

    def tearDown(self):
        self.panel.logic.close()
        self.panel.logic = self.logic
        slicer.mrmlScene.Clear()

    def test_applyAndList(self):
        self.assertFalse(self.panel.ui.applyButton.enabled)
        drawn, drawing, new = sample_data.load_patients((8, 64, 64))
        self.panel.ui.supportVolumeSelector.setCurrentNode(drawn)
        self.panel.ui.supportSegmentationSelector.setCurrentNode(drawing)
        self.panel.ui.queryVolumesSelector.setCheckState(new, qt.Qt.Checked)
        self.assertTrue(self.panel.ui.applyButton.enabled, self.panel.ui.applyButton.toolTip)
        self.panel.ui.applyButton.click()
        self._wait(lambda: not self.panel.logic.running)
        self.assertEqual(self.panel.ui.resultsTable.rowCount, 2 * drawing.GetSegmentation().GetNumberOfSegments())

    def _wait(self, condition):
        end = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            self.assertLess(time.monotonic(), end, self.panel.ui.statusLabel.text)
            slicer.app.processEvents()
            time.sleep(0.01)


def panel():
    """The module's scripted widget."""
    widget = slicer.modules.fewshotseg.widgetRepresentation()
    return widget.self() if hasattr(widget, "self") else widget
