"""`match`, the default method: registration by features, labels by windowed attention (dense_matching.md).

Every query cell looks for its labels in a window of the support around the place where it should lie, and that place comes
from the same features. One pass carries all organs; nothing is told about the query; what lies outside the organs on the
support is evidence for background.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import Attention, RegistrationConfig, ScanFeatures, Window, attend, cell_positions, register
from FewShotSegLib.encoding import cell_fractions
from FewShotSegLib.errors import ConfigError

TINY = 1e-4


@dataclass(frozen=True)
class MatchConfig:
    """Options of the attention; `sigma` and `radius` in cells, `reach_mm` along the slices' axis.

    For the same scan: `drawn_sigma` and `near_sigma` (cells) are the windows towards drawn and towards finished slices,
    `distance_mm` is the distance between slices that costs one logit, `neighbours` how many finished slices are asked, `doubt`:
    beyond drawn slices, cells that resemble what was drawn beside an organ more than the organ are doubted (`strategies.doubt`).
    `closer`: thin organs in a new scan are looked at a second time, at twice the resolution (`strategies.closer`).
    `settle_passes`: how often the labels of a new scan settle among its own cells (`strategies.settle`; 0: never), with
    attention of `settle_temperature`.
    `background`: what background's fractions weigh at the end; cells at a rounded border have more background than organ around
    them, so that smoothing and settling take from organs. `compete`: labels compete for the pixels at borders (`competition`).
    `tones`: thin organs and what they touch share their pixels by how bright they were drawn.
    """

    temperature: float = 40.0
    sigma: float = 3.0
    radius: int = 4
    reach_mm: float = 16.0
    drawn_sigma: float = 3.0
    near_sigma: float = 1.5
    distance_mm: float = 7.7
    neighbours: int = 2
    doubt: bool = True
    closer: bool = True
    settle_passes: int = 16
    settle_temperature: float = 20.0
    background: float = 0.8
    compete: bool = True
    tones: bool = True
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)

    def __post_init__(self) -> None:
        lengths = (self.sigma, self.reach_mm, self.drawn_sigma, self.near_sigma, self.distance_mm)
        above = (self.temperature, self.settle_temperature, self.background, *lengths)
        if not all(0 < value < math.inf for value in above) or min(self.radius, self.neighbours, self.settle_passes) < 0:
            raise ConfigError(
                f"These options are impossible: {self}",
                "temperatures, sigmas, distances and background above 0; radius, neighbours and passes from 0",
                "correct the option",
            )


@dataclass(frozen=True, eq=False)
class MatchMemory:
    """Support slices as they are: unit features (s c h w) and area fractions of background and organs (s v h w)."""

    features: Tensor
    values: Tensor

    def to(self, device: torch.device | str) -> MatchMemory:
        """The same memory on `device`."""
        return MatchMemory(self.features.to(device), self.values.to(device))


@dataclass(frozen=True, eq=False)
class Carried:
    """Labels carried to the query's cells: `values` (n v h w) fractions, channel 0 = background; best similarity (n h w).

    `places`: where each support was asked, (3 n h w) as from `register`; none within a scan.
    """

    values: Tensor
    best: Tensor
    places: tuple[Tensor, ...] = ()


class Match:
    """Dense matching between a support and a query."""

    name: ClassVar[str] = "match"

    def __init__(self, config: MatchConfig | None = None) -> None:
        self.config = config or MatchConfig()

    def remember(self, features: Tensor, masks: Tensor) -> MatchMemory:
        """Features (s c h w) and masks (s H W) of one organ."""
        organ = cell_fractions(masks)[:, None]
        return MatchMemory(features, torch.cat([1 - organ, organ], 1))

    def score(self, features: Tensor, memory: MatchMemory) -> Tensor:
        """Logits (n 2 h w): log fractions found by features (n c h w) looking around the same position on every slice."""
        n, _, h, w = features.shape
        place = cell_positions(n, h, w, features.device).T.reshape(3, n, h, w)
        place[0] = (len(memory.features) - 1) / 2
        window = self.window(slice_mm=1.0, cell_mm=1e3, reach_mm=float(len(memory.features)))
        return (attend(features, memory.features, place, memory.values, window).values + TINY).log()

    def carry(self, query: ScanFeatures, supports: Sequence[tuple[ScanFeatures, Tensor]]) -> Carried:
        """Carry the `values` (m v h w) of every support scan to the query; several supports share one softmax."""
        places = tuple(register(query, support, self.config.registration) for support, _ in supports)
        return replace(self.ask(query.features, supports, places, query.inside), places=places)

    def ask(
        self, features: Tensor, supports: Sequence[tuple[ScanFeatures, Tensor]], places: Sequence[Tensor], wanted: Tensor
    ) -> Carried:
        """What the supports say of cells with `features` (n c h w), each around its place (3 n h w), if `wanted` (n h w).

        Those in whose windows no support holds any organ are not asked: they are background.
        """
        windows = [self.window(support.slice_mm, support.cell_mm, self.config.reach_mm) for support, _ in supports]
        asked = list(zip(supports, places, windows, strict=True))
        near = torch.stack([_near_organs(values, place, window) for (_, values), place, window in asked]).any(0)
        return join([attend(features, s.features, place, values, w, wanted & near) for (s, values), place, w in asked])

    def window(self, slice_mm: float, cell_mm: float, reach_mm: float) -> Window:
        """The attention's window on a support with these sizes."""
        return Window(self.config.temperature, self.config.sigma, self.config.radius, reach_mm, slice_mm, cell_mm)


def _near_organs(values: Tensor, place: Tensor, window: Window) -> Tensor:
    """Whether any organ of the support's `values` (m v h w) may lie in the window around a place (3 n h w): bool (n h w)."""
    reach = (window.depth + 1, window.radius + 1, window.radius + 1)
    held = (values[:, 1:].amax(1) > 0).float()[None]
    wide = F.max_pool3d(held, [2 * r + 1 for r in reach], 1, reach)[0].bool()
    nearest = [axis.round().long().clamp(0, size - 1) for axis, size in zip(place, wide.shape, strict=True)]
    return wide[nearest[0], nearest[1], nearest[2]]


def join(answers: Sequence[Attention]) -> Carried:
    """The answers of several supports as if all their cells had shared one softmax."""
    mass = torch.stack([a.mass for a in answers])
    shares = mass.softmax(0).nan_to_num()  # outside the body nobody was asked
    values = sum((share[:, None] * a.values for share, a in zip(shares, answers, strict=True)), torch.zeros(()))
    values[:, 0] += (mass.amax(0) == -torch.inf).float()
    best = torch.stack([a.best for a in answers]).amax(0)
    return Carried(torch.as_tensor(values), best)
