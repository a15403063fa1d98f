"""An evaluation as a table, for a terminal and for a page."""

from __future__ import annotations

import math

from rich.table import Table

from FewShotSegLib.evaluation.metrics import Mean
from FewShotSegLib.evaluation.result import EvaluationResult, Summary

HEADINGS = (
    "organ",
    "Dice %",
    "95 % CI over cases",
    "95 % CI over supports",
    "Dice % in extent",
    "NSD 2 mm %",
    "HD95 mm",
    "Dice < 0.5",
)


def rows(result: EvaluationResult) -> list[tuple[str, ...]]:
    """One row per organ and one over all, as text under `HEADINGS`."""
    parts = [(organ, result.summary(organ)) for organ in result.organs]
    return [_row(name, summary) for name, summary in (*parts, ("mean", result.summary()))]


def _row(name: str, found: Summary) -> tuple[str, ...]:
    return (
        name,
        _percent(found.dice.mean),
        _interval(found.dice),
        _interval(found.dice_by_support),
        _percent(found.dice_told.mean),
        _percent(found.nsd.mean),
        _number(found.hd95.mean),
        f"{found.failures} of {found.records}",
    )


def title(result: EvaluationResult) -> str:
    """What was measured, in one line."""
    seconds = f"{_number(result.seconds_per_scan)} s a scan, {result.machine.get('threads', '?')} threads"
    return f"{result.method} on {result.dataset}: {result.protocol} {seconds}."


def markdown(result: EvaluationResult) -> str:
    """A Markdown table under its title, with the notes below."""
    lines = [title(result), "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
    lines += [_line(row) for row in rows(result)]
    lines += ["", *(f"- {note}" for note in result.notes)] if result.notes else []
    return "\n".join(lines) + "\n"


def rich_table(result: EvaluationResult) -> Table:
    """The same for a terminal: `rich.print(rich_table(result))`."""
    table = Table(title=title(result), caption="\n".join(result.notes) or None)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
    *organs, mean = rows(result)
    for row in organs:
        table.add_row(*row)
    table.add_section()
    table.add_row(*mean, style="bold")
    return table


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _percent(value: float) -> str:
    return _number(100 * value)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"


def _interval(value: Mean) -> str:
    return "-" if math.isnan(value.low) else f"{_percent(value.low)} to {_percent(value.high)}"
