"""A closer look at thin organs: scores at twice the resolution of the cells, where such an organ was found.

Cells are 8 pixels wide, and the muscle of a heart is hardly more. The surroundings of thin organs are encoded again from images
moved by a quarter of a cell to each side; the cells of the four lie between one another, half a cell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoders import STRIDE
from FewShotSegLib.encoding import EncodedScan, cell_fractions
from FewShotSegLib.methods.match import Carried, Match

THIN = 1.5  # cells: measured thickness below which an organ is looked at more closely
SEEN = 0.05  # fraction from which an organ may be there
AROUND = 2  # cells beside those where it may be, that are looked at too
CONTEXT = 6  # cells beyond, that are encoded for what the encoder sees of them
WEAKEST = 9.0  # times that background is made weaker at the most
FIRM, RAISED = 0.4, 4.0  # fraction to which thin organs are raised, and how many times at the most
QUARTER = STRIDE // 4  # pixels

Encode = Callable[[Tensor], Iterator[Tensor]]
"""Slices (n, H, W) -> features (b, c, H / 8, W / 8), batch after batch: a `FeatureRunner`."""


def thickness(fractions: Tensor) -> float:
    """Mean thickness in cells of an organ on slices (n, h, w): twice its area over the length of its border; 0 without any."""
    rows, columns = torch.diff(fractions, dim=1)[:, :, :-1], torch.diff(fractions, dim=2)[:, :-1]
    border = float((rows.square() + columns.square()).sqrt().sum())
    return 2 * float(fractions.sum()) / border if border else 0.0


def thin_organs(supports: Sequence[EncodedSupport]) -> tuple[int, ...]:
    """Numbers of the organs that are thin on the slices that were drawn, in the mean over the supports."""
    found = []
    for organ in range(len(supports[0].masks)):
        drawn = [s.masks[organ][torch.from_numpy(s.drawn[organ])].float() for s in supports]
        if 0 < np.mean([thickness(cell_fractions(masks)) for masks in drawn]) < THIN:
            found.append(organ)
    return tuple(found)


def around_thin(values: Tensor, thin: Sequence[int]) -> Tensor:
    """Cells (n, h, w) where fractions (n, v, h, w) say that thin organs may be, and those beside them."""
    if not thin:
        return torch.zeros_like(values[:, 0], dtype=torch.bool)
    seen = values[:, [1 + organ for organ in thin]].amax(1) > SEEN
    return F.max_pool2d(seen[:, None].float(), 2 * AROUND + 1, 1, AROUND)[:, 0].bool()


def weigh_background(scores: Tensor, weight: float, thin: Tensor) -> Tensor:
    """Scores (n, v, h, w) in which background weighs so much, but in cells (n, H, W) of or beside `thin` organs.

    There, organs have one another as neighbours, and background gives way as much as each needs (`give_way`).
    """
    scale = scores.shape[2] // thin.shape[1]
    beside = thin.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return torch.cat([torch.where(beside, scores[:, 0], scores[:, 0] * weight)[:, None], scores[:, 1:]], 1)


def give_way(scores: Tensor, thin: Sequence[int]) -> Tensor:
    """Scores (n, v, h, w) in which background is weaker against `thin` organs, and the thinnest are stronger than others.

    What is thinner than a cell covers half of one nowhere, and would never win. Background is made so much weaker that, over the
    scan, as many cells win as the organ's fractions sum to where it may be and beside (traces in all other cells of a large scan
    sum to much); where several organs are, they share the weaker background. An organ that covers less than `FIRM` of these cells
    is raised to it, or its thicker neighbours would take it.
    """
    odds, raised = torch.ones(2, scores.shape[1] - 1)
    for organ in thin:
        fractions = scores[:, 1 + organ].flatten()
        near = around_thin(scores, [organ]).flatten()
        count = int(fractions[near].sum().round().clamp(1, fractions.numel()))
        least = 0.999 * fractions.topk(count).values[-1].clamp(min=1e-3)  # the last of them wins, too
        odds[organ] = ((1 - least) / least).clamp(1, WEAKEST)
        raised[organ] = (FIRM / least).clamp(1, RAISED)
    organs = scores[:, 1:].clamp(min=0) + 1e-6
    weaker = (organs / odds[:, None, None]).sum(1) / organs.sum(1)
    return torch.cat([scores[:, :1] * weaker[:, None], scores[:, 1:] * raised[:, None, None]], 1)


@dataclass(frozen=True)
class Crop:
    """Where to look: slices (indices into the encoded ones), rows and columns of cells, and which of these cells (n, h, w)."""

    slices: Tensor
    rows: slice
    columns: slice
    wanted: Tensor

    @classmethod
    def around(cls, wanted: Tensor, context: int = CONTEXT) -> Crop | None:
        """The crop that holds all `wanted` cells (n, h, w) and `context` cells beside them; None without any."""
        if not wanted.any():
            return None
        slices = wanted.flatten(1).any(1).nonzero()[:, 0]
        rows, columns = (_span(wanted.any(0).any(other), context) for other in (1, 0))
        return cls(slices, rows, columns, wanted[slices][:, rows, columns])

    def pixels(self, slices: Tensor, dy: int, dx: int) -> Tensor:
        """What is to be encoded of slices (n, H, W) moved by so many pixels; beyond the image its border goes on."""
        padded = F.pad(slices[:, None], (QUARTER,) * 4, mode="replicate")[:, 0]
        y, x = self.rows.start * STRIDE + dy + QUARTER, self.columns.start * STRIDE + dx + QUARTER
        height, width = ((s.stop - s.start) * STRIDE for s in (self.rows, self.columns))
        return padded[:, y : y + height, x : x + width].contiguous()

    def looks(self, scan: EncodedScan, encode: Encode) -> Iterator[tuple[int, int, Tensor]]:
        """The four looks: pixels by which the image was moved (dy, dx), and the crop's features (n, c, h, w)."""
        slices = torch.from_numpy(scan.pixels(scan.slices[self.slices.numpy()]))
        for dy in (-QUARTER, QUARTER):
            for dx in (-QUARTER, QUARTER):
                yield dy, dx, torch.cat(list(encode(self.pixels(slices, dy, dx))))


def _span(held: Tensor, context: int) -> slice:
    """From the first to the last that is held, with so many beside them, within the image."""
    where = held.nonzero()[:, 0]
    return slice(max(0, int(where[0]) - context), min(len(held), int(where[-1]) + 1 + context))


def look_closer(
    method: Match,
    known: Sequence[tuple[ScanFeatures, Tensor]],
    query: EncodedScan,
    carried: Carried,
    settled: Tensor,
    thin: Sequence[int],
    encode: Encode,
) -> Tensor | None:
    """Scores (n, v, 2 h, 2 w): `settled` ones, and around `thin` organs what a closer look tells; None where none is seen.

    Args:
        known: supports with their values (m v h w), as for `Match.carry`, which gave `carried`.
        encode: unit features of slices, as those of the query.
    """
    crop = Crop.around(around_thin(carried.values, thin) & query.regular().inside)
    if crop is None:
        return None
    scores = F.interpolate(settled, scale_factor=2, mode="bilinear")
    for dy, dx, features in crop.looks(query, encode):
        places = [_moved(place, dy / STRIDE, dx / STRIDE)[:, crop.slices, crop.rows, crop.columns] for place in carried.places]
        _put(scores, method.ask(features, known, places, crop.wanted).values, crop, dy > 0, dx > 0)
    return scores


def _put(scores: Tensor, values: Tensor, crop: Crop, down: bool, right: bool) -> None:
    """Every second row and column of the crop, where it was wanted, in place."""
    rows, columns = (
        torch.arange(s.start, s.stop) * 2 + later for s, later in ((crop.rows, int(down)), (crop.columns, int(right)))
    )
    slices, rows = crop.slices[:, None, None], rows[:, None]
    before = scores[slices, :, rows, columns]
    scores[slices, :, rows, columns] = torch.where(crop.wanted[..., None], values.permute(0, 2, 3, 1), before)


def _moved(place: Tensor, dy: float, dx: float) -> Tensor:
    """Places (3, n, h, w) of cells that lie so many cells further, interpolated, and beyond the border moved along."""
    _, n, h, w = place.shape
    y, x = torch.arange(h) + dy, torch.arange(w) + dx
    near = [axis.clamp(0, size - 1) for axis, size in ((y, h), (x, w))]
    grid = torch.stack(
        torch.meshgrid(*(2 * a / max(1, size - 1) - 1 for a, size in zip(near, (h, w), strict=True)), indexing="ij"), -1
    )
    moved = F.grid_sample(place.transpose(0, 1), grid.flip(-1)[None].expand(n, -1, -1, -1), align_corners=True).transpose(0, 1)
    beyond = torch.zeros(3, 1, h, w)
    beyond[1], beyond[2] = (y - near[0])[:, None], (x - near[1])[None]
    return moved + beyond
