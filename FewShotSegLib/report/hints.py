"""What a confidence asks of the reader, in plain words, and where in the scan to look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# Of the slices that `match` filled in four scans of chaos_t2 (an encoder trained without them, one support), these had a Dice
# below 0.7: 91 % of 66 with a confidence below 0.6, 49 % of 37 between 0.6 and 0.7, 6 % of 193 above.
LOOK_BELOW = 0.6
GLANCE_BELOW = 0.7
SLICES_NAMED = 6
BARS = 360


class Hint(NamedTuple):
    """`level` names the colour ("good", "glance", "look" or "absent"), `text` says it."""

    level: str
    text: str


def hint(confidence: float) -> Hint:
    """The hint for a confidence 0..1; NaN means that the organ was not found."""
    if not np.isfinite(confidence):
        return Hint("absent", "not found")
    if confidence < LOOK_BELOW:
        return Hint("look", "look at this one")
    return Hint("glance", "worth a glance") if confidence < GLANCE_BELOW else Hint("good", "nothing stands out")


def doubtful_slices(slice_confidence: np.ndarray) -> list[int]:
    """The scan's own slices with the lowest confidence, of those that need a look, in order; at most `SLICES_NAMED`.

    Args:
        slice_confidence: (z,), NaN where the organ is absent.
    """
    doubtful = np.flatnonzero(np.nan_to_num(slice_confidence, nan=1.0) < LOOK_BELOW)
    worst = doubtful[np.argsort(slice_confidence[doubtful], kind="stable")][:SLICES_NAMED]
    return sorted(int(k) for k in worst)


@dataclass(frozen=True)
class Bar:
    """One bar of the strip: place and size in per cent of the strip, the hint's level, and a text for the pointer."""

    x: float
    width: float
    height: float
    level: str
    text: str


def strip(slice_confidence: np.ndarray) -> list[Bar]:
    """Bars along the scan's slices; in a long scan one bar stands for several slices and shows the least sure of them.

    Args:
        slice_confidence: (z,), NaN where the organ is absent.
    """
    count = len(slice_confidence)
    ends = np.unique(np.linspace(0, count, min(count, BARS) + 1).round().astype(int))
    bars = []
    for start, stop in zip(ends[:-1], ends[1:], strict=True):
        values = slice_confidence[start:stop]
        if np.isnan(values).all():
            continue
        lowest = float(np.nanmin(values))
        place = f"slice {start}" if stop - start == 1 else f"slices {start} to {stop - 1}"
        width = 100 * (stop - start) / count
        bars.append(Bar(100 * start / count, width, 100 * max(lowest, 0.04), hint(lowest).level, f"{place}: {lowest:.0%}"))
    return bars
