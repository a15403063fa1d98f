"""The choice of method and checkpoint: only what is on this computer, with the licence of what is chosen."""

import ctk
from slicer.i18n import tr as _

from FewShotSegModule import checkpoints
from FewShotSegModule.parameters import METHODS


class NetworkInputs:
    """Shows method and checkpoint of the parameters, and writes into them what the user chooses.

    Listed are the methods for which there is a checkpoint.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui):
        self._ui, self._parameters, self._showing = ui, None, False
        self._cards = checkpoints.list_cards()
        self._methods = checkpoints.usable_methods(self._cards.values(), METHODS)
        for box, names in ((ui.checkpointComboBox, self._cards), (ui.methodComboBox, self._methods)):
            for name in names:
                box.addItem(name)
        ui.ownCheckpointPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        ui.ownCheckpointPathLineEdit.nameFilters = ["*.safetensors"]
        ui.checkpointComboBox.connect("currentIndexChanged(int)", self._on_checkpoint)
        ui.methodComboBox.connect("currentIndexChanged(int)", self._on_method)
        ui.ownCheckpointPathLineEdit.connect("currentPathChanged(QString)", self._on_own_checkpoint)

    def show(self, parameters):
        """Show a parameter node; None: keep what is shown."""
        self._parameters, self._showing = parameters, True
        try:
            if parameters is not None:
                self._show()
        finally:
            self._showing = False

    def why_not_ready(self):
        """Why a job cannot be started with this choice, "" when it can."""
        method, name = self._parameters.method, self._checkpoint()
        if method not in self._methods:
            return _("There is no checkpoint for the method {method} on this computer: choose another.").format(method=method)
        if self._parameters.ownCheckpoint:
            return ""
        if name not in self._cards:
            return _("The checkpoint {name} is not on this computer: choose another.").format(name=name)
        if method not in checkpoints.usable_methods([self._cards[name]], METHODS):
            text = _("The checkpoint {name} is not for the method {method}: choose another checkpoint or method.")
            return text.format(name=name, method=method)
        return ""

    def _show(self):
        ui, own = self._ui, self._parameters.ownCheckpoint
        _choose(ui.methodComboBox, self._methods, self._parameters.method)
        _choose(ui.checkpointComboBox, list(self._cards), self._checkpoint())
        ui.checkpointComboBox.enabled = not own
        if ui.ownCheckpointPathLineEdit.currentPath != own:
            ui.ownCheckpointPathLineEdit.currentPath = own
        card = checkpoints.own_card(own) if own else self._cards.get(self._checkpoint())
        ui.licenceLabel.text = checkpoints.licence_text(card) if own or card is not None else self.why_not_ready()

    def _checkpoint(self):
        """Name of the checkpoint that would be used, without an own one."""
        from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT

        return self._parameters.checkpoint or DEFAULT_CHECKPOINT

    def _on_method(self, index):
        if self._parameters is not None and not self._showing and index >= 0:
            self._parameters.method = self._methods[index]

    def _on_checkpoint(self, index):
        if self._parameters is not None and not self._showing and index >= 0:
            self._parameters.checkpoint = list(self._cards)[index]

    def _on_own_checkpoint(self, path):
        if self._parameters is not None and not self._showing:
            self._parameters.ownCheckpoint = path


def _choose(box, names, name):
    """Show a name in a combo box; nothing where it is not among them."""
    box.currentIndex = names.index(name) if name in names else -1
