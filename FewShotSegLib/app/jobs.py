"""Running the model: a job in the background, whose events are handed over in the session's loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

from FewShotSegLib.app.config import AppConfig
from FewShotSegLib.background import Event, Job, ProcessRunner, ProgressEvent, Runner, ThreadRunner

POLL_S = 0.1


class Jobs:
    """One job at a time. The loop goes on while the model runs: nothing here waits."""

    def __init__(self, config: AppConfig, runner: Runner | None = None) -> None:
        self.runner: Runner = runner or (ProcessRunner() if config.runner == "process" else ThreadRunner())

    @property
    def running(self) -> bool:
        """Whether a job runs."""
        return self.runner.running

    async def run(self, job: Job, hear: Callable[[Event], None]) -> None:
        """Start a job and hand over its events, the last one included."""
        self.runner.start(job)
        while self.runner.running:
            for event in self.runner.poll():
                hear(event)
            await asyncio.sleep(POLL_S)

    def cancel(self) -> None:
        """Stop the job at its next step."""
        self.runner.cancel()

    def close(self) -> None:
        """End everything."""
        self.runner.close()


def progress_state(event: ProgressEvent, names: list[str]) -> dict[str, Any]:
    """What the page shows of a moment: per cent, and what is done for which scan, with the time left."""
    left = event.seconds_left
    time = (
        "" if not math.isfinite(left) else f" · {math.ceil(left)} s left" if left < 90 else f" · {math.ceil(left / 60)} min left"
    )
    scan = f"{names[event.query_index]}: " if len(names) > 1 else ""
    return {"progress": round(100 * event.fraction, 1), "stage": f"{scan}{event.stage}{time}"}
