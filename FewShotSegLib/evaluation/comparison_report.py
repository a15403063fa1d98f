"""A comparison as Markdown and as one self-contained HTML page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from FewShotSegLib.evaluation.comparison import Outcome, by_protocol
from FewShotSegLib.evaluation.figures import Picture
from FewShotSegLib.evaluation.metrics import Mean
from FewShotSegLib.evaluation.published import published
from FewShotSegLib.evaluation.result import EXTENTS_TOLD, PLACE_SAID
from FewShotSegLib.files import atomic_path
from FewShotSegLib.resources import resource_dir

HEADINGS = (
    "method",
    "Dice %",
    "95 % CI over cases",
    "over supports",
    "NSD %",
    "HD95 mm",
    "Dice < 0.5",
    "s a scan",
    "peak MB",
    "published",
)


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """One row a method, under `HEADINGS`; a method that could not be measured has no figures (see `reasons`)."""
    return [_row(outcome) for outcome in outcomes]


def _row(outcome: Outcome) -> tuple[str, ...]:
    cell, result = outcome.cell, outcome.result
    known = published(cell.dataset, cell.method, cell.protocol)
    theirs = "-" if known is None else f"{known:.1f}"
    if result is None:
        return (cell.label, *["-"] * (len(HEADINGS) - 2), theirs)
    found = result.summary()
    told = ", told the extents" if EXTENTS_TOLD in result.protocol else ""
    told += ", the place by match" if PLACE_SAID in result.protocol else ""
    return (
        cell.label + told,
        _number(100 * found.dice.mean),
        _interval(found.dice),
        "-" if cell.config.protocol == "same-scan" else _interval(found.dice_by_support),  # there every scan teaches itself
        _number(100 * found.nsd.mean),
        _number(found.hd95.mean),
        f"{found.failures} of {found.records}",
        _number(result.seconds_per_scan),
        _number(float(result.machine.get("peak_memory_mb", math.nan)), 0),
        theirs,
    )


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Why methods could not be measured."""
    return [f"{outcome.cell.label} was not measured. {outcome.reason}" for outcome in outcomes if outcome.result is None]


def _interval(value: Mean) -> str:
    return "-" if math.isnan(value.low) else f"{100 * value.low:.1f} to {100 * value.high:.1f}"


def _number(value: float, digits: int = 1) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """One table for each data set and protocol."""
    lines: list[str] = []
    for (dataset, protocol), group in by_protocol(outcomes).items():
        lines += [f"## {dataset}, {protocol}", "", _explained(group), "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines += [*(_line(row) for row in rows(group)), ""]
        lines += [*(f"- {reason}" for reason in reasons(group)), ""] if reasons(group) else []
    return "\n".join(lines)


def _explained(group: Sequence[Outcome]) -> str:
    """The protocol in words."""
    described = group[0].cell.config.described
    return described[0].upper() + described[1:]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def write_comparison(
    folder: Path,
    outcomes: Sequence[Outcome],
    plots: Mapping[tuple[str, str], bytes],
    pictures: Mapping[tuple[str, str, str], Sequence[Picture]],
) -> Path:
    """Write `comparison.md`, the box plots as PNG and the page `comparison.html`; returns the page.

    Args:
        folder: where.
        outcomes: of `comparison.compare`.
        plots: PNG by data set and protocol.
        pictures: by data set, protocol and method.

    Raises:
        OutputError: no permission, disk full.
    """
    with atomic_path(folder / "comparison.md") as part:
        part.write_text(markdown(outcomes), encoding="utf-8")
    for (dataset, protocol), png in plots.items():
        with atomic_path(folder / dataset / f"{protocol.replace(':', '-')}.png") as part:
            part.write_bytes(png)
    groups = [
        {
            "name": f"{dataset}, {protocol}",
            "explained": _explained(group),
            "rows": rows(group),
            "plot": _encoded(plots.get((dataset, protocol), b"")),
            "notes": reasons(group) + sorted({note for o in group if o.result for note in o.result.notes}),
            "pictures": [
                {"method": method, "case": p.case, "support": p.support, "dice": 100 * p.dice, "data": _encoded(p.jpeg)}
                for (d, pr, method), found in pictures.items()
                if (d, pr) == (dataset, protocol)
                for p in found
            ],
        }
        for (dataset, protocol), group in by_protocol(outcomes).items()
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("report")), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = Markup((resource_dir("report") / "page.css").read_text(encoding="utf-8"))
    page = environment.get_template("comparison.html").render(groups=groups, headings=HEADINGS, style=style)
    with atomic_path(folder / "comparison.html") as part:
        part.write_text(page, encoding="utf-8")
    return folder / "comparison.html"


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
