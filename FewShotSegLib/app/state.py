"""What the page shows and why Apply is not possible: plain data, no scene, no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from FewShotSegLib.app.drawing import DrawnOrgan
from FewShotSegLib.app.methods import METHODS
from FewShotSegLib.report.hints import doubtful_slices, hint
from FewShotSegLib.segmentation import Segmentation

# The names of `strategies`, which load torch when they are imported: a session does without. A test compares.
STRATEGIES = {"auto": "automatic", "direct": "direct — nearest drawn slices", "propagate": "propagate — slice to slice"}


def initial(methods: Sequence[str]) -> dict[str, Any]:
    """The page as it opens; `methods` are those that it offers, the default first."""
    return {
        "theme": "dark",
        "layout": "one",
        "panel": "draw",
        "tool": "look",
        "brush": 16,
        "limit_range": False,
        "range": [0, 1],
        "range_min": 0,
        "range_max": 1,
        "range_step": 1,
        "organs": [],
        "organ": "",
        "support": None,
        "drawn_whole": False,
        "own_scan": True,
        "queries": [],
        "methods": [{"value": name, "title": METHODS[name]} for name in methods],
        "method": methods[0],
        "strategies": [{"value": name, "title": title} for name, title in STRATEGIES.items()],
        "strategy": "auto",
        "busy": False,
        "loading": "",
        "uploading": -1,
        "progress": 0.0,
        "stage": "",
        "waiting": [],
        "why": "",
        "results": [],
        "shown": "",
        "editing": "",
        "can_undo": False,
        "can_redo": False,
        "message": "",
        "message_kind": "info",
        "message_open": False,
        "help": False,
        "new_name": "liver",
    }


def why_not(support: bool, organs: Sequence[DrawnOrgan], queries: int, own_scan: bool, whole: bool) -> str:
    """What is still missing before Apply can be pressed; "" when nothing is."""
    if not support:
        return "Load a scan to draw on, or try the sample case."
    if not any(organ.slices for organ in organs):
        return "Paint an organ on at least one slice: all of it on that slice."
    if not queries and not own_scan:
        return "Load a scan to segment, or tick “the rest of this scan”."
    if own_scan and whole and not queries:
        return "Every slice of this scan is drawn: load another scan to segment."
    return ""


def organ_rows(organs: Sequence[DrawnOrgan]) -> list[dict[str, Any]]:
    """The list of drawn organs, for the page."""
    return [{"id": o.id, "name": o.name, "color": o.color, "drawn": drawn_text(o.slices), "empty": not o.slices} for o in organs]


def drawn_text(slices: Sequence[int]) -> str:
    """Which slices are drawn, in few words; counted from 1 as people do."""
    if not slices:
        return "not drawn yet"
    if len(slices) == 1:
        return f"slice {slices[0] + 1}"
    if slices[-1] - slices[0] + 1 == len(slices):
        return f"slices {slices[0] + 1}–{slices[-1] + 1}"
    return f"{len(slices)} slices" if len(slices) > 4 else "slices " + ", ".join(str(k + 1) for k in slices)


def result_row(result_id: str, name: str, found: Segmentation, flags: Mapping[str, bool]) -> dict[str, Any]:
    """One result, for the page: organs with volume, confidence and where to look."""
    return {
        "id": result_id,
        "name": name,
        "seconds": "" if math.isnan(found.seconds) else f"{found.seconds:.0f} s",
        "notes": list(found.notes),
        "organs": [_organ_row(found, number) for number in range(len(found.organs))],
        **flags,
    }


def _organ_row(found: Segmentation, number: int) -> dict[str, Any]:
    organ, sure = found.organs[number], float(found.confidence[number])
    told = hint(sure)
    return {
        "name": organ.name,
        "color": "#" + "".join(f"{round(255 * value):02x}" for value in organ.color),
        "ml": f"{found.volumes_ml()[organ.name]:.0f} mL" if np.isfinite(sure) else "",
        "percent": round(100 * sure) if np.isfinite(sure) else 0,
        "level": told.level,
        "hint": told.text,
        "look": [{"slice": k, "text": str(k + 1)} for k in doubtful_slices(found.slice_confidence[number])],
    }
