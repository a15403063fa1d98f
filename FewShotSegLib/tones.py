"""Tones: how bright organs are where they were drawn. They part thin organs from what they touch, such as muscle from blood.

A cell is as wide as a heart's muscle, and cells of a small heart look much like those inside a large one. Pixels do not: both
scans are normalised, so that muscle and blood are about as bright as they were where somebody drew them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from FewShotSegLib.competition import NOISE, TINY, beside
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import EncodedScan, cell_fractions

WIDER = 2.0  # times the spread among drawn pixels: another scan may be a little brighter or darker
LIMIT = 2.0  # logits that tones may say at the most
QUARTILES = 1.35  # standard deviations of a Gaussian between its quartiles
FEW = 10  # pixels: an organ of which fewer are drawn has no tone


@dataclass(frozen=True, eq=False)
class Tones:
    """Median and variance of the normalised image in every organ (organs,), where it was drawn; `thin`: organ numbers."""

    level: np.ndarray
    variance: np.ndarray
    thin: tuple[int, ...]

    @classmethod
    def of(cls, supports: Sequence[EncodedSupport], thin: Sequence[int]) -> Tones | None:
        """The tones of all drawn pixels; None without thin organs, or where an organ has hardly any pixel."""
        if not thin:
            return None
        pixels = [_drawn_pixels(supports, organ) for organ in range(len(supports[0].masks))]
        if min(map(len, pixels)) < FEW:
            return None
        low, level, high = np.array([np.percentile(p, (25, 50, 75)) for p in pixels]).T
        return cls(level, (WIDER * (high - low) / QUARTILES) ** 2 + NOISE, tuple(thin))

    def hold_in(self, scan: EncodedScan, fractions: torch.Tensor) -> bool:
        """Whether thin organs are brighter, or darker, than others in the scan too, by its fractions (n, 1 + organs, h, w).

        Asked of the pairs whose tones differ clearly. Without a contradiction they hold.
        """
        weights = fractions[:, 1:].clamp(min=0).square().numpy()
        bright = cell_fractions(scan.pixels(scan.slices)).numpy()[:, None]
        mean = (weights * bright).sum((0, 2, 3)) / (weights.sum((0, 2, 3)) + TINY)
        drawn, found = (levels[list(self.thin)][:, None] - levels[None] for levels in (self.level, mean))
        clear = drawn**2 > self.variance[list(self.thin)][:, None] + self.variance[None]
        return not (clear & (drawn * found < 0)).any()

    def share(self, fractions: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Fractions (1 + organs, slices, H, W) after organs near thin ones shared their sum anew by their tones.

        image: (slices, H, W), normalised. Background stays as it is.
        """
        organs = fractions[1:].clip(0) + TINY
        total = organs.sum(0)
        level, variance = (part[:, None, None, None].astype(np.float32) for part in (self.level, self.variance))
        likelihood = -((image - level) ** 2) / (2 * variance) - np.log(variance) / 2
        beyond_mean = likelihood - (likelihood * organs).sum(0) / total
        shared = organs * np.exp(beyond_mean.clip(-LIMIT, LIMIT))
        near = beside(organs, self.thin)
        return np.concatenate([fractions[:1], np.where(near, shared * (total / shared.sum(0)), organs)])


def _drawn_pixels(supports: Sequence[EncodedSupport], organ: int) -> np.ndarray:
    """Normalised values of an organ's drawn pixels in all supports."""
    values = []
    for support in supports:
        drawn = np.flatnonzero(support.drawn[organ])
        pixels = support.scan.pixels(support.scan.slices[drawn])
        values.append(pixels[(support.masks[organ][torch.from_numpy(drawn)] > 0.5).numpy()])
    return np.concatenate(values)
