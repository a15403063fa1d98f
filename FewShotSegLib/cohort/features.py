"""What can be measured of a result without the truth, and says how good it probably is. All on the cells of the network.

Every feature is oriented so that more is better. Others were measured and did not help scans of data sets that they were not
chosen on: see the notes of the training package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import EncodedScan, cell_fractions
from FewShotSegLib.methods.match import Match, MatchConfig
from FewShotSegLib.segmenter import Solved
from FewShotSegLib.strategies.answer import completed

VOTERS = 1600  # cells of the scan that ask
AT_ONCE = 400  # of them
KEYS = 40_000  # cells of the support that are asked
NEAR, IN_BODY = 0.05, 0.1  # fraction of a cell
WORST = 0.25  # of an organ
STEADIEST = 1.5
TINY = 1e-6

DESCRIPTIONS: Mapping[str, str] = {
    "confidence": "the method's own: attention share times quality of the best match",
    "worst": "mean attention share on the quarter of the organ whose slices have the lowest",
    "steady": "Dice of neighbouring slices, relative to that on the support",
    "votes": "Dice of the result with what the most similar cells of the whole support say, without any registration",
}


@dataclass(frozen=True, eq=False)
class _Pair:
    """A solved scan and the support that is most like it: fractions (n, organs, h, w) of the result and of the drawing.

    `share`: the answer's (n, organs, H, W), finer than the cells after a closer look; `weight`: the result's as finely.
    """

    query: EncodedScan
    support: EncodedSupport
    found: Tensor
    drawn: Tensor
    share: Tensor
    weight: Tensor


def measure(solved: Solved, confidence: np.ndarray, matcher: Match | None = None) -> list[dict[str, float]]:
    """The features of every organ, by name; an empty mapping for an organ that was not found.

    Args:
        solved: the scan; not one that teaches itself.
        confidence: of the organs, (organ,).
        matcher: the method, where it is `match`.
    """
    pair = _pair(solved, matcher or Match(MatchConfig()))
    voted, found = _votes(pair)
    measured: list[dict[str, float]] = []
    for organ in range(pair.found.shape[1]):
        weight = pair.found[:, organ]
        if not (solved.index == organ + 1).any() or weight.sum() < TINY:
            measured.append({})
            continue
        steady = _steady(weight) / max(_steady(pair.drawn[:, organ]), 0.1)
        features = {
            "confidence": float(confidence[organ]),
            "worst": _worst(pair.share[:, organ], pair.weight[:, organ]),
            "steady": min(STEADIEST, steady),
            "votes": _dice(voted[organ], found[organ]),
        }
        measured.append({name: round(value, 5) for name, value in features.items()})
    return measured


def _pair(solved: Solved, matcher: Match) -> _Pair:
    """The final labels as fractions of cells, and the nearest support's drawing (completed where it is sparse)."""
    support, scan = solved.supports[0], solved.scan
    organs = len(support.masks)
    masks = [scan.grid.forward_slices(solved.index == o + 1, scan.slices, order=1, fill=0.0) for o in range(organs)]
    found = torch.stack([cell_fractions(mask) for mask in masks], 1)
    drawn = completed(support, matcher)[:, 1:]
    finer = solved.answer.finer
    if finer is None:
        return _Pair(scan, support, found, drawn, solved.answer.carried.values[:, 1:], found)
    weight = F.adaptive_avg_pool2d(torch.from_numpy(np.stack(masks, 1)), (finer.shape[2], finer.shape[3]))
    return _Pair(scan, support, found, drawn, finer[:, 1:], weight)


def _worst(share: Tensor, weight: Tensor) -> float:
    """Mean of `share` on the slices (n, h, w) where it is lowest, as many as make up a quarter of the organ."""
    mass = weight.sum((1, 2))
    mean = (share * weight).sum((1, 2)) / mass.clamp(min=TINY)
    order = mean.argsort()
    mass, mean = mass[order], mean[order]
    taken = torch.minimum(mass, (WORST * mass.sum() - (mass.cumsum(0) - mass)).clamp(min=0))
    return float((taken * mean).sum() / taken.sum().clamp(min=TINY))


def _steady(fractions: Tensor) -> float:
    """Dice of neighbouring slices (n, h, w), weighted by their size."""
    one, next_ = fractions[:-1], fractions[1:]
    return float(2 * torch.minimum(one, next_).sum() / (one + next_).sum().clamp(min=TINY))


def _votes(pair: _Pair) -> tuple[Tensor, Tensor]:
    """What the most similar cell of the support says of some cells in the organs and around them, and what was found there:
    fractions (organ, cell).
    """
    near = F.max_pool3d(pair.found.amax(1)[None], (3, 5, 5), 1, (1, 2, 2))[0] > NEAR
    some = _some((near & (pair.query.body > IN_BODY)).flatten(), VOTERS)
    among = _some((pair.support.scan.body > IN_BODY).flatten(), KEYS)
    found = pair.found.transpose(0, 1).flatten(1)[:, some]
    if not len(some) or not len(among):
        return torch.zeros_like(found), found
    keys = _cells(pair.support.scan.features, among).T
    best = [(_cells(pair.query.features, part) @ keys).argmax(1) for part in some.split(AT_ONCE)]
    return pair.drawn.transpose(0, 1).flatten(1)[:, among[torch.cat(best)]], found


def _some(chosen: Tensor, count: int) -> Tensor:
    """Indices of at most about `count` of the chosen, evenly spread."""
    there = chosen.nonzero()[:, 0]
    return there[:: max(1, -(-len(there) // count))]


def _cells(features: Tensor, indices: Tensor) -> Tensor:
    """Rows (k, c) of features (n, c, h, w)."""
    n, _, h, w = features.shape
    return features[indices // (h * w), :, indices // w % h, indices % w]


def _dice(a: Tensor, b: Tensor) -> float:
    """Soft Dice of fractions: what both have, cell by cell."""
    return float(2 * torch.minimum(a, b).sum() / (a.sum() + b.sum()).clamp(min=TINY))
