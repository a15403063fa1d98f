"""From a result to records: which slices a protocol scores, and the metrics on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from FewShotSegLib.evaluation.annotation import organ_slices
from FewShotSegLib.evaluation.metrics import dice, scores
from FewShotSegLib.evaluation.result import Record
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.support import Organ, Support
from FewShotSegLib.volume import Volume

Extents = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Case:
    """A query with its truth, labels (z, y, x)."""

    image: Volume
    labels: np.ndarray

    def extents(self, organs: Sequence[Organ]) -> dict[str, tuple[int, int]]:
        """First and last slice of each organ that the scan has, by name."""
        shown = {organ.name: organ_slices(self.labels, organ) for organ in organs}
        return {name: (slices[0], slices[-1]) for name, slices in shown.items() if slices}


@dataclass(frozen=True)
class Pair:
    """Which case was taught by which support, in which fold."""

    fold: int | None
    support: str
    case: str


def score_scan(pair: Pair, query: Case, support: Support, found: Segmentation, protocol: str, seconds: float) -> list[Record]:
    """One record per organ; organs that the protocol cannot score in this scan have none.

    "full-volume" scores every slice, "oracle-z" the organ's true extent, "same-scan" the slices that are not drawn.
    """
    extents = query.extents(support.organs)
    records = []
    for organ, drawn in zip(support.organs, support.drawn, strict=True):
        inside = _within(extents.get(organ.name), len(query.labels))
        scored = {"full-volume": np.ones_like(inside), "oracle-z": inside}[protocol] if protocol != "same-scan" else ~drawn
        if scored.any():
            records.append(_record(pair, query, organ, found, scored, scored & inside, seconds))
    return records


def _within(extent: tuple[int, int] | None, count: int) -> np.ndarray:
    """The slices of an extent as bool (z,); none without one."""
    inside = np.zeros(count, bool)
    if extent is not None:
        inside[extent[0] : extent[1] + 1] = True
    return inside


def _record(
    pair: Pair, query: Case, organ: Organ, found: Segmentation, scored: np.ndarray, told: np.ndarray, seconds: float
) -> Record:
    predicted, truth = found.mask(organ), query.labels == organ.label
    values = scores(predicted, truth, query.image.spacing, scored)
    return Record(
        fold=pair.fold,
        support=pair.support,
        case=pair.case,
        organ=organ.name,
        dice=values.dice,
        nsd=values.nsd,
        hd95=values.hd95,
        dice_told=dice(predicted, truth, told),
        confidence=float(found.confidence[found.organs.index(organ)]),
        seconds=seconds,
    )
