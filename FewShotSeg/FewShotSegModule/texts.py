"""What the panel says: errors in lines, times in words."""

import math

from slicer.i18n import tr as _


def error_text(error):
    """An error of the library, or a message of it: found, expected and what to do, each on its line."""
    return str(error).replace(" Expected: ", "\n" + _("Expected:") + " ").replace(" What to do: ", "\n" + _("What to do:") + " ")


def time_left(seconds):
    """The words for it, like "about 20 s left"; "" when it is not known."""
    if not math.isfinite(seconds):
        return ""
    if seconds < 60:
        return _("about {count} s left").format(count=max(1, math.ceil(seconds / 5) * 5))
    return _("about {count} min left").format(count=math.ceil(seconds / 60))


def stage_text(stage):
    """A stage of the library's work in the user's language; as it is, when it is not among the known ones."""
    known = {
        "starting": _("starting"),
        "loading the model": _("loading the model"),
        "encoding the support": _("looking at the drawing"),
        "encoding the scan": _("looking at the scan"),
        "finding the organs": _("finding the organs"),
    }
    return known.get(stage, stage)


def progress_text(state):
    """What a running job does, and how long it will take."""
    line = " – ".join(part for part in (state.stage, time_left(state.seconds_left)) if part)
    if not state.waiting:
        return line
    return f"{line}\n" + _("Unsure, looked at once more at the end: {scans}").format(scans=", ".join(state.waiting))


def outcome_text(state, queries):
    """What became of a job that ended."""
    done = len(state.nodes)
    if state.cancelled:
        lines = [_("Cancelled. {done} of {all} scans were segmented.").format(done=done, all=queries)]
    elif done == queries:
        lines = [_("Done. Check the results, beginning with the first of the list.")]
    else:
        lines = [_("{done} of {all} scans were segmented.").format(done=done, all=queries)]
    notes = [note if len(names) == queries else f"{', '.join(names)}: {note}" for note, names in state.notes.items()]
    return "\n".join([*lines, *map(error_text, state.problems), *notes])
