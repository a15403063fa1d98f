"""The review: one HTML page about all results of a cohort, the doubtful ones first."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.outliers import FAR, robust_z, volume_z
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import OrganRecord
from FewShotSegLib.cohort.status import STATES, CaseState, states
from FewShotSegLib.cohort.supports import all_supports
from FewShotSegLib.errors import FewShotSegError
from FewShotSegLib.files import atomic_path
from FewShotSegLib.job_output import scan_name
from FewShotSegLib.organs import Organ
from FewShotSegLib.report.colors import contour_colors
from FewShotSegLib.report.hints import hint
from FewShotSegLib.resources import resource_dir

PAGE = "review.html"
PICTURES = 300
DOTS = 2000


@dataclass(frozen=True)
class _Cell:
    """One organ of one case: how to show it."""

    organ: OrganRecord | None
    z: float

    @property
    def is_outlier(self) -> bool:
        return abs(self.z) > FAR


def write_review(folder: str | Path, *, pictures: int = PICTURES, title: str = "", created: datetime | None = None) -> Path:
    """Write `review.html` into a cohort's folder, whole or not at all; it asks the network for nothing.

    Args:
        folder: of the cohort.
        pictures: how many cases, the least sure first, have their picture inside the page; the others link to its file.
        title: of the page.
        created: time shown; now by default.

    Returns:
        The page.

    Raises:
        ConfigError: no cohort lies there. OutputError: no permission, disk full.
    """
    config = CohortConfig.read(folder)
    places = Places(config.output)
    found = sorted(states(folder), key=_by_doubt)
    organs = _organs(found)
    cells = {organ.name: _cells(found, organ.name) for organ in organs}
    scores = robust_z([_score(state) for state in found])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("report")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    style = "".join((resource_dir("report") / name).read_text(encoding="utf-8") for name in ("page.css", "cohort.css"))
    names = _support_names(config)
    page = environment.get_template("cohort.html").render(
        title=title or f"Cohort {config.output.resolve().name}",
        style=Markup(style),
        script=Markup((resource_dir("report") / "cohort.js").read_text(encoding="utf-8")),
        created=(created or datetime.now()).strftime("%Y-%m-%d %H:%M"),
        counts={state: sum(s.state == state for s in found) for state in STATES},
        settings=_settings(config, names),
        organs=[(organ, _hex(color)) for organ, color in zip(organs, contour_colors(organs), strict=True)],
        summary=[_summary(organ, cells[organ.name], [state.case.name for state in found]) for organ in organs],
        rows=[
            _row(state, [cells[o.name][i] for o in organs], scores[i], places, names, inside=i < pictures)
            for i, state in enumerate(found)
        ],
    )
    with atomic_path(config.output / PAGE) as path:
        path.write_text(page, encoding="utf-8")
    return config.output / PAGE


def _score(state: CaseState) -> float:
    return state.record.score if state.record else math.nan


def _by_doubt(state: CaseState) -> tuple[int, float, str]:
    """Failed cases first, then the least sure; those without a result last."""
    score = _score(state)
    return (0 if state.state == "failed" else 2 if math.isnan(score) else 1, 0.0 if math.isnan(score) else score, state.case.name)


def _organs(found: Sequence[CaseState]) -> list[Organ]:
    """The organs of all results, in the order of the first."""
    named = {o.name: o.label for state in found if state.record for o in state.record.organs}
    return [Organ(name, label) for name, label in sorted(named.items(), key=lambda item: item[1])]


def _cells(found: Sequence[CaseState], organ: str) -> list[_Cell]:
    records = [next((o for o in state.record.organs if o.name == organ), None) if state.record else None for state in found]
    z = volume_z([record.ml if record else math.nan for record in records])
    return [_Cell(record, float(value)) for record, value in zip(records, z, strict=True)]


def _row(
    state: CaseState, cells: list[_Cell], z: float, places: Places, names: Mapping[str, str], *, inside: bool
) -> dict[str, Any]:
    """What the template shows of one case."""
    record, score = state.record, _score(state)
    picture = places.picture(state.case.name)
    unusual = [f"{c.organ.name} {'large' if c.z > 0 else 'small'}" for c in cells if c.organ and c.is_outlier]
    if z < -FAR:
        unusual.append("far less sure than the others")
    return {
        "name": state.case.name,
        "state": state.state,
        "reason": state.reason.replace(str(state.case.image), state.case.image.name),
        "score": score,
        "weakest": _weakest(state),
        "hint": hint(score),
        "cells": cells,
        "unusual": unusual,
        "absent": [c.organ.name for c in cells if c.organ and c.organ.ml == 0],
        "taught_by": [names.get(name, name) for name in record.used] if record else [],
        "notes": [note.replace(str(state.case.image), state.case.image.name) for note in record.notes] if record else [],
        "picture": _embedded(picture) if inside else "",
        "link": _link(picture, places) if picture.is_file() else "",
        "result": _link(places.result(state.case.name), places) if record and record.result else "",
        "dicom_seg": _link(places.dicom_seg(state.case.name), places) if record and record.dicom_seg else "",
    }


def _weakest(state: CaseState) -> str:
    """The organ that a case's score is of."""
    known = [organ for organ in state.record.organs if not math.isnan(organ.score)] if state.record else []
    return min(known, key=lambda organ: organ.score).name if known and state.state != "corrected" else ""


def _embedded(picture: Path) -> str:
    try:
        return base64.b64encode(picture.read_bytes()).decode("ascii")
    except OSError:
        return ""


def _link(path: Path, places: Places) -> str:
    return quote(os.path.relpath(path, places.folder).replace(os.sep, "/"))


def _summary(organ: Organ, cells: Sequence[_Cell], names: Sequence[str]) -> dict[str, Any]:
    """An organ over the cohort: volumes, mean of what is expected, how many need a look."""
    known = [cell.organ for cell in cells if cell.organ]
    volumes = np.array([o.ml for o in known if o.ml > 0])
    scores = np.array([o.score for o in known if not math.isnan(o.score)])
    quarters = np.percentile(volumes, (25, 50, 75)) if len(volumes) else [math.nan] * 3
    return {
        "name": organ.name,
        "low": quarters[0],
        "median": quarters[1],
        "high": quarters[2],
        "score": float(scores.mean()) if len(scores) else math.nan,
        "look": sum(hint(score).level == "look" for score in scores),
        "absent": sum(o.ml == 0 for o in known),
        "unusual": sum(cell.is_outlier for cell in cells),
        "dots": _dots(cells, names),
    }


def _dots(cells: Sequence[_Cell], names: Sequence[str]) -> list[tuple[float, bool, str]]:
    """Each case's volume, the outliers last: place in percent of a logarithmic axis, whether it is an outlier, text."""
    there = [(cell, cell.organ.ml, name) for cell, name in zip(cells, names, strict=True) if cell.organ and cell.organ.ml > 0]
    if not there:
        return []
    logs = np.log([ml for _, ml, _ in there])
    spread = max(float(np.ptp(logs)), 0.1)
    places = 50 + 100 * (logs - (logs.max() + logs.min()) / 2) / spread
    dots = [(float(at), cell.is_outlier, f"{name}: {ml:.0f} mL") for at, (cell, ml, name) in zip(places, there, strict=True)]
    return sorted(dots, key=lambda dot: dot[1])[-DOTS:]


def _support_names(config: CohortConfig) -> dict[str, str]:
    """What to call each support."""
    try:
        return {s.id: f"{s.case} (corrected)" if s.case else scan_name(s.drawing.image) for s in all_supports(config)}
    except FewShotSegError:  # a support moved since: the review needs only its name
        return {}


def _settings(config: CohortConfig, names: Mapping[str, str]) -> dict[str, str]:
    return {
        "scans": str(config.source),
        "supports": ", ".join(names.values()) or ", ".join(d.image.name for d in config.supports),
        "taught by": "all supports" if config.nearest == 0 else f"at most {config.nearest}, the most alike",
        "method": config.segmenter.method,
        "checkpoint": config.segmenter.checkpoint,
    }


def _hex(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in color)
