"""Tones: how bright organs are where they were drawn. They part thin organs from what they touch, such as muscle from blood.

A cell is as wide as a heart's muscle, and cells of a small heart look much like those inside a large one. Pixels do not: both
scans are normalised, so that muscle and blood are about as bright as they were where somebody drew them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from FewShotSegLib.competition import NOISE, TINY, beside, log_gaussian
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import EncodedScan, cell_fractions

WIDER = 2.0  # times the spread among drawn pixels: another scan may be a little brighter or darker
LIMIT = 2.0  # logits that tones may say at the most
QUARTILES = 1.35  # standard deviations of a Gaussian between its quartiles
CLEAR = 0.4  # squared difference of two tones over the sum of their variances, from which they set organs apart
FEW = 10  # pixels: an organ of which fewer are drawn has no tone


@dataclass(frozen=True, eq=False)
class Tones:
    """Median and variance of the normalised image in every organ (organs,), where it was drawn; `thin`: organ numbers."""

    level: np.ndarray
    variance: np.ndarray
    thin: tuple[int, ...]

    @classmethod
    def of(cls, supports: Sequence[EncodedSupport], thin: Sequence[int]) -> Tones | None:
        """The tones of all drawn pixels, for those of the `thin` organs that differ clearly from another organ.

        None without any, or where an organ has hardly a pixel.
        """
        if not thin:
            return None
        pixels = _drawn_pixels(supports)
        if min(map(len, pixels)) < FEW:
            return None
        low, level, high = np.array([np.percentile(p, (25, 50, 75)) for p in pixels]).T
        tones = cls(level, (WIDER * (high - low) / QUARTILES) ** 2 + NOISE, tuple(thin))
        distinct = tuple(organ for organ, clear in zip(thin, tones.clear, strict=True) if clear.any())
        return replace(tones, thin=distinct) if distinct else None

    @property
    def clear(self) -> np.ndarray:
        """Whether each thin organ differs clearly from each organ: bool (thin, organs)."""
        thin = list(self.thin)
        apart = self.level[thin][:, None] - self.level[None]
        return apart**2 > CLEAR * (self.variance[thin][:, None] + self.variance[None])

    def hold_in(self, scan: EncodedScan, fractions: torch.Tensor) -> bool:
        """Whether thin organs are brighter, or darker, than others in the scan too, by its fractions (n, 1 + organs, h, w).

        Asked of the pairs whose tones differ clearly. Without a contradiction they hold.
        """
        weights = fractions[:, 1:].clamp(min=0).square().cpu().numpy()
        bright = cell_fractions(scan.pixels(scan.slices)).numpy()[:, None]
        mean = (weights * bright).sum((0, 2, 3)) / (weights.sum((0, 2, 3)) + TINY)
        drawn, found = (levels[list(self.thin)][:, None] - levels[None] for levels in (self.level, mean))
        return not (self.clear & (drawn * found < 0)).any()

    def share(self, fractions: np.ndarray, image: np.ndarray) -> np.ndarray:
        """Fractions (1 + organs, slices, H, W) after organs near thin ones shared their sum anew by their tones.

        image: (slices, H, W), normalised. Background stays as it is.
        """
        organs = fractions[1:].clip(0) + TINY
        total = organs.sum(0)
        level, variance = (part[:, None, None, None].astype(np.float32) for part in (self.level, self.variance))
        likelihood = log_gaussian(image, level, variance)
        beyond_mean = likelihood - (likelihood * organs).sum(0) / total
        shared = organs * np.exp(beyond_mean.clip(-LIMIT, LIMIT))
        near = beside(organs, self.thin)
        return np.concatenate([fractions[:1], np.where(near, shared * (total / shared.sum(0)), organs)])


def _drawn_pixels(supports: Sequence[EncodedSupport]) -> list[np.ndarray]:
    """Normalised values of each organ's drawn pixels in all supports."""
    values: list[list[np.ndarray]] = [[] for _ in supports[0].masks]
    for support in supports:
        slices = np.flatnonzero(support.drawn.any(0))
        pixels = support.scan.pixels(support.scan.slices[slices])
        for found, mask, drawn in zip(values, support.masks, support.drawn, strict=True):
            inside = (mask[torch.from_numpy(slices)] > 0.5).numpy() & drawn[slices, None, None]
            found.append(pixels[inside])
    return [np.concatenate(found) for found in values]
