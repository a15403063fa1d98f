"""What goes to a runner, a `Job`, and what comes back, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume


@dataclass(frozen=True, eq=False)
class Job:
    """Segment every query after the supports. A query that is the image of a support: the rest of this scan."""

    supports: tuple[Support, ...]
    queries: tuple[Volume, ...]
    config: SegmenterConfig = field(default_factory=SegmenterConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "supports", tuple(self.supports))
        object.__setattr__(self, "queries", tuple(self.queries))


@dataclass(frozen=True)
class ProgressEvent:
    """Which query is worked on and how, the done fraction of the whole job 0..1, and its estimated seconds left (or NaN)."""

    query_index: int
    stage: str
    fraction: float
    seconds_left: float


@dataclass(frozen=True, eq=False)
class ResultEvent:
    """A query is segmented."""

    query_index: int
    segmentation: Segmentation


@dataclass(frozen=True)
class UnsureEvent:
    """A query's first result is unsure: it is segmented once more when the others are through, and has its result then."""

    query_index: int


@dataclass(frozen=True)
class FailedEvent:
    """A query failed, the others go on; or, with None, the job ended. The message is for the user."""

    query_index: int | None
    message: str


@dataclass(frozen=True)
class DoneEvent:
    """The job ended: every query has had its result or its failure."""


@dataclass(frozen=True)
class CancelledEvent:
    """The job ended because the user wanted it. Results that came before stay good."""


Event = ProgressEvent | ResultEvent | UnsureEvent | FailedEvent | DoneEvent | CancelledEvent


def is_last(event: Event) -> bool:
    """Whether the job has ended with this event; every job ends with exactly one."""
    return isinstance(event, DoneEvent | CancelledEvent) or (isinstance(event, FailedEvent) and event.query_index is None)


class Runner(Protocol):
    """Runs one job at a time. All calls return at once, so that a panel may make them; call them from one thread."""

    @property
    def running(self) -> bool:
        """From `start` until `poll` has handed out the job's last event."""
        ...

    def start(self, job: Job) -> None:
        """Begin; RuntimeError while another job runs."""
        ...

    def poll(self) -> list[Event]:
        """What has happened since the last call, in order."""
        ...

    def cancel(self) -> None:
        """Ask the job to end. A `CancelledEvent` follows, or another last event that was on its way."""
        ...

    def close(self) -> None:
        """End whatever runs and give memory back; the runner may be started again."""
        ...
