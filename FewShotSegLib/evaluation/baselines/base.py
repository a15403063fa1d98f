"""What every baseline has in common: it segments like a Segmenter, and says what it must be given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.support import Organ, Support
from FewShotSegLib.volume import Volume

Extent = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class OrganByOrgan(Segmentation):
    """A result whose organs were found one by one and may overlap: `mask` gives each whole, as it is scored.

    In `labels` the first organ wins. `masks`: bool (organ, z, y, x).
    """

    masks: np.ndarray = field(kw_only=True)

    def mask(self, organ: Organ | str | int) -> np.ndarray:
        """Voxels of one organ, given itself, by name or by label; bool (z, y, x). KeyError for an unknown organ."""
        for known, mask in zip(self.organs, self.masks, strict=True):
            if organ in (known, known.name, known.label):
                return mask
        raise KeyError(f"{organ!r} is not among {[known.name for known in self.organs]}")


class Baseline:
    """A classical method behind the call of a Segmenter.

    `protocols` are those it can serve; `needs_extent` says that it must be told on which slices each organ lies. A baseline
    is built from `seed` (only elastix draws random samples).
    """

    name: ClassVar[str]
    description: ClassVar[str]
    protocols: ClassVar[tuple[str, ...]]
    needs_extent: ClassVar[bool] = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def segment(
        self, supports: Support | Sequence[Support], query: Volume, *, extent: Extent | None = None, **_: Any
    ) -> OrganByOrgan:
        """All organs of the support in the query, on the query's grid.

        Args:
            supports: one support (baselines know no multi-shot).
            query: the scan.
            extent: first and last slice of each organ by name, for the baselines that need it.

        Raises:
            ConfigError: several supports, or an extent is needed and missing.
        """
        support = supports if isinstance(supports, Support) else _only(supports)
        if self.needs_extent and extent is None:
            raise ConfigError(f"{self.name} was not told the extent of the organs", "first and last slice of each, by name")
        return organ_by_organ(query, support.organs, self.masks(support, query, extent or {}))

    def masks(self, support: Support, query: Volume, extent: Extent) -> np.ndarray:
        """Masks bool (organ, z, y, x) on the query's grid."""
        raise NotImplementedError


def _only(supports: Sequence[Support]) -> Support:
    if len(supports) != 1:
        raise ConfigError(f"{len(supports)} supports", "one: baselines learn from a single scan")
    return supports[0]


def organ_by_organ(query: Volume, organs: tuple[Organ, ...], masks: np.ndarray) -> OrganByOrgan:
    """Masks bool (organ, z, y, x) as a result; baselines have no confidence."""
    labels = np.zeros(query.geometry.shape, np.uint16)
    for organ, mask in reversed(list(zip(organs, masks, strict=True))):
        labels[mask] = organ.label
    count = len(organs)
    return OrganByOrgan(
        geometry=query.geometry,
        organs=organs,
        labels=labels,
        confidence=np.full(count, np.nan),
        slice_confidence=np.full((count, len(labels)), np.nan),
        name=query.name,
        masks=masks,
    )


def missing_package(package: str, baseline: str) -> ConfigError:
    """The error for an optional package that a baseline needs."""
    return ConfigError(
        f"The baseline {baseline} needs the package {package}, which is not installed", "", f"install it: pip install {package}"
    )
