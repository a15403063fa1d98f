"""Where the body is on each slice."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

BODY_THRESHOLD = 10.0  # of 255


def body_mask(volume: np.ndarray, threshold: float = BODY_THRESHOLD) -> np.ndarray:
    """Largest 8-connected region above `threshold` of each slice with its holes filled; `volume` (z, y, x), result bool."""
    mask = np.zeros(volume.shape, bool)
    for z, bright in enumerate(volume > threshold):
        labels, n = ndimage.label(bright, np.ones((3, 3)))
        if n:
            sizes = np.bincount(labels.ravel())[1:]
            mask[z] = ndimage.binary_fill_holes(labels == 1 + sizes.argmax())
    return mask


def scale_to_255(volume: np.ndarray) -> np.ndarray:
    """Volume (z, y, x) stretched to 0..255, float64; a constant volume becomes zeros."""
    v = volume.astype(np.float64)
    span = v.max() - v.min()
    return np.zeros_like(v) if span == 0 else 255.0 * (v - v.min()) / span
