"""Which of an organ's pieces is the organ: the support's cells say where in the query they find themselves.

A query cell takes the best that the support has near its place, however little that is. Of a scan with another contrast or field
of view, false pieces come of it that are larger than the organ. But a cell of the support's organ that may look for itself among
all of them finds the organ: the question put the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from FewShotSegLib.correspondence import ScanFeatures

VOTERS = 400  # cells of an organ of a support that are asked at the most
SURE = 0.5  # fraction of a cell from which it speaks for the organ
POSSIBLE = 0.1  # fraction that was carried to a cell, from which it may be chosen
BY_SIZE = 1e-3  # of all votes: shared out evenly, so that of pieces that nobody chose the largest counts most


def count_votes(query: ScanFeatures, supports: Sequence[tuple[ScanFeatures, Tensor]], carried: Tensor) -> Tensor:
    """Votes (n, organs, h, w) of the supports' cells, 1 for each organ in sum: each chooses the cell that it is most like.

    Args:
        query: features of n slices.
        supports: with their values (m, 1 + organs, h, w).
        carried: fractions (n, 1 + organs, h, w) that the query's cells got from them; only cells with some may be chosen.
    """
    features = query.features.permute(0, 2, 3, 1)
    votes = torch.zeros_like(carried[:, 1:])
    for organ in range(votes.shape[1]):
        possible = (carried[:, 1 + organ] > POSSIBLE) & query.inside
        if not possible.any():
            continue
        among = features[possible].float().T
        share = torch.full(among.shape[1:], BY_SIZE / among.shape[1])
        for support, values in supports:
            chosen = (_speakers(support, values[:, 1 + organ]) @ among).argmax(1)
            share += torch.bincount(chosen, minlength=len(share)) / max(1, len(chosen)) / len(supports)
        votes[:, organ][possible] = share
    return votes


def _speakers(support: ScanFeatures, fractions: Tensor) -> Tensor:
    """Features (k, c) of cells that hold the organ, evenly spread over it."""
    cells = support.features.permute(0, 2, 3, 1)[(fractions >= SURE) & support.inside].float()
    return cells[:: -(-max(1, len(cells)) // VOTERS)]
