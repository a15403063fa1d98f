"""Which slices and which region make an episode (alpnet_visa.md sections 3 and 8; adnet_qnet_rpt_pami_qamp.md section 3).

A draw is a few numbers, made from one generator; pixels are gathered later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fewshotseg_training.objectives.base import Recipe
from fewshotseg_training.scans import TrainingScan
from FewShotSegLib.errors import VolumeError

TRIES = 10_000  # draws before giving up
Kind = Literal["superpixels", "regions"]


@dataclass(frozen=True, eq=False)
class Draw:
    """Slices `support` and `query` of a scan and the region `id` there, of its `superpixels` or `regions` (supervoxels).

    realistic: the queries are neighbours, and the region is to be carried to them by a flow.
    """

    scan: TrainingScan
    kind: Kind
    id: int
    support: tuple[int, ...]
    query: tuple[int, ...]
    realistic: bool = False


def excluded_slices(present: np.ndarray, rule: Literal["any", "all"] = "any") -> np.ndarray:
    """Which slices show forbidden organs: present (z, labels) bool -> (z,) bool. No labels: none.

    `all`: only slices that show all of them at once, as in the published loaders of ADNet and its heirs.
    """
    if not present.shape[1]:
        return np.zeros(len(present), bool)
    return np.asarray(present.all(1) if rule == "all" else present.any(1))


def runs(slices: np.ndarray) -> list[np.ndarray]:
    """Ascending slice numbers split where a slice is missing; runs of a single slice are dropped."""
    parts = np.split(slices, np.flatnonzero(np.diff(slices) > 1) + 1)
    return [part for part in parts if len(part) > 1]


class RegionIndex:
    """How many pixels each region has in each allowed slice of a scan."""

    def __init__(self, regions: np.ndarray, forbidden: np.ndarray) -> None:
        self.allowed = ~forbidden
        found = [np.unique(r, return_counts=True) for r in regions]
        self.slices = [dict(zip(ids.tolist(), counts.tolist(), strict=True)) for ids, counts in found]
        for z, pixels in enumerate(self.slices):
            pixels.pop(0, None)
            if forbidden[z]:
                pixels.clear()

    @cached_property
    def ids(self) -> list[int]:
        """All regions, ascending."""
        return sorted({i for pixels in self.slices for i in pixels})

    def showing(self, id: int) -> np.ndarray:
        """The slices that show a region, ascending."""
        return np.array([z for z, pixels in enumerate(self.slices) if id in pixels])


class Sampler:
    """Draws episodes as a recipe wants them from sets of scans; the sets are drawn from equally often."""

    def __init__(
        self,
        sets: Sequence[Sequence[TrainingScan]],
        recipe: Recipe,
        exclude: Sequence[int] = (),
        rule: Literal["any", "all"] = "any",
    ) -> None:
        self.sets, self.recipe = sets, recipe
        self._exclude, self._rule = exclude, rule
        self._indices: dict[tuple[int, Kind], RegionIndex] = {}

    def draw(self, rng: np.random.Generator) -> Draw:
        """One episode. Raises VolumeError when the scans offer none in 10,000 tries."""
        ways = {"superpixel": self._superpixel, "supervoxel": self._supervoxel, "flow": self._neighbours, "volume": self._volume}
        for _ in range(TRIES):
            source = self.recipe.source
            if source == "mixed":
                source = "superpixel" if rng.random() < 0.5 else "supervoxel"
            if source == "superpixel" and self.recipe.realistic and rng.random() < self.recipe.realistic:
                source = "flow"
            drawn = ways[source](rng)
            if drawn is not None:
                return drawn
        raise VolumeError(
            f"No episode from {sum(map(len, self.sets))} scans in {TRIES} draws",
            "regions that are large enough, on slices that are not excluded",
            "exclude fewer labels, or prepare the scans with a smaller --min-size",
        )

    def index(self, scan: TrainingScan, kind: Kind) -> RegionIndex:
        """Where the regions of a scan are; made once."""
        key = (id(scan), kind)
        if key not in self._indices:
            forbidden = excluded_slices(scan.shows(self._exclude), self._rule)
            self._indices[key] = RegionIndex(scan.layer(kind), forbidden)
        return self._indices[key]

    def _scan(self, rng: np.random.Generator) -> TrainingScan:
        scans = self.sets[int(rng.integers(len(self.sets)))]
        return scans[int(rng.integers(len(scans)))]

    def _slice(self, rng: np.random.Generator) -> tuple[TrainingScan, int]:
        """A slice of a set, all its slices alike."""
        scans = self.sets[int(rng.integers(len(self.sets)))]
        ends = np.cumsum([len(scan.image) for scan in scans])
        at = int(rng.integers(ends[-1]))
        scan = int(np.searchsorted(ends, at, side="right"))
        return scans[scan], at - int(ends[scan - 1] if scan else 0)

    def _superpixel(self, rng: np.random.Generator) -> Draw | None:
        """ALPNet: a superpixel of a slice; support and query are the same slice."""
        scan, z = self._slice(rng)
        ids = list(self.index(scan, "superpixels").slices[z])
        if not ids:
            return None
        return Draw(scan, "superpixels", _pick(ids, rng), (z,) * self.recipe.support, (z,) * self.recipe.query)

    def _neighbours(self, rng: np.random.Generator) -> Draw | None:
        """VISA: a superpixel, and some of the slices around it, in order."""
        scan = self._scan(rng)
        reach, depth = self.recipe.reach, len(scan.image)
        if depth <= 2 * reach:
            return None
        z = int(rng.integers(reach, depth - reach))
        index = self.index(scan, "superpixels")
        ids = list(index.slices[z])
        if not ids or not index.allowed[z - reach : z + reach + 1].all():
            return None
        around = [*range(z - reach, z), *range(z + 1, z + reach + 1)]
        query = sorted(rng.choice(around, min(self.recipe.query, len(around)), replace=False).tolist())
        return Draw(scan, "superpixels", _pick(ids, rng), (z,) * self.recipe.support, tuple(query), realistic=True)

    def _supervoxel(self, rng: np.random.Generator) -> Draw | None:
        """ADNet, Q-Net: neighbouring slices of a supervoxel, up or down."""
        scan, wanted = self._scan(rng), self.recipe.support + self.recipe.query
        index = self.index(scan, "regions")
        if not index.ids:
            return None
        chosen = _pick(index.ids, rng)
        parts = [index.showing(chosen)]
        if self.recipe.adjacent:
            parts = runs(parts[0])
        parts = [part for part in parts if len(part) >= wanted]
        if not parts:
            return None
        part = parts[int(rng.integers(len(parts)))]
        start = int(rng.integers(len(part) - wanted + 1))
        slices = part[start : start + wanted].tolist()
        pixels = [index.slices[z][chosen] for z in (slices if self.recipe.adjacent else slices[:1])]
        if max(pixels) < self.recipe.min_pixels:
            return None
        if rng.random() < 0.5:
            slices = slices[::-1]
        return Draw(scan, "regions", chosen, tuple(slices[: self.recipe.support]), tuple(slices[self.recipe.support :]))

    def _volume(self, rng: np.random.Generator) -> Draw | None:
        """ADNet-3D: two windows of consecutive slices, each with enough voxels of one supervoxel."""
        scan = self._scan(rng)
        index = self.index(scan, "regions")
        if not index.ids:
            return None
        chosen = _pick(index.ids, rng)
        windows = [self._windows(index, chosen, size) for size in (self.recipe.support, self.recipe.query)]
        if not all(windows):
            return None
        support, query = (w[int(rng.integers(len(w)))] for w in windows)
        return Draw(scan, "regions", chosen, tuple(support), tuple(query))

    def _windows(self, index: RegionIndex, id: int, size: int) -> list[range]:
        pixels = np.array([of.get(id, 0) for of in index.slices])
        starts = range(len(pixels) - size + 1)
        enough = self.recipe.min_pixels
        return [range(s, s + size) for s in starts if index.allowed[s : s + size].all() and pixels[s : s + size].sum() > enough]


def _pick(ids: Sequence[int], rng: np.random.Generator) -> int:
    return ids[int(rng.integers(len(ids)))]
