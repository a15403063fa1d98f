"""Regions that training carries from slice to slice: large 3D Felzenszwalb supervoxels (adnet_qnet_rpt_pami_qamp.md, section 2).

Felzenszwalb and Huttenlocher, IJCV 2004; the 3D form with spacing weights is that of ADNet (Hansen et al., MedIA 2022).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from scipy import ndimage

from fewshotseg_training.body import body_mask, scale_to_255
from FewShotSegLib.errors import ConfigError

__all__ = ["body_mask", "felzenszwalb_3d", "scale_to_255", "supervoxels"]

Order = Literal["stable", "numpy-introsort"]


def felzenszwalb_3d(
    volume: np.ndarray,
    spacing: tuple[float, float, float],
    *,
    scale: float = 1.0,
    sigma: float = 0.0,
    min_size: int = 5000,
    order: Order = "stable",
) -> np.ndarray:
    """Segment `volume` (z, y, x), values 0..255, with `spacing` (z, y, x) in mm.

    Returns labels (z, y, x) int32, 0..n-1 ordered by first voxel. Edges of equal cost keep the published list order
    (a stable sort), so the result is the same on every machine. `numpy-introsort` puts them into the order of NumPy's
    scalar quicksort, which made the published supervoxels of integer scans; it takes several times longer.
    Other threads run meanwhile. Raises ConfigError when the compiled core was not built.
    """
    segment = _compiled_core()
    if order not in ("stable", "numpy-introsort"):
        raise ConfigError(f"The order {order!r} of equal edges", "stable or numpy-introsort", "correct it")
    if sigma > 0:
        volume = ndimage.gaussian_filter(volume.astype(np.float64), sigma / np.asarray(spacing))
    volume = np.ascontiguousarray(volume, np.float64)
    return segment(volume, scale / 255.0, min_size, spacing[0] / spacing[1], order == "numpy-introsort")


def _compiled_core() -> Callable[..., np.ndarray]:
    try:
        from fewshotseg_training._felzenszwalb import segment
    except ImportError as error:
        raise ConfigError(
            f"The compiled core of the supervoxels is not there ({error})",
            "fewshotseg_training._felzenszwalb, built when the package is installed",
            "install a C++ compiler (Debian: g++, macOS: xcode-select --install, Windows: Visual Studio Build Tools) and then "
            "the package again",
        ) from error
    return segment


def supervoxels(
    volume: np.ndarray, spacing: tuple[float, float, float], *, min_size: int = 5000, order: Order = "stable"
) -> np.ndarray:
    """Supervoxel ids (z, y, x) int32 of a raw scan; 0 is outside the body, the first region is renamed to max + 1."""
    scaled = scale_to_255(volume)
    labels = felzenszwalb_3d(scaled, spacing, min_size=min_size, order=order)
    labels[labels == 0] = labels.max() + 1
    labels[~body_mask(scaled)] = 0
    return labels
