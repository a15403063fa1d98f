"""VISA's flow network as a learner: one slice moved onto its neighbour (alpnet_visa.md section 9.2, our own recipe)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshotseg_training.config import FitConfig
from fewshotseg_training.distributed import Share
from fewshotseg_training.sampling import TRIES, excluded_slices
from fewshotseg_training.scans import TrainingScan
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.flow import FlowNetwork, warp

SMOOTHNESS = 0.02


class FlowModel(nn.Module):
    """The network; forward is the loss: squared grey difference, and squared differences of neighbouring displacements."""

    def __init__(self) -> None:
        super().__init__()
        self.network = FlowNetwork()

    def forward(self, pairs: tuple[Tensor, Tensor], step: int = 0) -> dict[str, Tensor]:
        """Losses of source and target slices (b h w) each."""
        source, target = pairs
        flow = self.network(source, target)
        moved = warp(source[:, None], flow, padding="border")[:, 0]
        rough = flow.diff(dim=2).square().mean() + flow.diff(dim=3).square().mean()
        return {"difference": (moved - target).square().mean(), "roughness": SMOOTHNESS * rough}


class NeighbourSource:
    """Pairs of adjacent slices, either way, none of them excluded (setting 2); each drawn with its own generator."""

    def __init__(self, config: FitConfig, sets: Sequence[Sequence[TrainingScan]], device: torch.device) -> None:
        self.config, self.device = config, device
        self.sets = [[scan for scan in scans if len(scan.image) > 1] for scans in sets]
        if not all(self.sets):
            raise VolumeError("A data set without any scan of two slices", "neighbouring slices", "leave it out")

    def batch(self, step: int, share: Share) -> tuple[Tensor, Tensor]:
        """Source and target slices (b h w) of a step."""
        mine = range(self.config.pairs)[share.of(self.config.pairs)]
        pairs = [self._draw(np.random.default_rng((self.config.seed, step, i))) for i in mine]
        source, target = (torch.from_numpy(np.stack(side)).to(self.device) for side in zip(*pairs, strict=True))
        return source, target

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        for _ in range(TRIES):
            scans = self.sets[int(rng.integers(len(self.sets)))]
            scan = scans[int(rng.integers(len(scans)))]
            z = int(rng.integers(len(scan.image) - 1))
            first, second = (z, z + 1) if rng.random() < 0.5 else (z + 1, z)
            if not excluded_slices(scan.shows(self.config.exclude), self.config.exclude_rule)[[first, second]].any():
                return scan.grey(first), scan.grey(second)
        raise VolumeError(f"No two neighbouring slices in {TRIES} draws", "slices that are not excluded", "exclude fewer labels")

    def state(self) -> dict[str, Any]:
        """Nothing: seed and step say it all."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing to load."""
