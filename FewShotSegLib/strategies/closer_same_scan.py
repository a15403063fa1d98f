"""A closer look within a scan: thin organs are completed once more, on cells half as wide, where they were found.

As in a new scan (`closer`), four encodings of the image, moved by a quarter of a cell each, give cells between the cells; here
drawn and finished slices are looked at as closely as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoders import STRIDE
from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.methods.match import MatchConfig
from FewShotSegLib.strategies.closer import Crop, Encode, around_thin
from FewShotSegLib.strategies.doubt import trust_beyond
from FewShotSegLib.strategies.same_scan import complete_group


def look_closer_within(
    support: EncodedSupport, values: Tensor, config: MatchConfig, thin: Sequence[int], encode: Encode
) -> Tensor | None:
    """Scores (n, v, 2 h, 2 w): completed `values`, and around `thin` organs what a closer look tells; None where none is seen.

    Args:
        support: the scan and its drawn slices.
        values: fractions (n, v, h, w) of background and organs on all its slices, as from `filled`.
        encode: unit features of slices, as those of the scan.
    """
    wanted = around_thin(values, thin) & support.scan.regular().inside
    crop = Crop.around(wanted)
    if crop is None:
        return None
    finer = _Finer(crop, _interleaved(crop, support.scan, encode), support)
    scores, groups = F.interpolate(values, scale_factor=2, mode="bilinear"), list(support.groups())
    looked = torch.zeros_like(scores[:, 0], dtype=torch.bool)
    for members, _ in groups:
        around = Crop.around(around_thin(values, members) & wanted, 0)
        if around is not None:
            finer.put(scores, looked, members, around, thin, config)
    background = torch.stack([1 - scores[:, [1 + o for o in members]].sum(1) for members, _ in groups]).amin(0)
    scores[:, 0] = torch.where(looked, background.clamp(min=0), scores[:, 0])
    return scores


def _interleaved(crop: Crop, scan: EncodedScan, encode: Encode) -> Tensor:
    """Features (n, c, 2 h, 2 w) of the crop's cells, half as wide as the scan's."""
    looks = torch.stack([features for _, _, features in crop.looks(scan, encode)])
    return rearrange(looks, "(dy dx) n c h w -> n c (h dy) (w dx)", dy=2)


class _Finer:
    """Completes organs on the fine `features` (n, c, 2 h, 2 w) of a crop."""

    def __init__(self, crop: Crop, features: Tensor, support: EncodedSupport) -> None:
        self.crop, self.features, self.support = crop, features, support

    def put(
        self, scores: Tensor, looked: Tensor, members: list[int], around: Crop, thin: Sequence[int], config: MatchConfig
    ) -> None:
        """What is found of the organs `members`, in place, in the fine cells that are wanted `around` them; these are marked."""
        part = self._part(around)
        slices = part.drawn[members[0]].nonzero()[0]
        if not len(slices):
            return
        half = replace(config, drawn_sigma=2 * config.drawn_sigma, near_sigma=2 * config.near_sigma)
        trust = trust_beyond(self.support, members, self.support.drawn[members[0]].nonzero()[0])[around.slices]
        found = complete_group(part, members, slices, thin, half, lambda part: None, trust).values[:, 1:]
        wanted = around.wanted.repeat_interleave(2, 1).repeat_interleave(2, 2)
        rows, columns = (torch.arange(2 * s.start, 2 * s.stop) for s in (around.rows, around.columns))
        place = (around.slices[:, None, None], rows[:, None], columns)
        looked[place] |= wanted
        for organ, fractions in zip(members, found.unbind(1), strict=True):
            scores[:, 1 + organ][place] = torch.where(wanted, fractions, scores[:, 1 + organ][place])

    def _part(self, around: Crop) -> EncodedSupport:
        """A part of the crop as a support of its own, whose cells are the fine ones; so its masks are twice as large."""
        whole, crop, slices = self.support, self.crop, around.slices
        both = ((around.rows, crop.rows), (around.columns, crop.columns))
        rows, columns = (slice(2 * (mine.start - its.start), 2 * (mine.stop - its.start)) for mine, its in both)
        features = self.features[torch.searchsorted(crop.slices, slices)][:, :, rows, columns]
        y, x = (slice(s.start * STRIDE, s.stop * STRIDE) for s in (around.rows, around.columns))
        masks = whole.masks[:, slices][:, :, y, x].repeat_interleave(2, -1).repeat_interleave(2, -2)
        body = F.interpolate(whole.scan.body[None, slices, around.rows, around.columns], scale_factor=2)[0]
        scan = EncodedScan(whole.scan.grid, whole.scan.slices[slices.numpy()], features, body)
        return EncodedSupport(scan, masks, whole.drawn[:, slices.numpy()])
