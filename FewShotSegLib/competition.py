"""Borders by competition: every pixel goes to the label whose surroundings look like it.

Around every pixel each label has a mean and a variance of its own (local Gaussian intensities: Wang, He, Mishra and Li, Signal
Processing 2009), weighted by the fractions that the cells say. A wide organ is compared with what lies beside it right here, so
that neither shading nor an uneven organ matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy import ndimage

RADIUS = 10  # pixels of the network's grid: the surroundings
NOISE = 0.02  # variance of the normalised image that every label has at least
LIMIT = 2.0  # logits that the intensities may say at the most: without a place, they say nothing
RARE = 1e-3  # fraction of the surroundings from which a label has intensities of its own
BESIDE = 0.02  # part of labels that keep still in the surroundings of a pixel, from which it keeps still, too
TINY = 1e-4


def compete(fractions: np.ndarray, image: np.ndarray, still: Sequence[int] = ()) -> np.ndarray:
    """Fractions (1 + organs, slices, H, W), channel 0 = background, after a look at the image (slices, H, W).

    The intensities decide between labels by at most `LIMIT` logits, each against background. What a pixel's fractions sum to
    stays. Pixels beside the channels `still` stay as they are: organs so thin that their surroundings are another organ.
    """
    prior = fractions.clip(0) + TINY
    shares = prior / prior.sum(0)
    competing = [label for label in range(len(shares)) if label not in still]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        background, *organs = threads.map(lambda label: _likelihood(shares[label], image), competing)
    found = prior.copy()
    for label, likelihood in zip(competing[1:], organs, strict=True):
        found[label] *= np.exp((likelihood - background).clip(-LIMIT, LIMIT))
    found *= prior.sum(0) / found.sum(0)
    return np.where(beside(prior, still), prior, found)


def beside(fractions: np.ndarray, channels: Sequence[int]) -> np.ndarray:
    """Whether some of these channels of fractions (v, slices, H, W) lie in the surroundings of a pixel: bool (slices, H, W)."""
    return _surroundings(fractions[list(channels)].sum(0)) > BESIDE


def _surroundings(values: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter(values, (1, 2 * RADIUS + 1, 2 * RADIUS + 1))


def _likelihood(weights: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Log likelihood of each pixel under the Gaussian of its surroundings, weighted (slices, H, W)."""
    weight = _surroundings(weights) + RARE
    mean = _surroundings(weights * image) / weight
    variance = np.maximum(_surroundings(weights * image * image) / weight - mean**2, 0) + NOISE
    return log_gaussian(image, mean, variance)


def log_gaussian(image: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Log likelihood of pixels under Gaussians, but for a constant; shapes as they broadcast."""
    return -((image - mean) ** 2) / (2 * variance) - np.log(variance) / 2
