"""Regions that training carries from slice to slice: large 3D Felzenszwalb supervoxels (adnet_qnet_rpt_pami_qamp.md, section 2).

Felzenszwalb and Huttenlocher, IJCV 2004; the 3D form with spacing weights is that of ADNet (Hansen et al., MedIA 2022).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fewshotseg_training._felzenszwalb import segment

BODY_THRESHOLD = 10.0  # of 255


def scale_to_255(volume: np.ndarray) -> np.ndarray:
    """Volume (z, y, x) stretched to 0..255, float64; a constant volume becomes zeros."""
    v = volume.astype(np.float64)
    span = v.max() - v.min()
    return np.zeros_like(v) if span == 0 else 255.0 * (v - v.min()) / span


def felzenszwalb_3d(
    volume: np.ndarray,
    spacing: tuple[float, float, float],
    *,
    scale: float = 1.0,
    sigma: float = 0.0,
    min_size: int = 5000,
) -> np.ndarray:
    """Segment `volume` (z, y, x), values 0..255, with `spacing` (z, y, x) in mm.

    Returns labels (z, y, x) int32, 0..n-1 ordered by first voxel. Edges of equal cost keep the published list order
    (a stable sort), so the result is the same on every machine.
    """
    if sigma > 0:
        volume = ndimage.gaussian_filter(volume.astype(np.float64), sigma / np.asarray(spacing))
    volume = np.ascontiguousarray(volume, np.float64)
    return segment(volume, scale / 255.0, min_size, spacing[0] / spacing[1])


def body_mask(volume: np.ndarray, threshold: float = BODY_THRESHOLD) -> np.ndarray:
    """Largest bright region of each slice with its holes filled; `volume` (z, y, x) in 0..255, result bool."""
    mask = np.zeros(volume.shape, bool)
    for z, bright in enumerate(volume > threshold):
        labels, n = ndimage.label(bright, np.ones((3, 3)))
        if n:
            sizes = np.bincount(labels.ravel())[1:]
            mask[z] = ndimage.binary_fill_holes(labels == 1 + sizes.argmax())
    return mask


def supervoxels(volume: np.ndarray, spacing: tuple[float, float, float], *, min_size: int = 5000) -> np.ndarray:
    """Supervoxel ids (z, y, x) int32 of a raw scan; 0 is outside the body, the first region is renamed to max + 1."""
    scaled = scale_to_255(volume)
    labels = felzenszwalb_3d(scaled, spacing, min_size=min_size)
    labels[labels == 0] = labels.max() + 1
    labels[~body_mask(scaled)] = 0
    return labels
