"""Few-shot segmentation in 3D Slicer: the module file. The work itself is done by FewShotSegLib."""

import qt
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

COMMAND = (
    "fewshotseg segment --support-image drawn-scan.nii.gz --support-labels Segmentation.seg.nrrd"
    " --query new-scan.nii.gz --output result.seg.nrrd"
)


class FewShotSeg(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Few-Shot Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The FewShotSeg contributors"]
        self.parent.helpText = _("Draw an organ once; segment it through the rest of that scan and through every new scan.")
        self.parent.acknowledgementText = ""


class FewShotSegWidget(ScriptedLoadableModuleWidget):
    """A page of instructions: segmenting from this panel comes with a later release."""

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = FewShotSegLogic()
        self.instructions = qt.QLabel(self.logic.instructions())
        self.instructions.wordWrap = True
        self.instructions.textInteractionFlags = qt.Qt.TextSelectableByMouse
        self.layout.addWidget(self.instructions)
        self.layout.addStretch(1)


class FewShotSegLogic(ScriptedLoadableModuleLogic):
    """The texts of the panel."""

    def instructions(self):
        """How to segment with the command line and bring the result back, as HTML."""
        steps = [
            _("Draw the organ in the Segment Editor, on one slice or on all, and save the scan and the segmentation."),
            _("In a terminal: {command}").format(command=f"<pre style='white-space: pre-wrap'>{COMMAND}</pre>"),
            _("Drag result.seg.nrrd into Slicer: segment names and colors are those of your drawing."),
        ]
        title = _("This release segments from the command line. Working from this panel is planned for a later release.")
        return f"<p>{title}</p><ol>{''.join(f'<li>{step}</li>' for step in steps)}</ol>"


class FewShotSegTest(ScriptedLoadableModuleTest):
    """Runs with Slicer's ctest and with "Reload and Test"."""

    def runTest(self):
        self.setUp()
        self.test_InstructionsShowTheCommand()

    def test_InstructionsShowTheCommand(self):
        text = FewShotSegLogic().instructions()
        self.assertIn(COMMAND, text)
        self.assertIn("later release", text)
