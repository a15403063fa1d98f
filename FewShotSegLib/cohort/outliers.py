"""Which values of a cohort stand apart: robust z scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FAR = 3.5
"""Beyond this robust z score a value counts as an outlier (Iglewicz and Hoaglin, 1993)."""
FEWEST = 5
MAD_TO_SIGMA = 1.4826
SMALLEST = 0.05


def robust_z(values: Sequence[float], *, smallest: float = SMALLEST) -> np.ndarray:
    """Distance from the median in units of the median absolute deviation, scaled to sigmas of a normal distribution.

    NaN for NaN; all NaN where fewer than five values are known.

    Args:
        values: one per case.
        smallest: what counts as one sigma at least, so that hardly differing values have no outliers.
    """
    numbers = np.asarray(values, float)
    known = np.isfinite(numbers)
    if known.sum() < FEWEST:
        return np.full(len(numbers), np.nan)
    middle = np.median(numbers[known])
    spread = max(MAD_TO_SIGMA * float(np.median(np.abs(numbers[known] - middle))), smallest)
    return np.where(known, (numbers - middle) / spread, np.nan)


def volume_z(ml: Sequence[float]) -> np.ndarray:
    """Robust z scores of volumes, by their logarithm; NaN for an organ that was not found."""
    volumes = np.asarray(ml, float)
    logs = np.log(volumes, where=volumes > 0, out=np.full(len(volumes), np.nan))
    return robust_z(logs, smallest=2 * SMALLEST)
