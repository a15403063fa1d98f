"""What can be measured of a result without the truth, and says how good it probably is. All on the cells of the network.

Every feature is oriented so that more is better. The idea of carrying a result back and comparing it with a drawing that is
known is reverse classification accuracy (Valindria et al., IEEE TMI 36(8), 2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from FewShotSegLib.correspondence import ScanFeatures
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import EncodedScan, cell_fractions
from FewShotSegLib.methods.match import Match, MatchConfig
from FewShotSegLib.segmenter import Solved
from FewShotSegLib.strategies.answer import filled

SAMPLES = 400  # cells of an organ that vote
KEYS = 40_000  # cells that they look at
NEAR_MM = 15.0
TINY = 1e-6

DESCRIPTIONS: Mapping[str, str] = {
    "confidence": "the method's own: attention share times quality of the best match",
    "best": "mean best similarity of the organ's cells",
    "weakest": "the fifth of the organ's cells with the lowest best similarity",
    "share": "mean attention share of the organ on its cells",
    "crisp": "how little of the organ lies on cells that are divided",
    "kept": "agreement of the carried fractions with the final labels",
    "size": "minus the absolute log ratio of its volume and the support's",
    "length": "minus the absolute log ratio of its extent along the axis and the support's",
    "steady": "Dice of neighbouring slices, relative to that on the support",
    "there": "organ cells whose most similar cell of the whole support lies in the organ",
    "back_again": "support organ cells whose most similar cell of the whole scan lies in the result",
    "grey": "minus the difference of its mean grey value from the support's, in standard deviations there",
    "returned": "Dice of the result, carried back to the support, with the drawing (there and back)",
    "cycle": "exp(- median distance between cells and where they are after going there and back / 15 mm)",
}
FULL_ONLY = ("returned", "cycle")
FAST = tuple(name for name in DESCRIPTIONS if name not in FULL_ONLY)


@dataclass(frozen=True, eq=False)
class _Pair:
    """A solved scan and the support that is most like it: fractions (n, organs, h, w) of the result and of the drawing."""

    query: EncodedScan
    support: EncodedSupport
    found: Tensor
    drawn: Tensor


def measure(solved: Solved, confidence: np.ndarray, matcher: Match | None = None, *, full: bool) -> list[dict[str, float]]:
    """The features of every organ, by name; an empty mapping for an organ that was not found.

    Args:
        solved: the scan; not one that teaches itself.
        confidence: of the organs, (organ,).
        matcher: the method, where it is `match`.
        full: also those that cost a registration.
    """
    matcher = matcher or Match(MatchConfig())
    pair = _pair(solved, matcher)
    back = _back(pair, matcher) if full else None
    measured: list[dict[str, float]] = []
    for organ in range(pair.found.shape[1]):
        if not (solved.index == organ + 1).any() or pair.found[:, organ].sum() < TINY:
            measured.append({})
            continue
        features = {"confidence": float(confidence[organ]), **_attention(solved, pair, organ), **_shape(pair, organ)}
        features |= {**_votes(pair, organ), "grey": _grey(pair, organ)}
        if back is not None:
            features |= _returned(pair, back, solved.answer.carried.place, organ)
        measured.append({name: round(value, 5) for name, value in features.items()})
    return measured


def _pair(solved: Solved, matcher: Match) -> _Pair:
    """The final labels as fractions of cells, and the nearest support's drawing (completed where it is sparse)."""
    support, scan = solved.supports[0], solved.scan
    organs = len(support.masks)
    masks = [scan.grid.forward_slices(solved.index == o + 1, scan.slices, order=1, fill=0.0) for o in range(organs)]
    found = torch.stack([cell_fractions(mask) for mask in masks], 1)
    return _Pair(scan, support, found, filled(support, matcher.config, lambda part: None).values[:, 1:])


def _attention(solved: Solved, pair: _Pair, organ: int) -> dict[str, float]:
    """How surely the organ's cells found what they looked for."""
    weight, carried = pair.found[:, organ], solved.answer.carried
    mine = carried.values[:, 1 + organ]
    best = carried.best[weight > 0.5] if (weight > 0.5).any() else carried.best[weight > 0]
    return {
        "best": float((carried.best * weight).sum() / weight.sum()),
        "weakest": float(best.sort().values[: max(1, len(best) // 5)].mean()),
        "share": float((mine * weight).sum() / weight.sum()),
        "crisp": 1 - 2 * float((mine * (1 - mine)).sum() / mine.sum().clamp(min=TINY)),
        "kept": _dice(mine, weight),
    }


def _shape(pair: _Pair, organ: int) -> dict[str, float]:
    """Size, length and steadiness, compared with the support's."""
    mine, theirs = pair.found[:, organ], pair.drawn[:, organ]
    a, b = pair.query.regular(), pair.support.scan.regular()
    sizes = [part.sum() * scan.slice_mm * scan.cell_mm**2 for part, scan in ((mine, a), (theirs, b))]
    lengths = [(part.sum((1, 2)) > 0.5).sum() * scan.slice_mm + TINY for part, scan in ((mine, a), (theirs, b))]
    return {
        "size": -abs(float((sizes[0] / sizes[1].clamp(min=TINY)).log())),
        "length": -abs(float((lengths[0] / lengths[1]).log())),
        "steady": min(1.5, _steady(mine) / max(_steady(theirs), 0.1)),
    }


def _steady(fractions: Tensor) -> float:
    """Dice of neighbouring slices (n, h, w), weighted by their size."""
    one, next_ = fractions[:-1], fractions[1:]
    return float(2 * torch.minimum(one, next_).sum() / (one + next_).sum().clamp(min=TINY))


def _votes(pair: _Pair, organ: int) -> dict[str, float]:
    """Without any place: whether the most similar cell of the other scan lies in the organ too, in both directions."""
    query, support = pair.query.features, pair.support.scan.features
    return {
        "there": _vote(query, pair.found[:, organ], support, pair.drawn[:, organ], pair.support.scan.body),
        "back_again": _vote(support, pair.drawn[:, organ], query, pair.found[:, organ], pair.query.body),
    }


def _vote(asking: Tensor, organ: Tensor, keys: Tensor, theirs: Tensor, body: Tensor) -> float:
    """Mean fraction `theirs` (m, h, w) at the key most similar to some cells of `organ` (n, h, w)."""
    some = _some((organ > min(0.5, float(organ.max()) / 2)).flatten(), SAMPLES)
    among = _some((body > 0.1).flatten(), KEYS)
    similarity = _cells(asking, some) @ _cells(keys, among).T
    return float(theirs.flatten()[among][similarity.argmax(1)].mean()) if len(some) and len(among) else 0.0


def _some(chosen: Tensor, count: int) -> Tensor:
    """Indices of at most about `count` of the chosen, evenly spread."""
    there = chosen.nonzero()[:, 0]
    return there[:: max(1, -(-len(there) // count))]


def _cells(features: Tensor, indices: Tensor) -> Tensor:
    """Rows (k, c) of features (n, c, h, w)."""
    n, _, h, w = features.shape
    return features[indices // (h * w), :, indices // w % h, indices % w]


def _grey(pair: _Pair, organ: int) -> float:
    """Compares mean normalised grey values of whole cells inside the organ."""
    if pair.query.image is None or pair.support.scan.image is None:
        return 0.0
    mine = _greys(pair.query, pair.found[:, organ])
    theirs = _greys(pair.support.scan, pair.drawn[:, organ])
    return -abs(float(mine.mean() - theirs.mean())) / max(float(theirs.std()), 0.05) if len(mine) and len(theirs) else 0.0


def _greys(scan: EncodedScan, fractions: Tensor) -> np.ndarray:
    """Mean grey values of the cells that lie well inside the organ."""
    there = fractions > min(0.9, 0.9 * float(fractions.max()))
    slices = there.flatten(1).any(1).nonzero()[:, 0]
    if not len(slices):
        return np.empty(0)
    return cell_fractions(scan.pixels(scan.slices[slices.numpy()]))[there[slices]].numpy()


@dataclass(frozen=True, eq=False)
class _Back:
    """The result carried to the support (m, organs, h, w), and where in the scan each support cell lies (3, m, h, w)."""

    values: Tensor
    place: Tensor


def _back(pair: _Pair, matcher: Match) -> _Back:
    """Carry the final labels back to the support, registered anew in that direction."""
    values = torch.cat([(1 - pair.found.sum(1, keepdim=True)).clamp(min=0), pair.found], 1)
    look = matcher.carry_one(pair.support.scan.regular(), pair.query.regular(), values)
    return _Back(look.values[:, 1:], look.place)


def _returned(pair: _Pair, back: _Back, place: Tensor, organ: int) -> dict[str, float]:
    features = {"returned": _dice(back.values[:, organ], pair.drawn[:, organ])}
    if place.numel():
        features["cycle"] = _cycle(place, back.place, pair.found[:, organ], pair.query.regular())
    return features


def _cycle(there: Tensor, back: Tensor, organ: Tensor, scan: ScanFeatures) -> float:
    """Places (3, n, h, w) of the scan's cells in the support and (3, m, h, w) back: 1 where they are inverse to each other."""
    cells = (organ > min(0.5, float(organ.max()) / 2)).nonzero()
    at = there[:, cells[:, 0], cells[:, 1], cells[:, 2]].round().long()
    for axis, size in enumerate(back.shape[1:]):
        at[axis].clamp_(0, size - 1)
    returned = back[:, at[0], at[1], at[2]].T
    mm = torch.tensor([scan.slice_mm, scan.cell_mm, scan.cell_mm])
    distance = ((returned - cells) * mm).norm(dim=1).median() if len(cells) else torch.tensor(1e3)
    return float((-distance / NEAR_MM).exp())


def _dice(a: Tensor, b: Tensor) -> float:
    """Soft Dice of fractions: what both have, cell by cell."""
    return float(2 * torch.minimum(a, b).sum() / (a.sum() + b.sum()).clamp(min=TINY))
