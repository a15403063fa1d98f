"""Which supports are most like a scan: whole slices compared after the axial start, as the registration compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures, axial_start
from FewShotSegLib.files import atomic_path

POOLED = 4  # as `axial_start` pools slices
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

    @property
    def _scan(self) -> ScanFeatures:
        features = torch.from_numpy(self.features).float()
        return ScanFeatures(features, torch.ones(len(features), POOLED, POOLED), self.slice_mm, 1.0)

    def similarity(self, other: Descriptor) -> float:
        """How alike two scans are where their slices correspond, -1..1, times the share of this scan's slices that do."""
        mine, theirs = self._scan, other._scan
        place = axial_start(mine, theirs)
        inside = (place > -0.5) & (place < len(theirs.features) - 0.5)
        if not inside.any():
            return -1.0
        at = place[inside].round().long().clamp(0, len(theirs.features) - 1)
        alike = (_unit(mine.features[inside]) * _unit(theirs.features[at])).sum(1).mean()
        return float(alike * inside.float().mean().sqrt())


def _unit(features: Tensor) -> Tensor:
    """(n, c, 4, 4) -> (n, c*16) whose scalar product is the mean cosine of the parts."""
    return F.normalize(features, dim=1).flatten(1) / POOLED


def nearest(similarity: Sequence[float], count: int) -> list[int]:
    """Indices of the `count` largest similarities (0: of all), the largest first; earlier ones first where equal."""
    order = np.argsort(-np.asarray(similarity), kind="stable").tolist()
    return order[: count or len(order)]
