"""Prototype heads (ALPNet, ADNet and their kin) on a scan about which nothing is told.

A head is any `Method`; several supports are its shots. The papers give it the first and the last slice of the organ in the
query. Here `match` finds both: its labels give each organ's extent, and thereby which support slice teaches which query
slice; a loose margin around them keeps the head's false positives out of the rest of the body. Told extents (the papers'
protocol) switch all of that off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.encoders import STRIDE
from FewShotSegLib.methods.base import Method, upsample
from FewShotSegLib.methods.visa import Teacher, propagate_chunks
from FewShotSegLib.strategies.chunks import CHUNKS, chunk_of, pick_slices

OUTSIDE = -20.0  # score of an organ where it is known not to be
MARGIN = 2  # cells around the labels of `match` in which a head may find the organ
PRESENT = 0.5  # cells' worth of organ that makes a slice part of it


@dataclass(frozen=True, eq=False)
class Shot:
    """One organ of one support: features (m c h w) of its drawn slices, masks (m H W) 0..1."""

    features: Tensor
    masks: Tensor


@dataclass(frozen=True, eq=False)
class HeadTask:
    """One organ of one or several supports, and one query: features (n c h w).

    `extent`: first and last query slice of the organ; `allowed` (n h w) bool: cells in which it may lie, None = all.
    """

    shots: Sequence[Shot]
    query_features: Tensor
    extent: tuple[int, int]
    allowed: Tensor | None = None


def extent_of(fractions: Tensor) -> tuple[int, int] | None:
    """First and last slice of the longest run of slices (n h w) that show the organ; None when no slice does."""
    present = (fractions.clamp(min=0.0) * (fractions > 0.3)).sum((1, 2)) >= PRESENT
    best: tuple[int, int] | None = None
    start = None
    for z, there in enumerate([*present.tolist(), False]):
        if there and start is None:
            start = z
        if not there and start is not None:
            if best is None or z - start > best[1] - best[0] + 1:
                best = (start, z - 1)
            start = None
    return best


def place_margin(fractions: Tensor) -> Tensor:
    """Cells (n h w) within `MARGIN` cells of where `match` sees the organ."""
    side = 2 * MARGIN + 1
    return F.max_pool2d((fractions > 0.3).float()[:, None], side, 1, MARGIN)[:, 0] > 0


def margin_within(allowed: Tensor, extent: tuple[int, int]) -> Tensor | None:
    """A margin (n h w) for every slice of an extent: those that have none get that of the nearest slice of it that has one.

    None when no slice of the extent has one: nobody knows the place.
    """
    first, last = extent
    there = [z for z in range(first, last + 1) if allowed[z].any()]
    if not there:
        return None
    whole = allowed.clone()
    for z in range(first, last + 1):
        whole[z] = allowed[min(there, key=lambda other: abs(other - z))]
    return whole


def teachers(masks: Tensor) -> tuple[int, ...]:
    """The support slice of each chunk, out of those (m H W) that show the organ."""
    return pick_slices([z for z, there in enumerate((masks > 0.5).flatten(1).any(1).tolist()) if there])


def memories(method: Method[Any], shots: Sequence[Shot]) -> list[Any]:
    """What the method remembers for each chunk of the organ: one slice of every shot teaches it.

    A `whole_volume` method learns from all slices of every shot at once, and remembers the same for all chunks.
    """
    if getattr(method, "whole_volume", False):
        whole = [method.remember(shot.features, shot.masks) for shot in shots]
        return [method.average(whole)] * CHUNKS  # type: ignore[attr-defined]
    return [_remember(method, slices) for slices in _taught_by(shots)]


def _taught_by(shots: Sequence[Shot]) -> list[list[Shot]]:
    """For each chunk, the slice of every shot that teaches it."""
    chosen = [(shot, teachers(shot.masks)) for shot in shots]
    return [
        [Shot(shot.features[rows[chunk], None], shot.masks[rows[chunk], None]) for shot, rows in chosen]
        for chunk in range(CHUNKS)
    ]


def _remember(method: Method[Any], shots: Sequence[Shot]) -> Any:
    """What the method remembers of all slices of all shots together."""
    shots = same_size(shots)
    return method.remember(torch.cat([shot.features for shot in shots]), torch.cat([shot.masks for shot in shots]))


def same_size(shots: Sequence[Shot]) -> list[Shot]:
    """The shots with maps of one size: smaller ones go on at the right and below with their last cells, and without organ."""
    h, w = (max(shot.features.shape[axis] for shot in shots) for axis in (2, 3))
    out = []
    for shot in shots:
        down, right = h - shot.features.shape[2], w - shot.features.shape[3]
        features = F.pad(shot.features, (0, right, 0, down), mode="replicate") if down or right else shot.features
        out.append(Shot(features, F.pad(shot.masks, (0, right * STRIDE, 0, down * STRIDE))))
    return out


def direct(method: Method[Any], task: HeadTask) -> Tensor:
    """Margin (n h w), organ over background, from one slice of every shot per chunk: SSL-ALPNet, section 4.3."""
    scores = torch.full(task.query_features[:, 0].shape, OUTSIDE)
    first, last = task.extent
    known = memories(method, task.shots)
    for chunk, memory in enumerate(known):
        slices = [z for z in range(first, last + 1) if chunk_of(z, task.extent, len(known)) == chunk]
        if slices:
            logits = method.score(task.query_features[slices], memory)
            scores[slices] = logits[:, 1] - logits[:, 0]
    return _allow(scores, task.allowed)


def propagate(method: Method[Any], task: HeadTask) -> Tensor:
    """Margin (n h w) from slice-to-slice propagation inside the query: VISA-FSS, section 2.3."""
    margins = torch.full(task.query_features[:, 0].shape, OUTSIDE)
    drawn, beside = memories(method, task.shots), _taught_by(task.shots) if _is_anchored(method) else None
    pixels = (STRIDE * task.query_features.shape[2], STRIDE * task.query_features.shape[3])

    def segment(teacher: Teacher, z: int) -> Tensor:
        if teacher.z is None or teacher.mask is None:
            memory = drawn[teacher.chunk]
        else:
            neighbour = Shot(task.query_features[teacher.z, None], teacher.mask[None].float())
            memory = _remember(method, [neighbour, *(beside[teacher.chunk] if beside else [])])
        logits = method.score(task.query_features[z, None], memory)
        allowed = None if task.allowed is None else task.allowed[z, None]
        margins[z] = _allow(logits[:, 1] - logits[:, 0], allowed)[0]
        return upsample(margins[None, z, None], pixels)[0, 0] > 0

    pivots = pick_slices(range(task.extent[0], task.extent[1] + 1))
    for _ in propagate_chunks(task.extent, pivots, lambda z: chunk_of(z, task.extent), segment):
        pass  # `segment` keeps the margins; a slice that comes twice keeps the later ones
    return margins


def _is_anchored(method: Method[Any]) -> bool:
    """Whether the drawn slice of a chunk teaches beside its slices' neighbours; not where a method goes by its paper."""
    return getattr(method.config, "anchored", False) and not getattr(method.config, "faithful", False)


def _allow(scores: Tensor, allowed: Tensor | None) -> Tensor:
    return scores if allowed is None else scores.masked_fill(~allowed, OUTSIDE)
