"""From a few drawn slices through the rest of the same scan (dense_matching.md, section 4).

Slices are taken in order of their distance from the drawn ones. Each looks at all drawn slices and at the nearest finished
ones; a finished mask is hardened before it is used again. Propagation and direct look-up are one softmax, and it stops by
itself where nothing looks like the organ any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import cell_positions
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoders import STRIDE
from FewShotSegLib.encoding import EncodedScan, cell_fractions
from FewShotSegLib.methods.match import Carried, MatchConfig
from FewShotSegLib.strategies.closer import thin_organs
from FewShotSegLib.strategies.doubt import Resemblance, trust_beyond
from FewShotSegLib.strategies.settle import settle

UNKNOWN = 1e-9  # weight of a cell of which nothing is known
Step = Callable[[float], None]


def filled(support: EncodedSupport, config: MatchConfig, step: Step) -> Carried:
    """The support's labels on all its slices: as drawn where they were drawn, completed where not."""
    organs, n = len(support.masks), len(support.scan.slices)
    if support.drawn.all():
        return Carried(support.values(list(range(organs))), torch.ones_like(support.scan.body))
    values = torch.zeros(n, 1 + organs, *support.scan.body.shape[1:])
    values[:, 0] = 1
    best = torch.ones_like(support.scan.body)
    thin, known = thin_organs([support]), torch.zeros(n, 1 + organs, dtype=torch.bool)
    groups = list(support.groups())
    for count, (members, slices) in enumerate(groups):
        part = complete_group(support, members, slices, thin, config, partial(_tell, step, count, len(groups)))
        for organ in members:
            known[torch.from_numpy(slices), 1 + organ] = True
        values[:, [1 + o for o in members]] = part.values[:, 1:]
        values[:, 0] = torch.minimum(values[:, 0], part.values[:, 0])
        best = torch.minimum(best, part.best)
    known[:, 0] = known[:, 1:].all(1)
    return Carried(settle(support.scan.regular(), values, config, thin, drawn=known), best)


def _tell(step: Step, done: int, total: int, part: float) -> None:
    step((done + part) / total)


def complete_group(
    support: EncodedSupport,
    members: list[int],
    slices: np.ndarray,
    thin: Sequence[int],
    config: MatchConfig,
    step: Step,
    trust: Tensor | None = None,
) -> Carried:
    """Carry organs that share their drawn `slices` (indices) to all slices: fractions (n, 1 + members, h, w)."""
    fractions = support.values(members)
    drawn = {int(support.scan.slices[i]): fractions[i] for i in slices}
    vanishing = [number for number, organ in enumerate(members) if organ in thin]
    trust = trust_beyond(support, members, slices) if trust is None else trust
    return complete(support.scan, drawn, config, step, _others(support, members), thin=vanishing, trust=trust)


def _others(support: EncodedSupport, members: list[int]) -> dict[int, Tensor]:
    """Grid slice -> area fraction (h, w) that is drawn there as an organ not among `members`, and as none of them."""
    found: dict[int, Tensor] = {}
    mine = cell_fractions(support.masks[members].amax(0).float())
    for organ in set(range(len(support.masks))) - set(members):
        theirs = cell_fractions(support.masks[organ].float())
        for i in torch.from_numpy(support.drawn[organ]).nonzero()[:, 0].tolist():
            z = int(support.scan.slices[i])
            found[z] = torch.maximum(found.get(z, torch.zeros_like(theirs[i])), (theirs[i] - mine[i]).clamp(min=0))
    return found


def complete(
    scan: EncodedScan,
    drawn: dict[int, Tensor],
    config: MatchConfig,
    step: Step = lambda part: None,
    others: Mapping[int, Tensor] | None = None,
    *,
    thin: Sequence[int] = (),
    trust: Tensor | None = None,
) -> Carried:
    """Carry drawn labels to every slice of `scan`.

    Args:
        scan: its `slices` must hold all drawn ones.
        drawn: grid slice -> area fractions (v, h, w) of background and organs on it.
        config: windows and temperature.
        step: hears the done part after every slice.
        others: grid slice -> area fraction (h, w) of what is known there to be background, because other organs were drawn.
        thin: numbers of thin organs. With any, finished slices are used as they are: these would vanish from hardened ones.
        trust: (n, v - 1), what of an organ's fraction is believed on each slice; the rest is background's.

    Returns:
        Fractions (n, v, h, w) for every slice of the scan, drawn ones as they were drawn.
    """
    at = {int(z): i for i, z in enumerate(scan.slices)}
    anchors = [at[z] for z in sorted(drawn)]
    first = next(iter(drawn.values()))
    values = torch.zeros(len(scan.slices), *first.shape)
    hard = torch.zeros_like(values)
    best = torch.ones(len(scan.slices), *first.shape[1:])
    for z, fractions in drawn.items():
        values[at[z]] = hard[at[z]] = fractions
    finished: set[int] = set()
    bias = _distance_bias(*first.shape[1:])
    known = [_Key(k, config.drawn_sigma, hard[k]) for k in anchors]
    nothing = torch.zeros_like(first)
    nothing[0] = 1
    beside = {at[z]: part for z, part in (others or {}).items() if z not in drawn}
    known += [_Key(i, config.drawn_sigma, nothing, part) for i, part in beside.items()]
    alike = _resemblance(scan, {k: hard[k] for k in anchors}, beside, config, thin) if config.doubt else None
    order = _by_distance(scan.z_mm, anchors)
    for count, i in enumerate(order):
        near = _nearest_finished(scan.z_mm, i, finished, config.neighbours)
        keys = [*(_Key(k, config.near_sigma, hard[k]) for k in near), *known]
        values[i], best[i] = _look(scan, i, keys, bias, config)
        if trust is not None:
            values[i] = _believed(values[i], trust[i][:, None, None])
        if alike is not None and not anchors[0] < i < anchors[-1]:
            values[i] = _believed(values[i], alike.trust(i, values[i]))
        hard[i] = values[i] if thin else harden(values[i])
        finished.add(i)
        step((count + 1) / len(order))
    return Carried(values, best)


def _resemblance(
    scan: EncodedScan, drawn: dict[int, Tensor], others: dict[int, Tensor], config: MatchConfig, thin: Sequence[int]
) -> Resemblance:
    z = torch.from_numpy(scan.z_mm).float()
    far = (z[:, None] - z).abs() / config.distance_mm
    return Resemblance(scan.features, far, drawn, others, config.temperature, thin)


def _believed(values: Tensor, trust: Tensor) -> Tensor:
    """Fractions (v, h, w) in which background has what is not to be trusted of the organs': `trust` (v - 1, h, w)."""
    organs = trust * values[1:]
    return torch.cat([values[:1] + (values[1:] - organs).sum(0, keepdim=True), organs])


def _by_distance(z_mm: np.ndarray, anchors: list[int]) -> list[int]:
    """All slices but the anchors, the nearest to an anchor first."""
    distance = np.abs(z_mm[:, None] - z_mm[None, anchors]).min(1)
    return [int(i) for i in np.argsort(distance, kind="stable") if i not in anchors]


def _nearest_finished(z_mm: np.ndarray, i: int, finished: set[int], count: int) -> list[int]:
    """The finished slices among the two neighbours on either side, nearest first."""
    around = [k for k in (i - 1, i + 1, i - 2, i + 2) if k in finished]
    return sorted(around, key=lambda k: abs(z_mm[k] - z_mm[i]))[:count]


@dataclass(frozen=True, eq=False)
class _Key:
    """A slice to look at: its index, the window's sigma in cells, its fractions (v, h, w), and how much of a cell they tell."""

    index: int
    sigma: float
    values: Tensor
    part: Tensor | None = None


def _look(scan: EncodedScan, i: int, keys: list[_Key], bias: Tensor, config: MatchConfig) -> tuple[Tensor, Tensor]:
    """Fractions (v, h, w) of slice i from the slices `keys`, and the best similarity (h, w) found there."""
    query = scan.features[i].flatten(1).T
    logits, similar = [], []
    for key in keys:
        similarity = query @ scan.features[key.index].flatten(1)
        far = abs(scan.z_mm[key.index] - scan.z_mm[i]) / config.distance_mm
        logit = torch.add(bias / key.sigma**2, similarity, alpha=config.temperature).sub_(far)
        if key.part is not None:
            logit += (key.part.flatten() + UNKNOWN).log()
        logits.append(logit)
        similar.append(similarity.amax(1))
    held = torch.cat([key.values.flatten(1) for key in keys], 1).T
    out = torch.cat(logits, 1).softmax(1) @ held
    size = keys[0].values.shape[1:]
    return out.T.reshape(-1, *size), torch.stack(similar).amax(0).reshape(size)


def _distance_bias(h: int, w: int) -> Tensor:
    """-1/2 squared distance in cells between all pairs of cells of a slice: (h*w, h*w)."""
    cells = cell_positions(1, h, w)[:, 1:]
    return torch.cdist(cells, cells).square_().mul_(-0.5)


def harden(fractions: Tensor) -> Tensor:
    """The winner of every pixel after upsampling, as fractions again: (v, h, w) -> (v, h, w)."""
    winner = F.interpolate(fractions[None], scale_factor=STRIDE, mode="bilinear")[0].argmax(0)
    one_hot = F.one_hot(winner, len(fractions)).permute(2, 0, 1)
    return cell_fractions(one_hot)
