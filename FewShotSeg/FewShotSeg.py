"""Few-shot segmentation in 3D Slicer: draw an organ once, segment it in the rest of the scan and in new scans.

The parts lie in FewShotSegModule: `widget` the panel, `logic` what it does. The work itself is done by FewShotSegLib.
"""

import slicer
from FewShotSegModule import sample_data
from FewShotSegModule.logic import FewShotSegLogic
from FewShotSegModule.selftest import FewShotSegTest
from FewShotSegModule.widget import FewShotSegWidget
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

__all__ = ["FewShotSeg", "FewShotSegLogic", "FewShotSegTest", "FewShotSegWidget"]


class FewShotSeg(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Few-Shot Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations"]
        self.parent.contributors = ["The FewShotSeg contributors"]
        self.parent.helpText = _("""<p>Draw an organ once, on one slice or on all; it is segmented in the rest of that scan and in
every new scan of the same kind. No training, no labelled data; works on the CPU and on a GPU.</p>
<ol>
<li><b>Draw:</b> choose the scan, press <i>Draw here</i>, and paint the organ completely on one slice.</li>
<li><b>Segment:</b> choose the rest of the drawn scan, other scans, or both, and press <i>Apply</i>. The first time, Slicer asks
whether it may download the packages that are missing; scans never leave this computer.</li>
<li><b>Results:</b> every scan gets a new segmentation. The list begins with what is least sure; a click shows it. <i>Correct</i>
what is wrong on a slice or two, then <i>Use as new drawing and run again</i>.</li>
</ol>
<p>The bundled network is licensed for research only; the panel shows the licence of the one that is chosen. Not a medical
device.</p>""")
        self.parent.acknowledgementText = _("""<p>The bundled network learned without labels from scans of CHAOS, BTCV, MS-CMRSeg
and ACDC, under the terms of these data sets; it started from a ResNet trained on ImageNet. If you use this module in a
publication, please name FewShotSeg and its version.</p>""")
        slicer.app.connect("startupCompleted()", sample_data.register)
