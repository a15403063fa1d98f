"""Apply, Cancel, and what becomes of the results of a session."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from FewShotSegLib.app.jobs import Jobs, progress_state
from FewShotSegLib.app.results import Result
from FewShotSegLib.app.scans import Scan
from FewShotSegLib.app.state import result_row
from FewShotSegLib.background import CancelledEvent, Event, FailedEvent, Job, ProgressEvent, ResultEvent, UnsureEvent
from FewShotSegLib.errors import FewShotSegError
from FewShotSegLib.mrml import show_segmentation, support_from_nodes, volume_from_node
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.support import Slices, Support

if TYPE_CHECKING:
    from FewShotSegLib.app.session_page import SessionPage


@dataclass(frozen=True)
class Task:
    """What Apply is to do: an example, drawn on the scan `on`, and the scans to segment after it, `on` perhaps among them.

    `drawn` are the slices of `on` that the user has drawn or corrected.
    """

    support: Support
    on: Scan
    scans: tuple[Scan, ...]
    drawn: tuple[int, ...]


class Running:
    """What Apply, Cancel and the buttons of a result do."""

    def __init__(self, page: SessionPage, jobs: Jobs) -> None:
        self.page, self.state, self.jobs = page, page.state, jobs
        self.results: list[Result] = []
        self._has_shown = False
        self._numbers = itertools.count(1)

    def apply(self) -> None:
        """Segment every scan of the list after the drawing."""
        if not self.state.why:
            self._begin(self._from_drawing)

    def again(self, result_id: str) -> None:
        """Segment the same scan again: what the user corrected, and what the result was sure of, teaches the rest."""
        self._begin(lambda: self._from_result(self.result(result_id)))

    def use_as_example(self, result_id: str) -> None:
        """The corrected result becomes the drawing; its scan leaves the list of those to segment."""
        result, page = self.result(result_id), self.page
        self.results.remove(result)
        page.queries = [scan for scan in page.queries if scan is not result.scan]
        page.support = result.scan
        page.replace_drawing(result.node)
        self.state.update({"support": result.scan.shown(), "queries": [scan.shown() for scan in page.queries]})
        self.state.update({"drawn_whole": True, "own_scan": False, "panel": "scans"})
        self._show_rows()
        page.refresh()
        page.say(f"{result.scan.name} is the example now. Load the scans to segment after it, and press Apply.")

    def cancel(self) -> None:
        """Stop the job."""
        self.jobs.cancel()
        self.state.stage = "Stopping…"

    def drop(self, results: list[Result]) -> None:
        """Forget results."""
        for result in results:
            self.results.remove(result)
            self.page.viewer.scene.RemoveNode(result.node)
        self._show_rows()

    def result(self, result_id: str) -> Result:
        """A result by its id."""
        return next(result for result in self.results if result.id == result_id)

    def _from_drawing(self) -> Task:
        page, state = self.page, self.state
        assert page.support is not None
        drawn = sorted({k for organ in page.drawn_organs() for k in organ.slices})
        slices: Slices = "all" if state.drawn_whole else drawn
        support = support_from_nodes(page.support.node, page.support_drawing, slices=slices)
        own = (page.support,) if state.own_scan and not state.drawn_whole else ()
        return Task(support, page.support, (*own, *page.queries), tuple(drawn))

    def _from_result(self, result: Result) -> Task:
        corrected = result.corrected_slices()
        if not corrected:
            raise FewShotSegError(
                "Nothing was corrected", "a slice that you painted or erased on", "correct a slice, and run again"
            )
        slices = result.settled_slices(corrected)
        support = support_from_nodes(result.scan.node, result.node, slices=slices)
        return Task(support, result.scan, (result.scan,), tuple(sorted({*result.drawn, *corrected})))

    def _begin(self, prepare: Callable[[], Task]) -> None:
        """Start a task, if none runs."""
        if self.state.busy:
            return
        with self.state as state:
            state.update({"busy": True, "progress": 0, "stage": "Preparing…", "tool": "look", "message_open": False})
        self.page.start(self._guarded(prepare))

    async def _guarded(self, prepare: Callable[[], Task]) -> None:
        """Run a task; whatever goes wrong is said, and drawing and results stay as they are."""
        try:
            with self.page.telling("Apply"):
                await self._run(prepare())
        finally:
            with self.state as state:
                state.update({"busy": False, "stage": "", "waiting": [], "progress": 0})

    async def _run(self, task: Task) -> None:
        state, page = self.state, self.page
        self._has_shown = False
        names = [scan.name for scan in task.scans]
        queries = [task.support.image if scan is task.on else volume_from_node(scan.node) for scan in task.scans]
        config = SegmenterConfig(
            method=state.method,
            strategy=state.strategy,
            checkpoint=page.checkpoints[state.method],
            device=page.config.device,
        )

        def hear(event: Event) -> None:
            with state:
                self._hear(event, task, names)

        await self.jobs.run(Job((task.support,), tuple(queries), config), hear)

    def _hear(self, event: Event, task: Task, names: list[str]) -> None:
        if isinstance(event, ProgressEvent):
            self.state.update(progress_state(event, names))
        elif isinstance(event, UnsureEvent):
            self.state.waiting = [*self.state.waiting, names[event.query_index]]
        elif isinstance(event, ResultEvent):
            self._keep(task.scans[event.query_index], event, task)
        elif isinstance(event, FailedEvent):
            self.page.say(event.message, "error")
        elif isinstance(event, CancelledEvent):
            self.page.say("Stopped. The drawing is as it was.")

    def _keep(self, scan: Scan, event: ResultEvent, task: Task) -> None:
        """A result takes the place of the one before of the same scan; the first one to come is shown."""
        node = show_segmentation(event.segmentation, scan.node)
        drawn = task.drawn if scan is task.on else ()
        result = Result(f"result{next(self._numbers)}", scan, event.segmentation, node, drawn)
        old = [known for known in self.results if known.scan is scan]
        self.results.append(result)
        self.drop(old)
        if self.state.editing in {known.id for known in old}:
            self.page.edit("support")
        if self._has_shown:
            node.SetDisplayVisibility(False)  # another scan is looked at
        else:
            self._has_shown = True
            self.state.panel = "results"
            self.page.show(result.id)
        self.page.viewer.surfaces(node)

    def _show_rows(self) -> None:
        self.state.results = [
            result_row(r.id, r.scan.name, r.found, {"dicom": r.scan.series is not None, "own": r.scan is self.page.support})
            for r in self.results
        ]
