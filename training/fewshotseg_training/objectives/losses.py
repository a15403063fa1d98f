"""Losses that several methods share. Axes: n slices, H W pixels; probabilities (n 2 H W), background first.

Source: adnet_qnet_rpt_pami_qamp.md sections 4.3 (likelihood) and 8.5 (boundaries).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = 255
BACKGROUND_WEIGHT = 0.1
TINY = 1e-7


def likelihood_loss(probabilities: Tensor, labels: Tensor, *, background: float = BACKGROUND_WEIGHT) -> Tensor:
    """Negative log likelihood of labels (n H W) in {0, 1, 255 = ignore}, averaged with the weights of the classes.

    `background=1` is the unweighted form of the alignment losses. Zero when all pixels are ignored.
    """
    eps = torch.finfo(torch.float32).eps
    weight = probabilities.new_tensor([background, 1.0])
    logs = probabilities.clamp(eps, 1 - eps).log()
    total = F.nll_loss(logs, labels.long(), weight=weight, ignore_index=IGNORE, reduction="sum")
    return total / (background * (labels == 0).sum() + (labels == 1).sum()).clamp(min=TINY)


def boundary_loss(probabilities: Tensor, labels: Tensor, *, width: int = 3, reach: int = 5) -> Tensor:
    """One minus the F measure of soft boundaries, `width` pixels wide, that may miss each other by `reach` // 2 pixels.

    Mean over slices and both classes; labels (n H W) in {0, 1}.
    """
    truth = F.one_hot(labels.long(), 2).movedim(-1, 1).to(probabilities.dtype)
    found, wanted = _edges(probabilities, width), _edges(truth, width)
    precision = (found * _dilated(wanted, reach)).sum((2, 3)) / (found.sum((2, 3)) + TINY)
    recall = (_dilated(found, reach) * wanted).sum((2, 3)) / (wanted.sum((2, 3)) + TINY)
    return (1 - 2 * precision * recall / (precision + recall + TINY)).mean()


def _dilated(maps: Tensor, side: int) -> Tensor:
    return F.max_pool2d(maps, side, 1, side // 2)


def _edges(maps: Tensor, width: int) -> Tensor:
    """What dilation adds to everything else of a class: its own inner edge."""
    return _dilated(1 - maps, width) - (1 - maps)
