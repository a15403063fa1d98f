"""In-plane resampling of slices, aligned by the area of their pixels: the outer edges of both grids coincide."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from FewShotSegLib.errors import ConfigError

SMOOTH_FROM = 1.2  # shrinking by more than this is smoothed first


def resample_slices(slices: np.ndarray, shape: tuple[int, int], *, order: int) -> np.ndarray:
    """Resample every slice of a (slice, row, column) array to `shape`, (rows, columns).

    Args:
        slices: any real type.
        shape: the new (rows, columns); nothing is interpolated when it is the present one.
        order: 0 takes the nearest pixel and keeps the type; 1 is linear, smoothed against aliasing when it shrinks, in float32.
    """
    if order not in (0, 1):
        raise ConfigError(f"Interpolation of order {order}", "0 (nearest) or 1 (linear)")
    if slices.shape[1:] == shape:
        return slices.astype(np.float32 if order else slices.dtype, copy=False)
    if order == 0:
        return _nearest(slices, shape)
    shrinks = any(old > SMOOTH_FROM * new for old, new in zip(slices.shape[1:], shape, strict=True))
    pixels = torch.from_numpy(slices.astype(np.float32, order="C"))[:, None]
    resampled = F.interpolate(pixels, size=shape, mode="bilinear", align_corners=False, antialias=shrinks)
    return resampled[:, 0].numpy()


def _nearest(slices: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = (nearest_indices(old, new) for old, new in zip(slices.shape[1:], shape, strict=True))
    return slices[:, rows[:, None], columns[None, :]]


def nearest_indices(old: int, new: int) -> np.ndarray:
    """For each of `new` pixels, the one of `old` pixels over the same extent that holds its centre."""
    return (2 * np.arange(new) + 1) * old // (2 * new)
