"""Carried labels settle: every cell of the query asks the cells around it, in its own scan, that look like it.

Each cell was labelled by itself, after a support that looks a little different. Cells of one scan know each other better: one
that was taken for a neighbouring organ, or for background, lies among cells of its own kind that were not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures, Window
from FewShotSegLib.methods.match import TINY, MatchConfig
from FewShotSegLib.neighbours import Neighbours
from FewShotSegLib.pieces import largest_pieces
from FewShotSegLib.strategies.closer import around_thin

SEEN = 0.02  # fraction of all organs from which a cell, or one beside it, is asked
LOST = 1 / 3  # part of the cells that are an organ's; one that has fewer left is wiped out
FAITHFUL = 0.05  # part that what was carried keeps in every pass
FURTHER = 1.9  # times as far as the neighbours say, but for the last pass: half the passes come as far
CLEARED = (3, 6, 9, 12)  # passes before which islands are cleared: not the first ones, in which many vanish by themselves


def settle(
    query: ScanFeatures,
    values: Tensor,
    config: MatchConfig,
    thin: Sequence[int] = (),
    *,
    drawn: Tensor | None = None,
    pieces: Sequence[int] | None = None,
    votes: Tensor | None = None,
) -> Tensor:
    """Fractions (n, v, h, w) after `config.settle_passes` rounds.

    Those of `thin` organs stay, which would be outvoted, and so do the cells beside them, which look half like them.
    In each round the fractions are squared and shared out anew, so that the surer cells tell the others.
    `drawn`: bool (n, v), the slices and channels that somebody drew: they stay, too. `pieces`: of how many connected pieces each
    organ consists; others are cleared on the way, or they would grow together with it. `votes`: how much each cell counts for
    its piece (n, organs, h, w), see `votes.py`; as much as its fraction without.
    """
    window = Window(config.settle_temperature, config.sigma, config.radius, config.reach_mm, query.slice_mm, query.cell_mm)
    seen = F.max_pool3d((1 - values[:, :1]).transpose(0, 1), 3, 1, 1)[0] > SEEN
    wanted = seen & query.inside & ~around_thin(values, thin)
    neighbours = Neighbours(query.features, window, wanted)
    keep = [1 + organ for organ in thin]
    share = [v for v in range(values.shape[1]) if v not in keep]
    carried = values.clamp(min=0)
    for count in range(config.settle_passes):
        if pieces is not None and count in CLEARED:
            values = _without_islands(values, pieces, thin, values[:, 1:] if votes is None else votes)
        surer = values.clamp(min=0).square()
        found = neighbours.mean(surer / surer.sum(1, keepdim=True).clamp(min=1e-6)).lerp(carried, FAITHFUL)[:, share]
        if count + 1 < config.settle_passes:
            found = values[:, share].lerp(found, FURTHER).clamp(min=0)
        left = (1 - values[:, keep].sum(1, keepdim=True)).clamp(min=0)
        found = found * left / found.sum(1, keepdim=True).clamp(min=1e-6)
        settled = values.clone()
        settled[:, share] = torch.where(wanted[:, None], found, values[:, share])
        values = settled if drawn is None else torch.where(drawn[..., None, None], values, settled)
    return _without_losses(values, carried, pieces, votes)


def _without_losses(values: Tensor, carried: Tensor, pieces: Sequence[int] | None, votes: Tensor | None) -> Tensor:
    """Fractions in which organs that settling has wiped out are as they were carried: nothing in the image sets them apart.

    Where pieces are to be chosen, only those that would be kept of what was carried tell: others are cleared with good reason.
    """
    before, after = carried.argmax(1), values.argmax(1)
    for organ in range(1, values.shape[1]):
        there = before == organ
        if pieces is not None and there.any():
            weight = carried[:, organ] if votes is None else votes[:, organ - 1]
            kept = largest_pieces(there.cpu().numpy(), pieces[organ - 1], weight.cpu().numpy())
            there = torch.from_numpy(kept).to(there.device)
        if (after[there] == organ).sum() < LOST * there.sum():
            values = torch.where(there[:, None], carried, values)
    return values


def _without_islands(values: Tensor, pieces: Sequence[int], thin: Sequence[int], weights: Tensor) -> Tensor:
    """Fractions without the lighter pieces of organs, where each has more than `pieces` of them; `weights` (n, organs, h, w).

    What was carried there is not forgotten: a piece that was cleared wrongly may come back.
    """
    winner, islands = values.argmax(1).cpu().numpy(), torch.zeros_like(values, dtype=torch.bool)
    for organ, count in enumerate(pieces):
        mine = winner == organ + 1
        if organ not in thin and mine.any():
            weight = weights[:, organ].cpu().numpy()
            islands[:, organ + 1] = torch.from_numpy(mine & ~largest_pieces(mine, count, weight))
    left = values.clamp(min=0).masked_fill(islands, 0)
    left[:, :1] += (left.sum(1, keepdim=True) < TINY).float()
    return torch.where(islands.any(1, keepdim=True), left / left.sum(1, keepdim=True), values)
