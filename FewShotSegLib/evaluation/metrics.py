"""How good a mask is: Dice, surface Dice and Hausdorff distance of 3D masks, and the mean with its confidence interval.

Masks are bool (z, y, x), spacings (x, y, z) in mm. Every metric takes `slices`, a bool (z,) selection of the slices that are
scored: the papers' oracle-z protocol scores the organ's own extent, same-scan use scores the slices that nobody drew.

Conventions for empty masks: both empty, every metric is NaN (nothing to find, nothing found) and means leave it out; one
empty, Dice and surface Dice are 0 and HD95 is the diagonal of the scored region, so that finding nothing never pays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats
from scipy.spatial import cKDTree

TOLERANCE_MM = 2.0
FAILURE_DICE = 0.5


@dataclass(frozen=True)
class Scores:
    """Metrics of one mask: `dice` and surface Dice `nsd` at 2 mm in 0..1, 95 % Hausdorff distance `hd95` in mm."""

    dice: float
    nsd: float
    hd95: float


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % confidence interval (NaN for fewer than two values) and how many values it stands on."""

    mean: float
    low: float
    high: float
    n: int


def scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: tuple[float, float, float],
    slices: np.ndarray | None = None,
    *,
    tolerance_mm: float = TOLERANCE_MM,
) -> Scores:
    """All metrics of one mask against the truth, on the chosen slices.

    Args:
        prediction: bool (z, y, x).
        truth: bool (z, y, x).
        spacing: (x, y, z) mm.
        slices: bool (z,), the slices that are scored; None for all.
        tolerance_mm: surface distance that still counts as right in the surface Dice.
    """
    nsd, hd95 = surface_scores(prediction, truth, spacing, slices, tolerance_mm=tolerance_mm)
    return Scores(dice(prediction, truth, slices), nsd, hd95)


def dice(prediction: np.ndarray, truth: np.ndarray, slices: np.ndarray | None = None) -> float:
    """2 TP / (2 TP + FP + FN) over all voxels of the chosen slices; NaN when both masks are empty there."""
    if slices is not None:
        prediction, truth = prediction[slices], truth[slices]
    total = int(prediction.sum()) + int(truth.sum())
    return 2.0 * int((prediction & truth).sum()) / total if total else float("nan")


def surface_scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing: tuple[float, float, float],
    slices: np.ndarray | None = None,
    *,
    tolerance_mm: float = TOLERANCE_MM,
) -> tuple[float, float]:
    """Surface Dice (0..1) and HD95 (mm), as MONAI defines them: surfaces are mask voxels with a 6-neighbour outside.

    Only what lies between the first and the last scored slice exists; of the surfaces found there, the voxels on scored
    slices count. Distances come from a k-d tree of surface voxels, exact and far faster than a distance map.
    """
    first, last = _range(slices, len(truth))
    kept = np.ones(last - first, bool) if slices is None else slices[first:last]
    step = np.array(spacing[::-1], float)
    masks = [mask[first:last] for mask in (prediction, truth)]
    if not (masks[0] | masks[1])[kept].any():
        return float("nan"), float("nan")
    found, wanted = (_surface(mask) for mask in masks)
    there, back = _distances(found, wanted, step, kept), _distances(wanted, found, step, kept)
    if there is None or back is None:
        return 0.0, float(np.linalg.norm(step * masks[0].shape))
    close = int((there <= tolerance_mm).sum()) + int((back <= tolerance_mm).sum())
    return close / (len(there) + len(back)), float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _range(slices: np.ndarray | None, count: int) -> tuple[int, int]:
    chosen = np.arange(count) if slices is None else np.flatnonzero(slices)
    return (int(chosen[0]), int(chosen[-1]) + 1) if len(chosen) else (0, 0)


def _surface(mask: np.ndarray) -> np.ndarray:
    """Indices (n, 3) of the surface voxels of a mask; voxels at the border of the array belong to the surface."""
    if not mask.any():
        return np.empty((0, 3), int)
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    inside = mask[box]
    return np.argwhere(inside & ~ndimage.binary_erosion(inside)) + [part.start for part in box]


def _distances(points: np.ndarray, others: np.ndarray, step: np.ndarray, kept: np.ndarray) -> np.ndarray | None:
    """Distance (mm) from every point on a kept slice to the nearest other point; None where there is nothing to measure."""
    points = points[kept[points[:, 0]]]
    if not len(points) or not len(others):
        return None
    return cKDTree(others * step).query(points * step)[0]


def mean_interval(
    values: Sequence[float], groups: Sequence[str] | None = None, *, lowest: float = 0.0, highest: float = np.inf
) -> Mean:
    """Mean and 95 % t-interval over independent groups (cases, or support choices); NaN values are left out.

    Repeated measures of one group are averaged first, so that a case segmented from five supports counts once. The interval
    is cut at `lowest` and `highest`, beyond which no value can lie.
    """
    numbers = np.asarray(values, float)
    names = np.arange(len(numbers)).astype(str) if groups is None else np.asarray(groups, str)
    valid = ~np.isnan(numbers)
    means = np.array([numbers[valid & (names == name)].mean() for name in np.unique(names[valid])])
    if not len(means):
        return Mean(float("nan"), float("nan"), float("nan"), 0)
    if len(means) == 1:
        return Mean(float(means[0]), float("nan"), float("nan"), 1)
    half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
    low, high = max(lowest, means.mean() - half), min(highest, means.mean() + half)
    return Mean(float(means.mean()), float(low), float(high), len(means))


def failures(values: Sequence[float], threshold: float = FAILURE_DICE) -> int:
    """How many Dice values lie below the threshold (an organ missed altogether has Dice 0 and counts)."""
    return int((np.asarray(values, float) < threshold).sum())


def paired_wilcoxon(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[float, int]:
    """Two-sided Wilcoxon signed-rank p value over the keys both results have, and how many pairs it stands on.

    NaN where fewer than two pairs differ: the test says nothing there.
    """
    shared = [key for key in ours if key in theirs]
    differences = np.array([ours[key] - theirs[key] for key in shared], float)
    differences = differences[~np.isnan(differences)]
    if np.count_nonzero(differences) < 2:
        return float("nan"), len(differences)
    return float(stats.wilcoxon(differences).pvalue), len(differences)
