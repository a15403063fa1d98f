"""From encoded supports and an encoded query to scores on the query's cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from FewShotSegLib.correspondence import ScanFeatures
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import EncodedScan, cell_fractions
from FewShotSegLib.labels import Borders, to_pixels
from FewShotSegLib.methods.match import Carried, Match, MatchConfig
from FewShotSegLib.pieces import keep_touching
from FewShotSegLib.strategies.closer import Encode, around_thin, give_way, look_closer, thin_organs, weigh_background
from FewShotSegLib.strategies.closer_same_scan import look_closer_within
from FewShotSegLib.strategies.heads import OUTSIDE, HeadTask, Shot, direct, extent_of, margin_within, place_margin, propagate
from FewShotSegLib.strategies.same_scan import filled
from FewShotSegLib.strategies.settle import settle
from FewShotSegLib.strategies.votes import count_votes
from FewShotSegLib.tones import Tones

COMPLETED = 0.2  # part of the work after which the supports are complete
MINE = 0.5  # part of a pixel from which it was drawn
NAMES = ("auto", "direct", "propagate")
Extents = Mapping[str, tuple[int, int]]
"""First and last slice of an organ, by its name."""
Step = Callable[[float], None]


@dataclass(frozen=True, eq=False)
class Task:
    """What to find: `told` holds extents (first and last encoded slice) by organ number; `same`: the support is the query.

    `encode`: features of slices, where `match` may take a closer look at the query. `pieces`: of how many connected pieces each
    organ consists; None where that is not known. `alike`: supports and query are scans of one kind, CT or MR. `place`:
    prototype heads look around what `match` sees even where extents are told.
    """

    supports: Sequence[EncodedSupport]
    query: EncodedScan
    told: Mapping[int, tuple[int, int]]
    same: bool
    encode: Encode | None = None
    pieces: Sequence[int] | None = None
    alike: bool = True
    place: bool = True


@dataclass(frozen=True, eq=False)
class Answer:
    """Scores (n, 1 + organs, h, w) on the encoded slices, channel 0 = background, the highest wins.

    `margins`: the organs' scores are logits over background, whose score is 0; otherwise all are fractions.
    `carried` is what `match` found on the way: it also says where to doubt.
    `settled`: scores after the query's cells have asked one another, where they have. `finer`: scores after a closer look,
    (n, 1 + organs, 2 h, 2 w), where one was taken. `thin`: numbers of thin organs. `votes`: (n, organs, h, w), how much each
    cell counts for its piece of an organ, where pieces are to be chosen. `background`: what its fractions weigh in the end.
    `tones`: how bright thin organs and those beside them are, where that was drawn and holds in the query.
    """

    scores: Tensor
    margins: bool
    carried: Carried
    settled: Tensor | None = None
    finer: Tensor | None = None
    thin: tuple[int, ...] = ()
    votes: Tensor | None = None
    background: float = 1.0
    tones: Tones | None = None

    @property
    def deciding(self) -> Tensor:
        """The scores that the labels are made from, on the finest cells that there are."""
        scores = next(s for s in (self.finer, self.settled, self.scores) if s is not None)
        if self.margins:
            return scores
        weighed = weigh_background(scores, self.background, around_thin(self.carried.values, self.thin))
        return give_way(weighed, self.thin) if self.thin else weighed


def answer(method: Any, strategy: str, task: Task, step: Step = lambda part: None) -> Answer:
    """Scores of the query's cells by `method`; prototype heads stand on what `match` finds about place and extent."""
    matcher = method if isinstance(method, Match) else Match(MatchConfig())
    known = [] if task.same else _known(task, matcher, step)
    carried, thin = carry(matcher, task, known, step), thin_organs(task.supports)
    settled, votes = carried.values, None
    if not task.same:
        scan = task.query.regular()
        votes = None if task.pieces is None else count_votes(scan, known, settled)
        settled = settle(scan, settled, matcher.config, thin, pieces=task.pieces, votes=votes)
    if isinstance(method, Match):
        finer = _finer(method, task, known, carried, settled, thin)
        tones = _tones(method, task, settled, thin)
        return Answer(carried.values, False, carried, settled, finer, thin, votes, method.config.background, tones)
    name = method.default_strategy if strategy == "auto" else strategy
    head = {"direct": direct, "propagate": propagate}[name]
    margins = [_head_scores(head, method, task, settled[:, 1 + organ], organ) for organ in range(settled.shape[1] - 1)]
    return Answer(torch.stack([torch.zeros_like(margins[0]), *margins], 1), True, carried, thin=thin, votes=votes)


def _known(task: Task, matcher: Match, step: Step) -> list[tuple[ScanFeatures, Tensor]]:
    """Supports with the values of all their cells."""
    count = len(task.supports)

    def tell(number: int, part: float) -> None:
        step(COMPLETED * (number + part) / count)

    values = [completed(s, matcher, task.encode, partial(tell, number)) for number, s in enumerate(task.supports)]
    return [(support.scan.regular(), found) for support, found in zip(task.supports, values, strict=True)]


def completed(support: EncodedSupport, matcher: Match, encode: Encode | None = None, step: Step = lambda part: None) -> Tensor:
    """Fractions (n, 1 + organs, h, w) on all slices of a support: as drawn, and where nothing was drawn, as segmented.

    A support of few drawn slices is segmented once, like any scan of which some slices were drawn.
    """
    if support.drawn.all():
        return support.values(list(range(len(support.masks))))
    if matcher.config not in support.completed:
        own = answer(matcher, "direct", Task([support], support.scan, {}, True, encode), step)
        borders = Borders(False, support.scan.image is not None, own.thin, matcher.config.compete, own.tones)
        support.completed[matcher.config] = _with_drawings(to_pixels(support.scan, own.deciding, borders), support)
    return support.completed[matcher.config]


def _with_drawings(index: np.ndarray, support: EncodedSupport) -> Tensor:
    """Fractions of labelled pixels (n, H, W), without pieces that no drawing touches, and of what was drawn where it was."""
    fractions = []
    for organ, (mask, drawn) in enumerate(zip(support.masks, support.drawn, strict=True), 1):
        keep_touching(index, organ, (mask > MINE).numpy() & drawn[:, None, None])
        found = cell_fractions(index == organ)
        found[drawn] = cell_fractions(mask[drawn].float())
        fractions.append(found)
    organs = torch.stack(fractions, 1)
    return torch.cat([(1 - organs.sum(1, keepdim=True)).clamp(min=0), organs], 1)


def _tones(method: Match, task: Task, settled: Tensor, thin: Sequence[int]) -> Tones | None:
    if not (task.alike and method.config.compete and method.config.tones):
        return None
    tones = Tones.of(task.supports, thin)
    return tones if tones is not None and tones.hold_in(task.query, settled) else None


def _finer(
    method: Match,
    task: Task,
    known: Sequence[tuple[ScanFeatures, Tensor]],
    carried: Carried,
    settled: Tensor,
    thin: Sequence[int],
) -> Tensor | None:
    if not (thin and task.encode and method.config.closer):
        return None
    if task.same:
        return look_closer_within(task.supports[0], settled, method.config, thin, task.encode)
    return look_closer(method, known, task.query, carried, settled, thin, task.encode)


def carry(matcher: Match, task: Task, known: Sequence[tuple[ScanFeatures, Tensor]], step: Step) -> Carried:
    """Labels of all organs on the query's cells, by dense matching; `known`: the supports with the values of their cells."""
    if task.same:
        return filled(task.supports[0], matcher.config, step)
    step(COMPLETED)
    return matcher.carry(task.query.regular(), known)


def _head_scores(head: Callable[..., Tensor], method: Any, task: Task, fractions: Tensor, organ: int) -> Tensor:
    """Margins (n, h, w) of one organ; where `match` sees none of it (`fractions`) and nothing is told, it is nowhere.

    Where the extent is told, `match` says where the organ lies in its slices, but not to a method that goes by its paper.
    """
    extent = task.told.get(organ) or extent_of(fractions)
    if extent is None:
        return torch.full_like(fractions, OUTSIDE)
    by_paper = not task.place or getattr(method.config, "faithful", False)
    margin = place_margin(fractions)
    allowed: Tensor | None = margin
    if organ in task.told:
        allowed = None if by_paper else margin_within(margin, extent)
    shots = [_shot(support, organ) for support in task.supports]
    return head(method, HeadTask(shots, task.query.features, extent, allowed))


def _shot(support: EncodedSupport, organ: int) -> Shot:
    drawn = torch.from_numpy(support.drawn[organ])
    return Shot(support.scan.features[drawn], support.masks[organ][drawn].float())
