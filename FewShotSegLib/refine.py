"""Borders at full resolution: scores on cells, made to follow the edges of the image.

The guided filter (He, Sun and Tang, TPAMI 2013): within every small window a score is a linear function of the image, so that
it steps where the image steps and stays smooth where the image is flat. Fractions compete for the pixels before (`competition`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import ndimage

from FewShotSegLib.competition import compete
from FewShotSegLib.tones import Tones

RADIUS = 6  # pixels of the network's grid
THIN_RADIUS = 3  # for organs that are themselves hardly wider than a window of the other, and after a competition
EPSILON = 0.02  # variance of the normalised image below which a window counts as flat
NEAR = 0.02  # scores below are left as they are


def guided_filter(scores: np.ndarray, image: np.ndarray, radius: int = RADIUS, epsilon: float = EPSILON) -> np.ndarray:
    """Filter scores (v, slices, H, W), slice by slice, with the image (slices, H, W) as the guide."""

    def mean(values: np.ndarray) -> np.ndarray:
        size = (1,) * (values.ndim - 2) + (2 * radius + 1,) * 2
        return ndimage.uniform_filter(values, size, mode="nearest")

    mean_image = mean(image)
    flat = mean(image * image) - mean_image**2 + epsilon

    def filtered(score: np.ndarray) -> np.ndarray:
        mean_score = mean(score)
        slope = (mean(image * score) - mean_image * mean_score) / flat
        return mean(slope) * image + mean(mean_score - slope * mean_image)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return np.stack(list(threads.map(filtered, scores)))


def refine(
    scores: np.ndarray,
    image: np.ndarray,
    thin: Sequence[int] = (),
    *,
    margins: bool = False,
    competing: bool = False,
    tones: Tones | None = None,
) -> None:
    """Refine fractions or `margins` (1 + organs, slices, H, W), in place, inside the box that holds all organs.

    Slices without any organ stay as they are. `thin`: numbers of organs for which the windows are smaller. What these get
    more or less than with the others' windows, background gets less or more, unless its score is that of no margin.
    `competing`: fractions compete for the pixels first, but not beside thin organs, for which `tones` speak.
    """
    organs = scores[1:].max(0)
    slices = np.flatnonzero(organs.max((1, 2)) > NEAR)
    if not len(slices):
        return
    box = ndimage.find_objects((organs.max(0) > NEAR).astype(np.uint8))[0]
    rows, columns = (slice(max(0, s.start - 2 * RADIUS), s.stop + 2 * RADIUS) for s in box)
    part, guide = scores[:, slices, rows, columns], image[slices, rows, columns]
    if competing:
        part = compete(part, guide, [1 + organ for organ in thin])
        part = part if tones is None else tones.share(part, guide)
        found = guided_filter(part, guide, THIN_RADIUS)
    else:
        found = guided_filter(part, guide)
        for organ in thin:
            sharper = guided_filter(part[1 + organ][None], guide, THIN_RADIUS)[0]
            if not margins:
                found[0] += found[1 + organ] - sharper
            found[1 + organ] = sharper
    scores[:, slices, rows, columns] = found
