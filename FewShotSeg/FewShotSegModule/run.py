"""One job from Apply to its last node: everything on the main thread is done here, in steps that a timer takes."""

import logging
import math
import time
from dataclasses import dataclass, field

from slicer.i18n import tr as _

from FewShotSegModule import results, texts
from FewShotSegModule.plan import plan

STEP_SECONDS = 0.03  # what the timer may spend on small steps before it gives the panel its turn


@dataclass
class State:
    """What the panel shows of a job.

    fraction: 0..1 of all queries; seconds_left: NaN when not known; stage: what is being done.
    nodes: results, in order; problems: messages of what failed; cancelled.
    waiting: names of the scans whose first result is unsure, so that they are segmented once more at the end.
    notes: warnings of the library, and the names of the scans that each is about.
    """

    fraction: float = 0.0
    seconds_left: float = math.nan
    stage: str = ""
    nodes: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    waiting: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)
    cancelled: bool = False


class Run:
    """Does a request. `advance` again and again until `running` is False; results appear in the scene meanwhile."""

    def __init__(self, request, runner):
        self.request, self.state, self.running = request, State(stage=_("Reading the scans")), True
        self._runner, self._steps = runner, self._work()
        self._before, self._stop, self._started = 0, False, time.monotonic()

    def advance(self):
        """Go on for a moment; returns whether there is more to do.

        Raises:
            FewShotSegError: nothing can be segmented. The run has then ended.
        """
        until = time.monotonic() + STEP_SECONDS
        try:
            while next(self._steps) is not WAIT and time.monotonic() < until:
                pass
        except StopIteration:
            self.running = False
        except BaseException:
            self.close()
            raise
        return self.running

    def cancel(self):
        """Ask for the end; it comes with one of the next steps."""
        self._stop = True
        if self._runner.running:
            self._runner.cancel()

    def close(self):
        """End at once, for instance because the scene is closed. Nothing more is written."""
        self.running = False
        self._steps.close()
        self._runner.close()

    def _work(self):
        """The whole run; yields WAIT when there is nothing to do but wait."""
        tasks = yield from plan(self.request)
        for task in tasks:
            if self._stop:
                break
            yield from self._do(task)
            self._before += len(task.nodes)
        self.state.cancelled = self._stop and len(self.state.nodes) < len(self.request.queries)
        if not self._stop:
            self.state.fraction = 1.0

    def _do(self, task):
        self._runner.start(task.job)
        while self._runner.running:
            for event in self._runner.poll():
                yield from self._handle(event, task)
            yield WAIT

    def _handle(self, event, task):
        """Take one event of the runner in."""
        from FewShotSegLib.background import CancelledEvent, FailedEvent, ProgressEvent, ResultEvent, UnsureEvent

        if isinstance(event, ProgressEvent):
            self._tell(event, task)
        elif isinstance(event, ResultEvent):
            yield from self._write(event, task)
        elif isinstance(event, UnsureEvent):
            self.state.waiting.append(task.nodes[event.query_index].GetName())
        elif isinstance(event, FailedEvent):
            self.state.problems.append(_with_name(event, task))
        elif isinstance(event, CancelledEvent):
            self._stop = True

    def _tell(self, event, task):
        whole, count = len(self.request.queries), len(task.nodes)
        self.state.fraction = fraction = (self._before + event.fraction * count) / whole
        self.state.stage = f"{task.nodes[event.query_index].GetName()}: {texts.stage_text(event.stage)}"
        is_all = count == whole
        spent = time.monotonic() - self._started
        self.state.seconds_left = event.seconds_left if is_all or fraction < 0.02 else spent * (1 - fraction) / fraction

    def _write(self, event, task):
        from FewShotSegLib.errors import FewShotSegError

        node, support = task.nodes[event.query_index], task.job.supports[0]
        own = task.job.queries[event.query_index] is support.image
        try:
            written = yield from results.write(event.segmentation, node, support.drawn if own else None)
        except FewShotSegError as error:
            self.state.problems.append(str(error))
            return
        self.state.nodes.append(written)
        if node.GetName() in self.state.waiting:
            self.state.waiting.remove(node.GetName())
        for note in event.segmentation.notes:
            self.state.notes.setdefault(note, []).append(node.GetName())
        logging.info(f"FewShotSeg: {written.GetName()} in {event.segmentation.seconds:.1f} s")


WAIT = object()


def _with_name(event, task):
    """A failure's message, after the name of the scan where it concerns one of several."""
    if event.query_index is None or len(task.nodes) == 1:
        return event.message
    return f"{task.nodes[event.query_index].GetName()}: {event.message}"
