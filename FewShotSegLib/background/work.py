"""The work of a job, wherever it runs: one query after the other, everything that goes wrong told as an event."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from FewShotSegLib.background.events import (
    CancelledEvent,
    DoneEvent,
    Event,
    FailedEvent,
    Job,
    ProgressEvent,
    ResultEvent,
    UnsureEvent,
)
from FewShotSegLib.errors import Cancelled, FewShotSegError
from FewShotSegLib.progress import Progress, ShouldCancel
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.support import Support

if TYPE_CHECKING:
    from FewShotSegLib.relays import ScanList
    from FewShotSegLib.segmenter import Segmenter

LOADING = "loading the model"
EVERY_S = 0.1  # seconds between progress events

logger = logging.getLogger(__name__)


class Worker:
    """Keeps the model and the encoded supports from job to job."""

    def __init__(self) -> None:
        self._config: SegmenterConfig | None = None
        self._segmenter: Segmenter | None = None
        self._supports: tuple[Support, ...] = ()
        self.healthy = True
        """False after an error that nobody foresaw: a process should not be used again, CUDA may be unusable in it."""

    def run(self, job: Job, emit: Callable[[Event], None], should_cancel: ShouldCancel) -> None:
        """Do a job; `emit` gets its events, the last one included."""
        try:
            emit(self._run(job, emit, should_cancel))
        except Cancelled:
            emit(CancelledEvent())
        except BaseException as error:
            emit(FailedEvent(None, self._message(error)))

    def _run(self, job: Job, emit: Callable[[Event], None], should_cancel: ShouldCancel) -> Event:
        emit(ProgressEvent(0, LOADING, 0.0, math.nan))
        self._load(job.config)
        _stop_if(should_cancel)
        self._supports = tuple(_known(support, self._supports) for support in job.supports)
        course = _Course(job, self._list(len(job.queries)), _Clock(len(job.queries), emit), emit, should_cancel)
        try:
            for index in range(len(job.queries)):
                try:
                    course.first(index)
                except Cancelled:
                    raise
                except Exception as error:
                    emit(FailedEvent(index, self._message(error)))
                    self._load(job.config)
                    course.scans.segmenter = self._ready
                course.clock.next(more=index in course.unsure)
            self._again(course)
        finally:
            course.end()
        return DoneEvent()

    def _again(self, course: _Course) -> None:
        """Segment unsure scans again; where that goes wrong, they keep their first results."""
        for index in filter(course.scans.can_help, course.scans.unsure):
            try:
                course.again(index)
            except Cancelled:
                raise
            except Exception as error:
                logger.warning("An unsure scan keeps its first result: %s", self._message(error))
                if self._segmenter is None:
                    return
            course.clock.next()

    def _load(self, config: SegmenterConfig) -> None:
        """Make the segmenter ready for this configuration."""
        from FewShotSegLib.segmenter import Segmenter

        if self._segmenter is None or config != self._config:
            self._segmenter = None  # first: two models may not fit
            self._segmenter, self._config = Segmenter(config), config

    @property
    def _ready(self) -> Segmenter:
        assert self._segmenter is not None
        return self._segmenter

    def _list(self, count: int) -> ScanList:
        from FewShotSegLib.relays import ScanList

        return ScanList(self._ready, self._supports, count)

    def _message(self, error: BaseException) -> str:
        if isinstance(error, FewShotSegError):
            return str(error)
        self._segmenter, self.healthy = None, False
        logger.error("Unexpected error", exc_info=error)
        if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
            return f"The memory was not enough ({str(error).splitlines()[0] if str(error) else 'MemoryError'}). {ROOM}"
        if isinstance(error, ImportError):
            return f"A Python package is missing: {error}. What to do: install it, and try again."
        return f"Unexpected error, {type(error).__name__}: {error}. What to do: try again; if it comes back, report it."


ROOM = "What to do: close other programs or scans, crop the scan, or choose the device 'cpu', and try again."


@dataclass(eq=False)
class _Course:
    """A job on its way; `unsure`: first results that wait for a second one."""

    job: Job
    scans: ScanList
    clock: _Clock
    emit: Callable[[Event], None]
    should_cancel: ShouldCancel
    unsure: dict[int, Segmentation] = field(default_factory=dict)

    def first(self, index: int) -> None:
        """Segment a query after the drawings; of an unsure result only that is told."""
        _stop_if(self.should_cancel)
        done = self.scans.first(index, self.job.queries[index], progress=self.clock.tell, cancel=self.should_cancel)
        if index in self.scans.unsure:
            self.unsure[index] = done
            self.emit(UnsureEvent(index))
        else:
            self.emit(ResultEvent(index, done))

    def again(self, index: int) -> None:
        """Segment an unsure query after the surest results, too."""
        self.clock.turn_to(index)
        done = self.scans.again(index, self.job.queries[index], progress=self.clock.tell, cancel=self.should_cancel)
        first = self.unsure.pop(index)
        self.emit(ResultEvent(index, first if done is None else done))

    def end(self) -> None:
        """Tell what still waits."""
        for index, done in self.unsure.items():
            self.emit(ResultEvent(index, done))


class _Clock:
    """Progress of one query as progress of the whole job, which never goes back; not oftener than anybody reads."""

    def __init__(self, count: int, emit: Callable[[Event], None]) -> None:
        self._count, self._emit = count, emit
        self._query, self._done, self._fraction, self._told = 0, 0, 0.0, -math.inf
        self._started = self._begun = time.monotonic()

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._told < EVERY_S:
            return
        self._told = now
        mean = (self._begun - self._started) / self._done if self._done else now - self._begun + progress.seconds_left
        left = progress.seconds_left + mean * (self._count - self._done - 1)
        self._fraction = max(self._fraction, (self._done + progress.fraction) / self._count)
        self._emit(ProgressEvent(self._query, progress.stage, self._fraction, left))

    def next(self, *, more: bool = False) -> None:
        """A query is segmented; `more`: it will be once more."""
        self._count += more
        self._query, self._done, self._begun = self._query + 1, self._done + 1, time.monotonic()

    def turn_to(self, query: int) -> None:
        """The next to be segmented is this query."""
        self._query = query


def _stop_if(should_cancel: ShouldCancel) -> None:
    if should_cancel():
        raise Cancelled()


def _known(support: Support, before: Sequence[Support]) -> Support:
    """The same support of the job before, whose encoding is kept by identity, where there is one."""
    return next((known for known in before if _same(support, known)), support)


def _same(one: Support, other: Support) -> bool:
    return one is other or (
        one.organs == other.organs
        and one.image.geometry == other.image.geometry
        and one.image.modality == other.image.modality
        and np.array_equal(one.drawn, other.drawn)
        and np.array_equal(one.masks, other.masks)
        and np.array_equal(one.image.array, other.image.array)
    )
