"""2D Felzenszwalb superpixels of a scan's slices (SSL-ALPNet, Ouyang et al., ECCV 2020: alpnet_visa.md section 2)."""

from __future__ import annotations

import numpy as np
from skimage.segmentation import felzenszwalb

from fewshotseg_training.body import BODY_THRESHOLD, body_mask


def superpixels(
    volume: np.ndarray,
    *,
    threshold: float = BODY_THRESHOLD,
    min_size: int = 400,
    sigma: float = 1.0,
    reference_numbering: bool = False,
) -> np.ndarray:
    """Superpixel ids (z, y, x) int32 of grey values (z, y, x) that are not normalised; 0 is outside the body.

    Every slice is numbered on its own, 1..n without gaps. `min_size`, in pixels, decides the result: at values of 0..255 the
    merging criterion itself hardly ever merges. `reference_numbering`: as released, where the first superpixel is dropped by
    a slip, and the last number is one too large.
    """
    labels = np.stack([felzenszwalb(s.astype(np.float64), scale=1, sigma=sigma, min_size=min_size) for s in volume])
    body = body_mask(volume, threshold)
    if reference_numbering:
        last = labels.max((1, 2), keepdims=True)
        return (np.where(labels == last, last + 1, labels) * body).astype(np.int32)
    return np.stack([_contiguous((s + 1) * b) for s, b in zip(labels, body, strict=True)])


def _contiguous(ids: np.ndarray) -> np.ndarray:
    """Ids renumbered 0..n without gaps, 0 staying 0."""
    values, found = np.unique(ids, return_inverse=True)
    return (found.reshape(ids.shape) + (values[0] != 0)).astype(np.int32)
