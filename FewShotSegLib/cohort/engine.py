"""What segments a cohort's scans: the library's Segmenter with the cohort's supports, or, for a dry run, nothing at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.nearest import Descriptor, nearest
from FewShotSegLib.cohort.quality import Prediction, predict
from FewShotSegLib.cohort.supports import CohortSupport
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.progress import ShouldCancel
from FewShotSegLib.provenance import record_of, versions
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, Solved
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume


@dataclass(frozen=True, eq=False)
class Found:
    """A segmented scan, which supports taught it (ids, the most alike first), and how good it probably is."""

    segmentation: Segmentation
    used: tuple[str, ...] = ()
    similarity: Mapping[str, float] = field(default_factory=dict)
    prediction: Prediction = field(default_factory=Prediction)
    descriptor: Descriptor | None = None


class Engine(Protocol):
    """Segments one scan after the other. Not for several threads at once."""

    @property
    def checkpoint(self) -> str:
        """SHA-256 of the model."""
        ...

    def segment(self, volume: Volume, cancel: ShouldCancel) -> Found:
        """Segment a scan; raises FewShotSegError for one that it cannot, and Cancelled."""
        ...

    def made_with(self) -> dict[str, Any]:
        """Configuration, checkpoint and versions, for the record."""
        ...


def create_engine(config: CohortConfig, supports: Sequence[CohortSupport], device: str = "") -> Engine:
    """The engine of a configuration, its model loaded to `device` and its supports read.

    Raises:
        FewShotSegError: drawings, options, checkpoint or device cannot be used.
    """
    drawn = [_read(support, config) for support in supports]
    if config.dry_run:
        return DryEngine(drawn[0])
    chosen = replace(config.segmenter, device=device or config.segmenter.device)
    return SegmentingEngine(Segmenter(chosen), config, dict(zip((s.id for s in supports), drawn, strict=True)))


def _read(support: CohortSupport, config: CohortConfig) -> Support:
    drawing = support.drawing
    return Support.read(
        drawing.image, drawing.labels, slices=drawing.slices, organs=config.organs, names=dict(config.names) or None
    )


class SegmentingEngine:
    """The Segmenter; every support is encoded once, the nearest ones teach each scan."""

    def __init__(self, segmenter: Segmenter, config: CohortConfig, supports: Mapping[str, Support]) -> None:
        self.segmenter, self.config, self.supports = segmenter, config, dict(supports)
        self._described: dict[int, tuple[EncodedSupport, Descriptor]] = {}

    @property
    def checkpoint(self) -> str:
        """SHA-256 of the encoder's weights."""
        return self.segmenter.card.sha256 if self.segmenter.card else ""

    def made_with(self) -> dict[str, Any]:
        """See `provenance.record_of`."""
        return record_of(self.segmenter)

    def segment(self, volume: Volume, cancel: ShouldCancel) -> Found:
        """Segment a scan after its nearest supports."""
        ids = list(self.supports)
        scores: list[float] = []
        order = list(range(len(ids)))
        solved: list[Solved] = []
        mine: list[Descriptor] = []

        def choose(scan: EncodedScan, encoded: Sequence[EncodedSupport]) -> list[int]:
            mine.append(Descriptor.of(scan.regular()))
            scores.extend(mine[0].similarity(self._describe(support)) for support in encoded)
            order[:] = nearest(scores, self.config.nearest)
            return order

        drawn = list(self.supports.values())
        done = self.segmenter.segment(drawn, volume, cancel=cancel, choose=choose, inspect=solved.append)
        prediction = predict(solved[0], done, self.segmenter)
        return Found(
            done,
            tuple(ids[i] for i in order),
            {name: round(score, 5) for name, score in zip(ids, scores, strict=False)},
            prediction,
            mine[0] if mine else None,
        )

    def _describe(self, support: EncodedSupport) -> Descriptor:
        known = self._described.get(id(support))
        if known is None or known[0] is not support:
            known = self._described[id(support)] = (support, Descriptor.of(support.scan.regular()))
        return known[1]


class DryEngine:
    """Finds nothing, in no time: what a dry run tests is everything else."""

    checkpoint = "dry-run"

    def __init__(self, support: Support) -> None:
        self.organs = support.organs

    def segment(self, volume: Volume, cancel: ShouldCancel) -> Found:
        """An empty result on the scan's grid."""
        count, shape = len(self.organs), volume.geometry.shape
        nothing = np.full(count, np.nan), np.full((count, shape[0]), np.nan)
        labels = np.zeros(shape, np.uint8)
        return Found(Segmentation(volume.geometry, self.organs, labels, *nothing, name=volume.name, seconds=0.0))

    def made_with(self) -> dict[str, Any]:
        """The versions."""
        return {"config": "dry run", "versions": versions()}
