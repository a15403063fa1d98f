"""What commands show: errors, warnings, tables of organs, and progress. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from FewShotSegLib.errors import FewShotSegError

if TYPE_CHECKING:
    from FewShotSegLib.progress import Progress as Moment

DASH = "–"


def stdout() -> Console:
    """Where results go."""
    return Console(highlight=False)


def stderr() -> Console:
    """Where progress, warnings and errors go."""
    return Console(stderr=True, highlight=False)


def show_error(error: FewShotSegError) -> None:
    """Three short red lines: what was found, what was expected, what to do."""
    parts = (("Found", error.found), ("Expected", error.expected), ("What to do", error.action))
    for title, text in parts:
        if text:
            stderr().print(f"{title + ':':<12}{text}", style="red", markup=False, soft_wrap=True)


def show_warning(text: str) -> None:
    """A yellow line."""
    stderr().print(text, style="yellow", markup=False, soft_wrap=True)


def show_file(title: str, path: object) -> None:
    """Where something was written, on one line however long the path is."""
    stdout().print(f"{title + ':':<16}{path}", markup=False, soft_wrap=True)


class Row(Protocol):
    """What is known of an organ; NaN where it is not."""

    @property
    def name(self) -> str: ...
    @property
    def ml(self) -> float: ...
    @property
    def confidence(self) -> float: ...
    @property
    def dice(self) -> float: ...


def organ_table(title: str, rows: Iterable[Row], *, dice: str = "") -> Table:
    """A table of organs; `dice` heads the column of Dice, which is left out without it."""
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("organ")
    for heading in ("volume, mL", "confidence", *([dice] if dice else [])):
        table.add_column(heading, justify="right")
    for row in rows:
        absent = math.isnan(row.confidence)
        cells = [row.name, "not found" if absent else f"{row.ml:.1f}", _number(row.confidence)]
        table.add_row(*cells, *([_number(row.dice)] if dice else []))
    return table


def _number(value: float) -> str:
    return DASH if math.isnan(value) else f"{value:.2f}"


class _TimeLeft(ProgressColumn):
    """The library's own estimate of the time left."""

    def render(self, task: Task) -> Text:
        seconds = task.fields.get("seconds_left", math.nan)
        return Text("" if math.isnan(seconds) or task.finished else f"{math.ceil(seconds)} s left", style="cyan")


@dataclass(frozen=True)
class Bars:
    """Progress bars, one per scan; each starts with the name of the scan."""

    progress: Progress

    def start(self, name: str) -> TaskID:
        """A new bar."""
        return self.progress.add_task(name, total=1.0, stage="", seconds_left=math.nan)

    def move(self, bar: TaskID, moment: Moment) -> None:
        """Show a moment of the job."""
        self.progress.update(bar, completed=moment.fraction, stage=moment.stage, seconds_left=moment.seconds_left)

    def end(self, bar: TaskID, text: str) -> None:
        """Show how it ended."""
        self.progress.update(bar, completed=1.0, stage=text, seconds_left=math.nan)


@contextmanager
def progress_bars() -> Iterator[Bars]:
    """Progress bars on stderr for the duration of the block."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[stage]}", markup=False, style="dim"),
        _TimeLeft(),
    )
    with Progress(*columns, console=stderr()) as progress:
        yield Bars(progress)
