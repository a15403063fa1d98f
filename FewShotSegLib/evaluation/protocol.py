"""The papers' protocol: folds, support choice, chunks, Dice inside the organ's extent (alpnet_visa.md, sections 1.4-1.6, 7).

It knows the query's ground truth (its extent), which no clinician has; it serves comparison with published figures only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

from FewShotSegLib.errors import ConfigError, VolumeError
from FewShotSegLib.strategies.chunks import CHUNKS, chunk_of

FOLDS = 5
Scan = TypeVar("Scan", bound=Hashable)


def slices_with(labels: np.ndarray, label: int, threshold: int = 1) -> list[int]:
    """Slices of labels (z, y, x) on which `label` has at least `threshold` voxels (the papers' "classmap")."""
    return np.flatnonzero((labels == label).sum((1, 2)) >= threshold).tolist()


def fold_limits(cases: int, folds: int = FOLDS) -> list[int]:
    """Where the folds of a sorted list of `cases` begin, and its end: floor(i * cases / folds)."""
    return [i * cases // folds for i in range(folds + 1)]


@dataclass(frozen=True)
class Fold(Generic[Scan]):
    """Who trains, who is segmented and who teaches; the three never share a scan."""

    training: tuple[Scan, ...]
    queries: tuple[Scan, ...]
    supports: tuple[Scan, ...]


def circular_folds(scans: Sequence[Scan], folds: int = FOLDS, shots: int = 1) -> list[Fold[Scan]]:
    """The folds of scan ids, in their order, as a circle: a fold's scans are its queries, the next `shots` its supports.

    The papers order the ids as integers.

    Raises ConfigError when there are too few scans for every fold to have a query and separate supports.
    """
    most_queries = -(-len(scans) // max(folds, 1))
    if not 1 <= folds <= len(scans) or shots < 1 or most_queries + shots > len(scans):
        raise ConfigError(
            f"{len(scans)} scans, {folds} folds, {shots} support scan(s)",
            "at least one query in each fold, and supports outside it",
            "use fewer folds or more scans",
        )
    result = []
    for start, stop in pairwise(fold_limits(len(scans), folds)):
        queries = tuple(scans[start:stop])
        supports = tuple(scans[i % len(scans)] for i in range(stop, stop + shots))
        result.append(Fold(tuple(s for s in scans if s not in queries + supports), queries, supports))
    return result


@dataclass(frozen=True)
class QuerySlice:
    """One slice of a query scan: the chunk whose support slice teaches it, and whether it enters the metric."""

    z: int
    chunk: int
    evaluated: bool


def query_slices(shown: Sequence[int], slices: int, chunks: int = CHUNKS) -> list[QuerySlice]:
    """Every slice of a scan of `slices` slices whose truth shows the organ on the slices `shown`."""
    extent = (min(shown), max(shown))
    return [QuerySlice(z, chunk_of(z, extent, chunks), extent[0] <= z <= extent[1]) for z in range(slices)]


def zscore(image: np.ndarray) -> np.ndarray:
    """An MR volume with mean 0 and population standard deviation 1 over all voxels, float32. VolumeError when constant."""
    std = image.std(dtype=np.float64)
    if not std > 0:
        raise VolumeError("Every voxel of this scan has the same value", "an image", "check the file")
    return ((image - image.mean(dtype=np.float64)) / std).astype(np.float32)


def pooled_mean_std(sums: Iterable[Sequence[float]]) -> tuple[float, float]:
    """One mean and standard deviation over all voxels of several CT scans, each given as (sum, sum of squares, voxels)."""
    total, squares, voxels = np.sum(np.asarray(list(sums), dtype=np.float64), 0)
    mean = total / voxels
    return float(mean), float(np.sqrt(squares / voxels - mean**2))


@dataclass(frozen=True)
class Counts:
    """Voxels found, wrongly found and missed; `+` adds slices up."""

    hit: int = 0
    false: int = 0
    missed: int = 0

    @classmethod
    def of(cls, predicted: np.ndarray, truth: np.ndarray) -> Counts:
        """Counts of two masks of the same shape."""
        predicted, truth = predicted.astype(bool), truth.astype(bool)
        hit = int((predicted & truth).sum())
        return cls(hit, int(predicted.sum()) - hit, int(truth.sum()) - hit)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.hit + other.hit, self.false + other.false, self.missed + other.missed)

    @property
    def dice(self) -> float:
        """2 hit / (2 hit + false + missed), NaN when both masks are empty."""
        size = 2 * self.hit + self.false + self.missed
        return 2 * self.hit / size if size else float("nan")

    @property
    def iou(self) -> float:
        """Hit / (hit + false + missed), NaN when both masks are empty."""
        size = self.hit + self.false + self.missed
        return self.hit / size if size else float("nan")


@dataclass(frozen=True, eq=False)
class DiceTable(Generic[Scan]):
    """Dice by scan (row) and label (column), and its means."""

    scans: tuple[Scan, ...]
    labels: tuple[int, ...]
    dice: np.ndarray
    label_mean: np.ndarray
    label_std: np.ndarray
    mean: float

    @classmethod
    def of(cls, counts: Mapping[tuple[Scan, int], Counts], *, faithful: bool = False) -> DiceTable[Scan]:
        """The table of counts by (scan, label); scans in their order of appearance, labels ascending.

        The mean is that over scans of the mean over labels. Where truth and prediction are both empty, or a scan lacks a
        label, the Dice is NaN and left out of the means; `faithful`: as published, it makes them NaN.
        """
        scans = tuple(dict.fromkeys(scan for scan, _ in counts))
        labels = tuple(sorted({label for _, label in counts}))
        none = Counts()
        dice = np.array([[counts.get((scan, label), none).dice for label in labels] for scan in scans])
        mean, std = (np.mean, np.std) if faithful else (np.nanmean, np.nanstd)
        return cls(scans, labels, dice, mean(dice, axis=0), std(dice, axis=0), float(mean(mean(dice, axis=1))))
