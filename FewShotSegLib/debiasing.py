"""Prototypes of regions led to the query step by step: what RPT (MICCAI 2023) and PAMI (IEEE TIM 2024) share.

adnet_qnet_rpt_pami_qamp.md sections 6.3 and 7.3. Axes: s support slices, n query slices, k regions, c channels, h w cells,
H W pixels. Several shots keep regions of their own; their prototypes are averaged after every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.anomaly import anomaly, margin
from FewShotSegLib.prototypes import area_fractions, masked_average, published_average
from FewShotSegLib.regions import cut, organ_cells, regional_prototypes, touched_cells

FirstSeed = Callable[[int], int]
"""Number of cells of an organ -> the one, in raster order, that seeds the first region."""

Refine = Callable[[Tensor, Tensor], Tensor]
"""(regions (n s k c), query prototypes (n 1 1 c)) -> regions (n s k c)."""


@dataclass(frozen=True, eq=False)
class RegionMemory:
    """The organ's mean feature (c), those of its regions on every slice that shows it (s k c), and a fallback threshold ().

    An empty support has a zero mean feature and s = 0.
    """

    prototype: Tensor
    regions: Tensor
    threshold: Tensor

    def to(self, device: torch.device | str) -> RegionMemory:
        """The same memory on `device`."""
        return RegionMemory(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Step:
    """One step of every query: the query's own prototype (n c) that went in, and the organ's prototype (n c) that came out."""

    query: Tensor
    prototypes: Tensor


def standard(features: Tensor) -> Tensor:
    """Features (n c h w) of length sqrt(c): a channel is about 1, the size that layer norms give to prototypes."""
    return F.normalize(features, dim=1, eps=1e-4) * features.shape[1] ** 0.5


def regions_of(features: Tensor, masks: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The organ's mean feature (c) and `count` regions (s k c) on each of the slices (s c h w) that its masks (s H W) show.

    A slice with fewer cells of the organ has some of them several times.
    """
    size = (features.shape[2], features.shape[3])
    regions = []
    for shot, mask in zip(features, masks, strict=True):
        cells = organ_cells(mask, size)
        if cells.any():
            found = regional_prototypes(shot, cut(cells, count))
            regions.append(found[torch.arange(count, device=found.device) % len(found)])
    if not regions:
        return features.new_zeros(features.shape[1]), features.new_zeros(0, count, features.shape[1])
    area = area_fractions(masks.to(features.dtype), size)
    means = masked_average(features, area)[area.flatten(1).any(1)]
    return means.mean(0), torch.stack(regions)


def published_regions_of(features: Tensor, masks: Tensor, count: int, first: FirstSeed) -> tuple[Tensor, Tensor]:
    """As `regions_of` in the papers' programs: an organ with fewer cells is filled up with cells from the top of the map."""
    size = (features.shape[2], features.shape[3])
    regions = []
    for shot, mask in zip(features, masks, strict=True):
        cells = touched_cells(mask, size, count)
        regions.append(regional_prototypes(shot, cut(cells, count, first(int(cells.sum())))))
    return published_average(features, masks).mean(0), torch.stack(regions)


def soft_prototype(features: Tensor, prototypes: Tensor, thresholds: Tensor) -> Tensor:
    """The mean feature (n c) of the queries, weighted with the probability of the organ that `prototypes` (n c) give."""
    return masked_average(features, margin(anomaly(features, prototypes), thresholds).sigmoid())


def debias(
    features: Tensor,
    memory: RegionMemory,
    thresholds: Tensor,
    refine: Refine,
    *,
    iterations: int,
    keep_mean: bool,
) -> list[Step]:
    """Refine the regions with the query's own prototype, predict the query, and again, `iterations` times.

    features (n c h w) and thresholds (n) of the queries. `keep_mean`: the organ's mean feature is added to the regions'. The
    first of the steps is that mean feature itself, before any refinement; it is the only one of an empty support.
    """
    prototypes = repeat(memory.prototype, "c -> n c", n=len(features))
    regions = repeat(memory.regions, "s k c -> n s k c", n=len(features))
    steps = [Step(torch.zeros_like(prototypes), prototypes)]
    for _ in range(iterations if len(memory.regions) else 0):
        query = soft_prototype(features, steps[-1].prototypes, thresholds)
        regions = refine(regions, rearrange(query, "n c -> n 1 1 c"))
        mean = regions.mean((1, 2))
        steps.append(Step(query, mean + memory.prototype if keep_mean else mean))
    return steps
