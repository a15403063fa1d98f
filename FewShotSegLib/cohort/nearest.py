"""Which supports are most like a scan: whole slices compared, where they lie best on each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures, align_slices
from FewShotSegLib.files import atomic_path

POOLED = 4  # rows and columns of a slice
MOST_SLICES = 24


@dataclass(frozen=True)
class Descriptor:
    """What is kept of a scan to compare it with: features (n, c, 4, 4) float16 of at most 24 slices, `slice_mm` apart."""

    features: np.ndarray
    slice_mm: float

    @classmethod
    def of(cls, scan: ScanFeatures) -> Descriptor:
        """Pool the cells of some slices, evenly chosen."""
        every = -(-len(scan.features) // MOST_SLICES)
        pooled = F.adaptive_avg_pool2d(scan.features[::every], POOLED)
        return cls(pooled.cpu().half().numpy(), scan.slice_mm * every)

    def write(self, path: Path) -> None:
        """Write it, whole or not at all. OutputError: no permission, disk full."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, features=self.features, slice_mm=self.slice_mm)

    @classmethod
    def read(cls, path: Path) -> Descriptor | None:
        """None where there is none, or a damaged one."""
        try:
            with np.load(path, allow_pickle=False) as held:
                return cls(held["features"], float(held["slice_mm"]))
        except (OSError, ValueError, KeyError, EOFError):
            return None

    def similarity(self, other: Descriptor) -> float:
        """How alike two scans are where their slices correspond, -1..1, times the share of this scan's slices that do."""
        alike = (self._slices @ other._slices.T).double()
        place = align_slices(_centred(alike).numpy(), self.slice_mm / other.slice_mm)
        inside = (place > -0.5) & (place < len(other.features) - 0.5)
        if not inside.any():
            return -1.0
        at = place[inside].round().astype(int).clip(0, len(other.features) - 1)
        return float(alike[inside.nonzero()[0], at].mean()) * float(np.sqrt(inside.mean()))

    @property
    def _slices(self) -> Tensor:
        """(n, c*16) whose scalar products are the mean cosines of the parts."""
        return F.normalize(torch.from_numpy(self.features).float(), dim=1).flatten(1) / POOLED


def _centred(similarity: Tensor) -> Tensor:
    """Over both axes, so that only what tells slices apart counts; a single slice has nothing to be told apart from."""
    for axis in (0, 1):
        if similarity.shape[axis] > 1:
            similarity = similarity - similarity.mean(axis, keepdim=True)
    return similarity


def nearest(similarity: Sequence[float], count: int) -> list[int]:
    """Indices of the `count` largest similarities (0: of all), the largest first; earlier ones first where equal."""
    order = np.argsort(-np.asarray(similarity), kind="stable").tolist()
    return order[: count or len(order)]
