"""How far a job is, how long it still takes, and whether the user wants it to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from FewShotSegLib.errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """A moment of a job: done fraction 0..1, what is being done, and the estimated seconds left (NaN at the start)."""

    fraction: float
    stage: str
    seconds_left: float


OnProgress = Callable[[Progress], None]
ShouldCancel = Callable[[], bool]


class Reporter:
    """Turns the steps of a job's stages into `Progress` calls, and a cancel request into `Cancelled`.

    `weights` gives each stage's expected share of the time, in the order of the stages.
    """

    def __init__(
        self, weights: Mapping[str, float], on_progress: OnProgress | None = None, should_cancel: ShouldCancel | None = None
    ) -> None:
        self._weights, self._total = dict(weights), sum(weights.values())
        self._on_progress, self._should_cancel = on_progress, should_cancel
        self._started, self._done = time.monotonic(), 0.0

    def step(self, stage: str, part: float) -> None:
        """Report that `part` (0..1) of `stage` is done; raises Cancelled when the user asked for it."""
        if self._should_cancel is not None and self._should_cancel():
            raise Cancelled()
        stages = list(self._weights)
        before = sum(self._weights[name] for name in stages[: stages.index(stage)])
        self._done = max(self._done, min(1.0, (before + self._weights[stage] * part) / self._total))
        if self._on_progress is not None:
            self._on_progress(Progress(self._done, stage, self._seconds_left()))

    def _seconds_left(self) -> float:
        spent = time.monotonic() - self._started
        return spent * (1 - self._done) / self._done if self._done > 0.02 else float("nan")
