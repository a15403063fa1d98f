"""The panel: what the user sees and clicks. It shows the parameter node and hands the work to the logic."""

import sys

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from FewShotSegLib.errors import FewShotSegError
from FewShotSegModule import buttons, results, texts
from FewShotSegModule.editor import DrawingEditor, new_drawing
from FewShotSegModule.inputs import Inputs, first_scan
from FewShotSegModule.lists import ResultList
from FewShotSegModule.logic import FewShotSegLogic
from FewShotSegModule.network import NetworkInputs
from FewShotSegModule.parameters import connect, keep_options, options_of

POLL_MS = 50
OWN_PACKAGES = ("FewShotSegModule", "FewShotSegLib")


class FewShotSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = self._parameters = self._tag = None
        self._shown3D, self._kept = None, {}
        self._entered = self._starting = self._updating = False

    # ---- life

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/FewShotSeg.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = FewShotSegLogic()
        self._inputs, self._network = Inputs(self.ui, self._update), NetworkInputs(self.ui)
        self._results = ResultList(self.ui.resultsTable, self._onResultClicked)
        self._editor = DrawingEditor(self.ui.editorSection.layout())
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._onTimer)
        self._connect()
        self._observeScene()
        self.initializeParameterNode()

    def _connect(self):
        ui = self.ui
        ui.applyButton.connect("clicked(bool)", self.onApply)
        ui.cancelButton.connect("clicked(bool)", self.onCancel)
        ui.drawButton.connect("clicked(bool)", self.onDraw)
        ui.correctButton.connect("clicked(bool)", self.onCorrect)
        ui.reuseButton.connect("clicked(bool)", self.onReuse)
        ui.editorSection.connect("contentsCollapsed(bool)", self._onEditorCollapsed)

    def _observeScene(self):
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeRemovedEvent, self._onNodeRemoved)

    def enter(self):
        self._entered = True
        self.initializeParameterNode()

    def exit(self):
        self._entered = False
        self._editor.stop()

    def cleanup(self):
        self._timer.stop()
        self.logic.close()
        self._editor.close()
        self._setParameters(None)
        self.removeObservers()

    def onReload(self):
        """Reload and Test reads the files beside this one anew, too."""
        for name in [name for name in sys.modules if name.split(".")[0] in OWN_PACKAGES]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller=None, event=None):
        self._timer.stop()
        self.logic.close()
        self._editor.close()
        self._kept = options_of(self._parameters)
        self.ui.editorSection.collapsed = True
        self._setParameters(None)
        self._results.show(None)
        self._say("")

    def onSceneEndClose(self, caller=None, event=None):
        if self._entered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller=None, event=None):
        self._shown3D, self._kept = None, {}  # the options of the scene that was loaded
        self._setParameters(None)
        self.initializeParameterNode()

    def _onNodeRemoved(self, caller=None, event=None):
        if not slicer.mrmlScene.IsClosing() and len(self._results.rows):
            self._results.show(slicer.mrmlScene)
            self._update()

    # ---- parameters

    def initializeParameterNode(self):
        """Connect the panel to the scene's parameter node, if it is not; without a scan to draw on, the first one is chosen."""
        if self._parameters is None:
            parameters = self.logic.getParameterNode()
            keep_options(parameters, self._kept)
            self._kept = {}
            self._setParameters(parameters)
        if self._parameters.supportVolume is None:
            self._parameters.supportVolume = first_scan()
        self._results.show(slicer.mrmlScene)
        self._update()

    def _setParameters(self, parameters):
        if self._parameters is not None:
            self._parameters.disconnectGui(self._tag)
            self.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._update)
        self._parameters = parameters
        if parameters is not None:
            self._tag = connect(parameters, self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self._update)
        self._update()

    # ---- showing

    def _update(self, caller=None, event=None):
        """Show the parameters, and what can be done now."""
        if self._updating:
            return
        self._updating = True
        try:
            self._showInputs()
            self._showButtons()
        finally:
            self._updating = False

    def _showInputs(self):
        parameters = self._parameters
        self._inputs.show(parameters)
        self._network.show(parameters)
        if parameters is not None and parameters.show3D != self._shown3D:
            self._shown3D = parameters.show3D
            results.show_in_3d(slicer.mrmlScene, parameters.show3D)

    def _showButtons(self):
        running = self.logic.running
        buttons.show(self.ui, self._whyNotReady(), running, running or self._starting, self._results.selected is not None)

    def _whyNotReady(self):
        if self._parameters is None:
            return _("The scene is being closed.")
        if self._starting:
            return _("A job is being prepared.")
        return self.logic.whyNotReady(self._parameters) or self._network.why_not_ready()

    def _say(self, text):
        self.ui.statusLabel.text = text

    # ---- drawing

    def onDraw(self, checked=False):
        """Open the editor on the drawing, a new one where none is chosen."""
        if self._parameters.supportVolume is None:
            self._say(_("Load a scan and choose it, then draw."))
            return
        if self._parameters.supportSegmentation is None:
            self._parameters.supportSegmentation = new_drawing(self._parameters.supportVolume)
        self._edit(self._parameters.supportSegmentation, self._parameters.supportVolume)

    def onCorrect(self, checked=False):
        """Open the editor on the chosen result."""
        row = self._results.selected
        results.go_to(row)
        self._edit(row.node, results.query_of(row.node))

    def _edit(self, segmentation, volume):
        self._updating = True
        self.ui.editorSection.collapsed = False
        self._updating = False
        self._editor.edit(segmentation, volume)

    def _onEditorCollapsed(self, collapsed):
        if collapsed:
            self._editor.stop()
        elif not self._updating and self._parameters is not None:
            self.onDraw()

    # ---- jobs

    def onApply(self, checked=False):
        self._begin()

    def onReuse(self, checked=False):
        """The chosen result, as it has been corrected, becomes the drawing of a new job."""
        self._begin(self._results.selected.node)

    def _begin(self, corrected=None):
        """Install what is missing, with consent, and start; after a corrected result where one is given."""
        self._starting = True
        self._update()
        try:
            with slicer.util.tryWithErrorDisplay(_("The segmentation could not be started.")):
                self._start(corrected)
        finally:
            self._starting = False
            self._update()

    def _start(self, corrected):
        try:
            self._say(_("Looking for the Python packages ..."))
            self.logic.install(self.resourcePath("requirements.txt"))
            if self._parameters is None:  # the scene was closed while packages were being installed
                return
            if corrected is not None:
                self.logic.useAsSupport(self._parameters, corrected)
            self.logic.start(self._parameters)
        except FewShotSegError as error:
            self._say(texts.error_text(error))
            return
        self.ui.progressBar.value = 0
        self._timer.start()

    def onCancel(self, checked=False):
        self.logic.cancel()
        self._say(_("Cancelling ..."))

    def _onTimer(self):
        """Take the running job a step further, and show how far it is."""
        run, before = self.logic.run, len(self.logic.run.state.nodes)
        with slicer.util.tryWithErrorDisplay(_("The segmentation failed.")):
            try:
                self.logic.advance()
            except FewShotSegError as error:
                run.state.problems.append(str(error))
        state = run.state
        self.ui.progressBar.value = int(100 * state.fraction)
        if len(state.nodes) != before:
            self._results.show(slicer.mrmlScene)
            results.show_in_3d(slicer.mrmlScene, self._parameters.show3D)
        if run.running:
            self._say(texts.progress_text(state))
        else:
            self._timer.stop()
            self._say(texts.outcome_text(state, len(run.request.queries)))
            self._update()

    def _onResultClicked(self, row):
        results.go_to(row)
        self._update()
