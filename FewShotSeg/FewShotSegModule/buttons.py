"""Which buttons of the panel can be pressed now, and, in their tool tips, why others cannot."""

from slicer.i18n import tr as _


def show(ui, reason, running, busy, chosen):
    """Enable and disable.

    Args:
        ui: the panel's widgets.
        reason: why no job can be started, "" when one can.
        running: whether a job is under way.
        busy: whether one is under way or being prepared.
        chosen: whether a row of the results is chosen.
    """
    ui.applyButton.enabled = not reason
    ui.applyButton.toolTip = reason or _("Segment: every scan gets a new segmentation, nothing that you drew is changed.")
    ui.cancelButton.enabled = running
    ui.progressBar.visible = running
    why = _("A job is running.") if busy else ("" if chosen else _("Choose a result in the list."))
    ui.correctButton.enabled = ui.reuseButton.enabled = not why
    ui.correctButton.toolTip = why or _("Change the chosen result in the Segment Editor above.")
    ui.reuseButton.toolTip = why or _("The slices that you corrected count as drawn; the rest is segmented again.")
