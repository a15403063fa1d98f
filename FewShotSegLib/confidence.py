"""How sure a result is, from what can be measured without the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.strategies import Answer

POOR, GOOD = 0.55, 0.9  # best similarity of a cell that is surely wrong, and surely right


@dataclass(frozen=True, eq=False)
class Confidence:
    """0..1 per organ (organ,) and per slice of the scan (organ, z); NaN where the organ is absent."""

    organs: np.ndarray
    slices: np.ndarray


def confidence_of(answer: Answer, scan: EncodedScan, index: np.ndarray) -> Confidence:
    """Mean, over an organ's cells, of its share in the attention times the quality of the best match there.

    `index` (z, y, x): the final labels, 1.. = organs in order.
    """
    sure = _cell_certainty(answer)
    organs = answer.scores.shape[1] - 1
    winner = answer.scores.argmax(1)
    per_organ, per_slice = np.full(organs, np.nan), np.full((organs, len(index)), np.nan)
    for organ in range(organs):
        there = np.any(index == organ + 1, axis=(1, 2))
        if not there.any():
            continue
        weight = (winner == organ + 1).float()
        if weight.sum() == 0:  # thinner than a cell
            weight = answer.carried.values[:, organ + 1]
        per_organ[organ] = float((sure[:, organ] * weight).sum() / weight.sum().clamp(min=1e-6))
        per_slice[organ, there] = _along_scan(sure[:, organ], weight, scan, per_organ[organ])[there]
    return Confidence(per_organ, per_slice)


def _cell_certainty(answer: Answer) -> Tensor:
    """(n, organs, h, w) 0..1"""
    share = answer.scores[:, 1:].sigmoid() if answer.margins else answer.scores[:, 1:]
    quality = ((answer.carried.best - POOR) / (GOOD - POOR)).clamp(0, 1)
    return share.clamp(0, 1) * quality[:, None]


def _along_scan(sure: Tensor, weight: Tensor, scan: EncodedScan, otherwise: float) -> np.ndarray:
    """Confidence of every slice of the scan's own array (z,), interpolated between encoded slices."""
    mass = weight.sum((1, 2))
    mean = torch.where(mass > 0, (sure * weight).sum((1, 2)) / mass.clamp(min=1e-6), torch.tensor(otherwise)).numpy()
    grid = scan.grid
    if not grid.native_slice_axis_is_axial:
        return np.full(grid.native.shape[0], otherwise)
    order = np.array([grid.slice_of_native(k) for k in range(grid.shape[0])])
    return np.interp(np.arange(grid.shape[0]), scan.slices, mean)[order]
