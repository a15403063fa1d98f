"""Segmentation in the background, for panels: `start` a job, `poll` for events with a timer, `cancel`. No Qt, no MRML, no torch.

`ProcessRunner` works in a process of its own: nothing that goes wrong there, a crash or a full memory included, harms the
application. `ThreadRunner` has the same interface, for tests and for where no process may be started; importing torch there
holds up the other threads for moments.
"""

from FewShotSegLib.background.events import (
    CancelledEvent,
    DoneEvent,
    Event,
    FailedEvent,
    Job,
    ProgressEvent,
    ResultEvent,
    Runner,
    UnsureEvent,
)
from FewShotSegLib.background.process import ProcessRunner
from FewShotSegLib.background.thread import ThreadRunner

__all__ = [
    "CancelledEvent",
    "DoneEvent",
    "Event",
    "FailedEvent",
    "Job",
    "ProcessRunner",
    "ProgressEvent",
    "ResultEvent",
    "Runner",
    "ThreadRunner",
    "UnsureEvent",
]
