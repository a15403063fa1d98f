"""What every baseline has in common: it segments like a Segmenter, and says what it must be given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

Extent = Mapping[str, tuple[int, int]]


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
    ) -> Segmentation:
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
        masks = self.masks(support, query, extent or {})
        return label_map(query, support, masks)

    def masks(self, support: Support, query: Volume, extent: Extent) -> np.ndarray:
        """Masks bool (organ, z, y, x) on the query's grid."""
        raise NotImplementedError


def _only(supports: Sequence[Support]) -> Support:
    if len(supports) != 1:
        raise ConfigError(f"{len(supports)} supports", "one: baselines learn from a single scan")
    return supports[0]


def label_map(query: Volume, support: Support, masks: np.ndarray) -> Segmentation:
    """Masks (organ, z, y, x) as a Segmentation; where organs overlap the first one wins. Baselines have no confidence."""
    labels = np.zeros(query.geometry.shape, np.uint16)
    for organ, mask in reversed(list(zip(support.organs, masks, strict=True))):
        labels[mask] = organ.label
    count = len(support.organs)
    return Segmentation(
        geometry=query.geometry,
        organs=support.organs,
        labels=labels,
        confidence=np.full(count, np.nan),
        slice_confidence=np.full((count, len(labels)), np.nan),
        name=query.name,
    )


def missing_package(package: str, baseline: str) -> ConfigError:
    """The error for an optional package that a baseline needs."""
    return ConfigError(
        f"The baseline {baseline} needs the package {package}, which is not installed", "", f"install it: pip install {package}"
    )
