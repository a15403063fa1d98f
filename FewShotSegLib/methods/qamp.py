"""QAMP: a prior of the query picks prototypes from support and query, a decoder reads the similarities with them.

adnet_qnet_rpt_pami_qamp.md section 8. Published, features are brought to image resolution, layers have one weight for every
pixel of a 256 x 256 image, and prototypes are picked at random, also at use. Ours works on the cells of an image of any
size, with learned tokens instead of those layers and evenly spread picks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from FewShotSegLib.anomaly import ImageThreshold, anomaly, calibrated_threshold, margin, query_thresholds, two_class
from FewShotSegLib.debiasing import standard
from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.methods.base import LearnedMethod
from FewShotSegLib.methods.qamp_banks import (
    OURS,
    PUBLISHED,
    Banks,
    Decoder,
    Pick,
    PixelMix,
    TokenMix,
    at_random,
    edges,
    evenly,
    mean_feature,
    picked,
    similarities,
)
from FewShotSegLib.prototypes import area_fractions, published_average

PUBLISHED_WIDTHS = (150, 650)
SEED = 2025
HIDDEN = 1000
GATE = 0.1
TOGETHER = 16  # query slices


@dataclass(frozen=True)
class QampConfig:
    """Options of QAMP.

    organ_prior, background_prior: a query cell is picked where its prior of organ, or of background, is above this (0.7 and
    0.6 in the published CT model). width: channels inside the decoders. faithful: as published, for images of `side` x `side`
    pixels only (257 in the CT model); `width` is then 150 and 650. channels: of the encoder's features. lenient: the learned
    threshold is never stricter than the drawing asks for, see `lenient_threshold`.
    """

    organ_prior: float = 0.5
    background_prior: float = 0.5
    width: int = 64
    side: int = 256
    channels: int = 256
    lenient: bool = True
    faithful: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.organ_prior < 1 and 0 <= self.background_prior < 1) or min(self.width, self.side, self.channels) < 1:
            raise ConfigError(
                f"These options are impossible: {self}",
                "priors from 0 to below 1, width, side and channels from 1",
                "correct the option",
            )


@dataclass(frozen=True, eq=False)
class QampMemory:
    """The organ's mean feature (c), the support's prototypes of organ and background (p c), and a fallback threshold ().

    An empty support has no prototypes and a zero mean feature.
    """

    prototype: Tensor
    organ: Tensor
    background: Tensor
    threshold: Tensor

    def to(self, device: torch.device | str) -> QampMemory:
        """The same memory on `device`."""
        return QampMemory(*(getattr(self, field.name).to(device) for field in fields(self)))


class QampHead(nn.Module):
    """What is learned: mixtures and decoder of organ and of background, and the threshold.

    Ours adds the decoders to the prior, through a gate that is small at first, so that training begins near the prior.
    """

    def __init__(self, config: QampConfig) -> None:
        super().__init__()
        sizes = PUBLISHED if config.faithful else OURS
        widths = PUBLISHED_WIDTHS if config.faithful else (config.width, config.width)
        mixes: list[nn.Module] = [
            PixelMix(config.side**2, size.learned) if config.faithful else TokenMix(config.channels, size.learned)
            for size in sizes
        ]
        self.organ_mix, self.background_mix = mixes
        self.organ_decoder, self.background_decoder = (Decoder(s.total, w) for s, w in zip(sizes, widths, strict=True))
        self.gate = None if config.faithful else nn.Parameter(torch.tensor(GATE))
        self.threshold = ImageThreshold(config.channels, hidden=HIDDEN if config.faithful else 0)


class Qamp(LearnedMethod):
    """Query-adapted multiple prototypes; the learned part is `head`."""

    name: ClassVar[str] = "qamp"
    default_strategy: ClassVar[str] = "direct"
    untrained: ClassVar[str] = "the organ's mean feature, without a decoder, and a threshold fitted to the drawing stand in."
    head: QampHead

    def __init__(self, config: QampConfig | None = None, *, pick: Pick | None = None) -> None:
        self.config = config or QampConfig()
        self.head = QampHead(self.config).eval()
        self.sizes = PUBLISHED if self.config.faithful else OURS
        self.pick: Pick = pick or (at_random(SEED) if self.config.faithful else evenly)

    def remember(self, features: Tensor, masks: Tensor) -> QampMemory:
        """Prototypes of features (s c h w) under masks (s H W), 0..1; half a pixel of the organ counts as organ."""
        features, hard = self.prepared(features), (masks > 0.5).to(features.dtype)
        prototype, organ, background = self._rows(features, hard)
        area = area_fractions(hard, (features.shape[2], features.shape[3]))
        return QampMemory(prototype, organ, background, calibrated_threshold(anomaly(features, prototype), area))

    def prepared(self, features: Tensor) -> Tensor:
        """Features (n c h w) as the other functions want them."""
        return features if self.config.faithful else standard(features)

    def thresholds(self, features: Tensor, memory: QampMemory) -> Tensor:
        """The threshold (n) of every query (n c h w): the learned one, led by the support's, or the support's alone."""
        learn = self.head.threshold if self.trained else None
        return query_thresholds(learn, features, memory.threshold, lenient=self.config.lenient and not self.config.faithful)

    def banks(self, features: Tensor, memory: QampMemory, prior: Tensor) -> Banks:
        """The support's prototypes with those that the prior (n h w), logits, picks from queries (n c h w)."""
        chances = (self.config.organ_prior, self.config.background_prior)
        rows: tuple[list[Tensor], list[Tensor]] = ([], [])
        for maps, organ in zip(features.split(1), prior.sigmoid()[:, None].split(1), strict=True):
            if self.config.faithful:
                maps, organ = self._wide(maps), self._wide(organ)
            for kind, chance in enumerate((organ, 1 - organ)):
                chosen = chance.flatten() > chances[kind]
                rows[kind].append(picked(maps[0].flatten(1), chosen, self.sizes[kind].query, self.pick))
        return Banks(_joined(rows[0], memory.organ), _joined(rows[1], memory.background))

    def decode(self, features: Tensor, banks: Banks, prior: Tensor) -> Tensor:
        """Logits (n 2 h w) of queries (n c h w)."""
        organ = self.head.organ_decoder(similarities(features, banks.organ))
        background = self.head.background_decoder(similarities(features, banks.background))
        if self.head.gate is None:
            return torch.stack([background, organ], 1)
        return torch.stack([self.head.gate * background, prior + self.head.gate * organ], 1)

    def score(self, features: Tensor, memory: QampMemory) -> Tensor:
        """Logits (n 2 h w) of features (n c h w), a few slices at once."""
        return torch.cat([self._score(self.prepared(part), memory) for part in features.split(TOGETHER)])

    def _score(self, features: Tensor, memory: QampMemory) -> Tensor:
        prior = margin(anomaly(features, memory.prototype), self.thresholds(features, memory))
        if not len(memory.organ) or not self.trained:
            return two_class(prior)
        return self.decode(features, self.banks(features, memory, prior), prior)

    def _rows(self, features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean feature (c), prototypes of organ and of background (p c) from masks (s H W) of 0 and 1."""
        if not masks.any():
            none = features.new_zeros(0, features.shape[1])
            return features.new_zeros(features.shape[1]), none, none
        return self._published_rows(features, masks) if self.config.faithful else self._pooled_rows(features, masks)

    def _pooled_rows(self, features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All shots in one: their cells are one row."""
        cells = rearrange(features, "s c h w -> c (s h w)")
        size = (features.shape[2], features.shape[3])
        rims = zip(*(edges(mask) for mask in masks), strict=True)
        inner, outer = (area_fractions(torch.stack(rim), size).flatten() for rim in rims)
        organ = area_fractions(masks, size).flatten()
        background = 1 - organ
        return (
            mean_feature(cells, organ)[0],
            self._support_rows(self.head.organ_mix(cells, organ), cells, organ, inner, 0),
            self._support_rows(self.head.background_mix(cells, background), cells, background, outer, 1),
        )

    def _published_rows(self, features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every shot by itself at image resolution, then the mean of the shots, row by row."""
        if tuple(masks.shape[1:]) != (self.config.side, self.config.side):
            raise SupportError(
                f"The image has {masks.shape[1]} x {masks.shape[2]} pixels",
                f"{self.config.side} x {self.config.side}, because published QAMP has a weight for every pixel",
                "leave out faithful=True",
            )
        shots = [self._shot(pixels, mask) for pixels, mask in zip(self._wide(features), masks, strict=True)]
        organ, background = (torch.stack(rows).mean(0) for rows in zip(*shots, strict=True))
        return published_average(features, masks, corners=True).mean(0), organ, background

    def _shot(self, wide: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Prototypes of organ and background (p c) of one support slice: wide (c H W), mask (H W)."""
        pixels, organ = wide.flatten(1), mask.flatten()
        inner, outer = (rim.flatten() for rim in edges(mask))
        learned = self.head.organ_mix(pixels, organ > 0, self.pick)
        rows = self._support_rows(learned, pixels, organ, inner, 0)
        learned = self.head.background_mix(pixels, organ == 0, self.pick)
        return rows, self._support_rows(learned, pixels, 1 - organ, outer, 1)

    def _support_rows(self, learned: Tensor, cells: Tensor, weights: Tensor, rim: Tensor, kind: int) -> Tensor:
        """The support's part of a bank, `kind` 0 organ, 1 background, from cells (c x) with weights and rim (x)."""
        size = self.sizes[kind]
        edge = picked(cells, rim > 0, size.edge, self.pick)
        kept = learned if size.kept == size.learned else learned[self.pick(size.learned, size.kept)]
        return torch.cat([kept, edge, mean_feature(cells, weights), mean_feature(cells, rim)])

    def _wide(self, maps: Tensor) -> Tensor:
        """Maps (n k h w) at the published image resolution."""
        return F.interpolate(maps, (self.config.side, self.config.side), mode="bilinear", align_corners=True)


def _joined(own: list[Tensor], support: Tensor) -> Tensor:
    """Banks (n p c) of the queries' own prototypes and the support's (p c)."""
    return torch.stack([torch.cat([rows, support]) for rows in own])
