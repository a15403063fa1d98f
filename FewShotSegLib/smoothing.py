"""Gaussian smoothing of displacement fields that trusts some cells more than others."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def weighted_smooth(field: Tensor, weight: Tensor, sigma: tuple[float, ...], floor: float = 1e-4) -> Tensor:
    """Weighted Gaussian mean of `field` (k, n, h, w) with `weight` (n, h, w); `sigma` in cells of (n, h, w).

    `floor` is added to the summed weights: far from every trusted cell the result goes to zero.
    """
    w = weight.detach().cpu().float().numpy()
    total = ndimage.gaussian_filter(w, sigma) + floor
    smooth = [ndimage.gaussian_filter(f * w, sigma) / total for f in field.detach().cpu().float().numpy()]
    return torch.from_numpy(np.stack(smooth)).to(field)
