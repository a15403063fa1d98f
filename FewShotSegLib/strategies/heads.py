"""Prototype heads (ALPNet, VISA and their kin) on a scan about which nothing is told.

The papers give such a head the first and the last slice of the organ in the query. Here `match` finds both: its labels give
each organ's extent, and thereby which support slice teaches which query slice; a loose margin around them keeps the head's
false positives out of the rest of the body. Told extents (the papers' protocol) switch all of that off.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.methods.alpnet import Alpnet
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.methods.visa import Teacher, propagate_chunks
from FewShotSegLib.strategies.chunks import chunk_of, pick_slices

OUTSIDE = -20.0  # score of an organ where it is known not to be
MARGIN = 2  # cells around the labels of `match` in which a head may find the organ
PRESENT = 0.5  # cells' worth of organ that makes a slice part of it


@dataclass(frozen=True, eq=False)
class HeadTask:
    """One organ of one support and one query: features (m c h w) and masks (m H W) 0..1, features (n c h w).

    `extent`: first and last query slice of the organ; `allowed` (n h w) bool: cells in which it may lie, None = all.
    """

    support_features: Tensor
    support_masks: Tensor
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


def teachers(masks: Tensor) -> tuple[int, ...]:
    """The support slice of each chunk, out of those (m H W) that show the organ."""
    return pick_slices([z for z, there in enumerate((masks > 0.5).flatten(1).any(1).tolist()) if there])


def direct(method: Alpnet, task: HeadTask) -> Tensor:
    """Margin (n h w), organ over background, from one support slice per chunk: SSL-ALPNet, section 4.3."""
    scores = torch.full(task.query_features[:, 0].shape, OUTSIDE)
    first, last = task.extent
    picked = teachers(task.support_masks)
    for chunk, support_slice in enumerate(picked):
        slices = [z for z in range(first, last + 1) if chunk_of(z, task.extent, len(picked)) == chunk]
        if slices:
            memory = method.remember(task.support_features[support_slice, None], task.support_masks[support_slice, None])
            logits = method.score(task.query_features[slices], memory)
            scores[slices] = logits[:, 1] - logits[:, 0]
    return _allow(scores, task.allowed)


def propagate(method: Alpnet, task: HeadTask) -> Tensor:
    """Margin (n h w) from slice-to-slice propagation inside the query: VISA-FSS, section 2.3."""
    margins = torch.full(task.query_features[:, 0].shape, OUTSIDE)
    drawn = [method.remember(task.support_features[z, None], task.support_masks[z, None]) for z in teachers(task.support_masks)]
    pixels = (int(task.support_masks.shape[1]), int(task.support_masks.shape[2]))

    def segment(teacher: Teacher, z: int) -> Tensor:
        if teacher.z is None or teacher.mask is None:
            memory = drawn[teacher.chunk]
        else:
            memory = method.remember(task.query_features[teacher.z, None], teacher.mask[None].float())
        logits = method.score(task.query_features[z, None], memory)
        allowed = None if task.allowed is None else task.allowed[z, None]
        margins[z] = _allow(logits[:, 1] - logits[:, 0], allowed)[0]
        return upsample(margins[None, z, None], pixels)[0, 0] > 0

    pivots = pick_slices(range(task.extent[0], task.extent[1] + 1))
    for _ in propagate_chunks(task.extent, pivots, lambda z: chunk_of(z, task.extent), segment):
        pass  # `segment` keeps the margins; a slice that comes twice keeps the later ones
    return margins


def _allow(scores: Tensor, allowed: Tensor | None) -> Tensor:
    return scores if allowed is None else scores.masked_fill(~allowed, OUTSIDE)
