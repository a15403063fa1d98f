"""QAMP's banks of prototypes, and the decoder that reads the similarities with them: adnet_qnet_rpt_pami_qamp.md section 8.

A bank holds, in this order: cells of the query that its prior calls organ (or background), learned mixtures of the support's
cells, cells along the edge of the support's mask, the mean of the mask, the mean of the edge.
Axes: n query slices, p prototypes, c channels, h w cells, H W pixels, x any cells or pixels in one row.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import einsum
from torch import Tensor, nn
from torch.nn import functional as F

from FewShotSegLib.prototypes import AREA_FLOOR

EDGE_PIXELS = 2
TINY = 1e-9

Pick = Callable[[int, int], list[int]]
"""(how many there are, how many are wanted) -> the numbers of the picked ones."""


@dataclass(frozen=True)
class BankSize:
    """How many prototypes of each kind a bank holds; of `learned` ones, `kept` are used (all of them in our form)."""

    query: int
    learned: int
    kept: int
    edge: int = 50

    @property
    def support(self) -> int:
        """Prototypes that come from the support: learned ones, edge, two means."""
        return self.kept + self.edge + 2

    @property
    def total(self) -> int:
        """All prototypes."""
        return self.query + self.support


PUBLISHED = BankSize(50, 100, 50), BankSize(100, 600, 500)
OURS = BankSize(50, 50, 50), BankSize(100, 500, 500)


@dataclass(frozen=True, eq=False)
class Banks:
    """All prototypes of organ and background (n p c) of every query; the first ones are the query's own."""

    organ: Tensor
    background: Tensor


def evenly(available: int, wanted: int) -> list[int]:
    """`wanted` numbers below `available`, evenly spread and ascending; each comes several times when they are too few."""
    return [(2 * i + 1) * available // (2 * wanted) for i in range(wanted)]


def at_random(seed: int) -> Pick:
    """Published: without replacement; too few are repeated as a whole, after a random part of them."""
    generator = random.Random(seed)
    return lambda available, wanted: drawn(available, wanted, lambda n, k: generator.sample(range(n), k))


def drawn(available: int, wanted: int, sample: Pick) -> list[int]:
    """The published rule around `sample`, which picks without replacement."""
    if available >= wanted:
        return sample(available, wanted)
    copies, rest = divmod(wanted, available)
    return [*sample(available, rest), *(list(range(available)) * copies)]


def picked(features: Tensor, inside: Tensor, wanted: int, pick: Pick) -> Tensor:
    """Features (c x) of `wanted` places among those `inside` (x) bool: (wanted c); zeros when there are none."""
    places = inside.nonzero()[:, 0]
    if not len(places):
        return features.new_zeros(wanted, len(features))
    return features[:, places[pick(len(places), wanted)]].T


def mean_feature(features: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean (1 c) of features (c x); zero where nothing weighs."""
    return (features @ weights / (weights.sum() + AREA_FLOOR))[None]


def edges(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The rims, 2 pixels wide, inside and outside of a mask (H W) of 0 and 1; the image's border is no edge."""
    inner, outer = 1 - mask[None], mask[None]
    for _ in range(EDGE_PIXELS):
        inner, outer = (F.max_pool2d(side, 3, 1, 1) for side in (inner, outer))
    return mask - (1 - inner[0]), outer[0] - mask


class PixelMix(nn.Module):
    """Published: every mixture has a weight for every pixel, so that the image's size is built in: (c x) -> (p c)."""

    def __init__(self, pixels: int, mixtures: int) -> None:
        super().__init__()
        self.first = nn.Linear(pixels, mixtures)
        self.dropout = nn.Dropout(0.2)
        self.second = nn.Linear(mixtures, mixtures)

    def forward(self, features: Tensor, inside: Tensor, pick: Pick) -> Tensor:
        """Mixtures (p c) of features (c x), where the places not `inside` (x) bool get features of those inside."""
        full = features.clone()
        full[:, ~inside] = picked(features, inside, int((~inside).sum()), pick).T
        return self.second(self.dropout(self.first(full))).T


class TokenMix(nn.Module):
    """Ours: every mixture is what a learned token attends to, at any image size: (c x) -> (p c)."""

    def __init__(self, channels: int, mixtures: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(mixtures, channels))

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """Mixtures (p c) of features (c x); `weights` (x) 0..1: how much of a cell may be used."""
        scores = self.tokens @ features / features.shape[0] ** 0.5 + (weights + TINY).log()
        return scores.softmax(1) @ features.T


class Decoder(nn.Module):
    """Similarities with the prototypes (n p h w) -> one logit (n h w)."""

    def __init__(self, prototypes: int, width: int) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, side: int) -> nn.Conv2d:
            return nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)

        self.enter = conv(prototypes, width, 1)
        self.residual = nn.Sequential(conv(width, width, 3), nn.ReLU(), conv(width, width, 3), nn.ReLU())
        self.leave = nn.Sequential(conv(width, width, 3), nn.ReLU(), nn.Dropout2d(0.2), conv(width, 1, 1))

    def forward(self, similarities: Tensor) -> Tensor:
        x = F.relu(self.enter(similarities))
        return self.leave(x + self.residual(x))[:, 0]


def similarities(features: Tensor, bank: Tensor) -> Tensor:
    """Cosines (n p h w) of every cell, features (n c h w), with the prototypes (n p c) of its slice."""
    return einsum(F.normalize(features, dim=1), F.normalize(bank, dim=2), "n c h w, n p c -> n p h w")
