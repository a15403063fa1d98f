"""The carry objective as a learner: pairs of neighbouring slices, encoder and temperature."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshotseg_training.augment import augment
from fewshotseg_training.carry import carry_loss, carry_regions
from fewshotseg_training.config import FitConfig
from fewshotseg_training.distributed import Share
from fewshotseg_training.labelled_pairs import draw_labelled_pair, with_labels
from fewshotseg_training.sampling import excluded_slices
from fewshotseg_training.scans import TrainingScan
from FewShotSegLib.errors import VolumeError

TRIES = 10_000  # draws of a pair before giving up
Pairs = tuple[Tensor, Tensor, Tensor, Tensor]
"""First slices (b h w), their region ids, second slices, theirs."""


class CarryModel(nn.Module):
    """Encoder with unit features and the learned temperature of their similarities; forward is the loss of a batch."""

    def __init__(self, encoder: nn.Module, *, bf16: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_temperature = nn.Parameter(torch.tensor(math.log(20.0)))
        self.bf16 = bf16

    def features(self, slices: Tensor) -> Tensor:
        """Slices (b, h, w) -> unit features (b, c, h/8, w/8)."""
        with torch.autocast(slices.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.encoder(slices)
        return F.normalize(features.float(), dim=1, eps=1e-4)

    def forward(self, pairs: Pairs, step: int = 0) -> dict[str, Tensor]:
        """Mean carry loss, both directions, of a batch of pairs."""
        a, a_ids, b, b_ids = pairs
        first, second = self.features(torch.cat([a, b])).chunk(2)
        temperature = self.log_temperature.exp()
        losses = [
            carry_loss(f, i, g, j, temperature) + carry_loss(g, j, f, i, temperature)
            for f, i, g, j in zip(first, a_ids, second, b_ids, strict=True)
        ]
        return {"carry": torch.stack(losses).mean()}

    @torch.no_grad()
    def predict(self, pairs: Pairs) -> Tensor:
        """Ids (h w) on the second slice of the first pair, carried there from its first slice."""
        self.eval()
        first, second = self.features(torch.stack([pairs[0][0], pairs[2][0]]))
        self.train()
        return carry_regions(first, pairs[1][0], second, self.log_temperature.exp())


class PairSource:
    """Batches of pairs; its two generators are part of the saved state, so that resuming changes nothing."""

    def __init__(self, config: FitConfig, sets: Sequence[Sequence[TrainingScan]], device: torch.device) -> None:
        self.config, self.sets, self.device = config, sets, device
        self.labelled = with_labels(sets, config.data, config.labels_of) if config.labelled else []
        self.rng, self.generator = np.random.default_rng(config.seed), torch.Generator(device).manual_seed(config.seed)

    def batch(self, step: int, share: Share) -> Pairs:
        """The next pairs, one side of each augmented. Every process draws all of them and takes its share."""
        pairs = [self._draw() for _ in range(self.config.pairs)]
        a, a_ids, b, b_ids = (torch.stack(t).to(self.device) for t in zip(*pairs, strict=True))
        if torch.rand((), generator=self.generator, device=self.generator.device) < 0.5:
            a, a_ids = augment(a, a_ids, self.config.augment, self.generator)
        else:
            b, b_ids = augment(b, b_ids, self.config.augment, self.generator)
        mine = share.of(self.config.pairs)
        return a[mine], a_ids[mine], b[mine], b_ids[mine]

    def _draw(self) -> tuple[Tensor, ...]:
        c = self.config
        if c.labelled and self.rng.random() < c.labelled:
            return draw_labelled_pair(self.labelled, self.rng)
        return draw_pair(self.sets, c.reach_mm, self.rng, c.exclude, c.exclude_rule)

    def state(self) -> dict[str, Any]:
        """Both generators."""
        return {"generator": self.generator.get_state(), "rng": json.dumps(self.rng.bit_generator.state)}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.generator.set_state(state["generator"].cpu())
        self.rng.bit_generator.state = json.loads(state["rng"])


def draw_pair(
    sets: Sequence[Sequence[TrainingScan]],
    reach_mm: float,
    rng: np.random.Generator,
    exclude: Sequence[int] = (),
    rule: Literal["any", "all"] = "any",
) -> tuple[Tensor, ...]:
    """Two slices of one scan at most `reach_mm` apart (always at least the neighbour): image, ids, image, ids.

    None shows the labels `exclude` (setting 2).

    Raises:
        VolumeError: no such pair whose first slice shows more than three regions, or nobody knows which slices show the labels.
    """
    for _ in range(TRIES):
        scans = sets[int(rng.integers(len(sets)))]
        scan = scans[int(rng.integers(len(scans)))]
        z = int(rng.integers(len(scan.image)))
        steps = max(1, round(reach_mm / scan.slice_spacing))
        other = z + int(rng.integers(1, steps + 1)) * int(rng.choice([-1, 1]))
        if not 0 <= other < len(scan.image) or excluded_slices(scan.shows(exclude), rule)[[z, other]].any():
            continue
        if len(np.unique(scan.regions[z])) > 3:
            return tuple(torch.from_numpy(a) for i in (z, other) for a in (scan.grey(i), scan.regions[i].astype(np.int64)))
    raise VolumeError(
        f"No pair of slices with more than three regions in {TRIES} draws",
        "scans of several slices, cut into several regions each, that are not all excluded",
        "prepare the scans with a smaller --min-size, or exclude fewer labels",
    )
