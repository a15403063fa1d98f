"""Running a queue on the machine that there is: a GPU for some minutes, a CPU in the background until all is done."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fewshotseg_training.queue.tasks import PAUSED, Places, Training
from FewShotSegLib.cohort.locks import Locks
from FewShotSegLib.errors import ConfigError

LEAST_MINUTES = 0.5
LOG = "queue.log"
MODULE = [sys.executable, "-m", "fewshotseg_training"]
Tell = Callable[[str], None]
Start = Callable[[list[str], Path], int]
"""Runs a command, its output appended to a log file; returns its exit code."""


def start(command: list[str], log: Path) -> int:
    """Run a command to its end."""
    with log.open("ab") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


def run_queue(
    trainings: Sequence[Training], places: Places, *, minutes: float = 0.0, tell: Tell = print, start: Start = start
) -> dict[str, str]:
    """Train what is ready, one after the other, until nothing is left or the minutes are over; 0 = no limit.

    What was killed goes on where it was saved last. One that fails is told and passed over. Every run has its log beside its
    folder. Returns what became of each, by name: `finished`, `paused` or `failed`.

    Raises:
        ConfigError: another process runs a queue in the same folder.
    """
    places.runs.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + 60 * minutes
    found: dict[str, str] = {}
    with Locks(places.runs) as locks:
        holder = locks.take("queue")
        if holder is not None:
            raise ConfigError(
                f"A queue runs in {places.runs} already: {holder.described}", "one at a time", "wait, or choose other --runs"
            )
        while (training := _next(trainings, places.runs, found)) is not None:
            left = (ends - time.monotonic()) / 60 if minutes else 0.0
            if minutes and left < LEAST_MINUTES:
                break
            tell(f"{training.name}: {training.state(places.runs)}")
            found[training.name] = _outcome(training, places, left, start)
            tell(f"{training.name}: {found[training.name]}")
    return found


def _next(trainings: Sequence[Training], runs: Path, tried: dict[str, str]) -> Training | None:
    """The first that is ready and was not tried."""
    return next((t for t in trainings if t.name not in tried and t.ready(runs)), None)


def _outcome(training: Training, places: Places, minutes: float, start: Start) -> str:
    command = [*MODULE, "fit", *map(places.fill, training.words)]
    if minutes:
        command += ["--minutes", f"{minutes:.2f}"]
    code = start(command, places.runs / f"{training.name}.log")
    if code == 0:
        return "finished"
    if code == PAUSED:
        return "paused"
    return f"failed with code {code}; see {places.runs / training.name}.log"


def in_background(words: list[str], runs: Path) -> tuple[int, Path]:
    """Start `fewshotseg-train queue run --here` so that it outlives this terminal and gives way to other work.

    Returns its process number and its log.
    """
    runs.mkdir(parents=True, exist_ok=True)
    gentle = ["nice", "-n", "19"] if shutil.which("nice") else []
    with (runs / LOG).open("ab") as log:
        process = subprocess.Popen(
            [*gentle, *MODULE, "queue", "run", "--here", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return process.pid, runs / LOG
