"""The job: supports and a query in, a segmentation out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from FewShotSegLib import strategies
from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import load_checkpoint
from FewShotSegLib.confidence import Confidence, confidence_of
from FewShotSegLib.devices import FeatureRunner, choose_device
from FewShotSegLib.drawings import EncodedSupport, encode_support
from FewShotSegLib.encoders import STRIDE, Encoder
from FewShotSegLib.encoding import EncodedScan, encode_scan
from FewShotSegLib.equip import equipped, notes_of
from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.grid import AxialGrid
from FewShotSegLib.kinds import across_kinds, kinds_of, warnings_about
from FewShotSegLib.labels import Borders, to_voxels
from FewShotSegLib.methods import create_method
from FewShotSegLib.organs import Organ
from FewShotSegLib.pieces import keep_largest, keep_touching
from FewShotSegLib.progress import OnProgress, Reporter, ShouldCancel
from FewShotSegLib.segmentation import Segmentation, certainty_of
from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT, SegmenterConfig
from FewShotSegLib.strategies import Answer, Extents
from FewShotSegLib.support import Support
from FewShotSegLib.turns import AS_IT_IS, UNSURE, Turn, can_be_turned, find_turn
from FewShotSegLib.volume import Volume

__all__ = ["DEFAULT_CHECKPOINT", "Segmenter", "SegmenterConfig", "Solved", "is_same_scan"]


@dataclass(frozen=True, eq=False)
class Solved:
    """How a query was solved, in the terms of the network: for whoever judges a result.

    index: the final labels (z, y, x), 1.. = organs in order, on the query's voxels. turn: how the query was laid for it.
    """

    supports: Sequence[EncodedSupport]
    scan: EncodedScan
    answer: Answer
    index: np.ndarray
    turn: Turn = AS_IT_IS


Choose = Callable[[EncodedScan, Sequence[EncodedSupport]], Sequence[int]]
"""Which of the supports teach a query: their indices, the most important one first."""


@dataclass(frozen=True, eq=False)
class _Job:
    """What stays the same however the query is laid; `own`: the support that is the query itself, `alike`: scans of one kind."""

    supports: Sequence[EncodedSupport]
    organs: tuple[Organ, ...]
    own: Support | None
    extent: Extents | None
    alike: bool
    choose: Choose | None
    report: Reporter


@dataclass(frozen=True, eq=False)
class _Result:
    """How a query was solved, with the probabilities (organ, z, y, x) where these are wanted."""

    solved: Solved
    probabilities: np.ndarray | None
    confidence: Confidence

    @property
    def certainty(self) -> float:
        """Mean confidence over all organs; one that was not found has none."""
        return certainty_of(self.confidence.organs)


class Segmenter:
    """Segments queries after supports; keeps the encoder and the encoded supports between calls."""

    def __init__(
        self, config: SegmenterConfig | None = None, *, encoder: Encoder | None = None, card: Card | None = None
    ) -> None:
        self.config = config or SegmenterConfig()
        if self.config.strategy not in strategies.NAMES:
            raise ConfigError(f"There is no strategy {self.config.strategy!r}", f"one of {', '.join(strategies.NAMES)}")
        create_method(self.config.method, **self.config.options)  # a wrong option is told before anything is loaded
        checkpoint = self.config.checkpoint if encoder is None else None
        if encoder is None:
            encoder, card = load_checkpoint(self.config.checkpoint)
        self.card = card
        self.method = equipped(self.config.method, self.config.options, encoder, card, checkpoint)
        self.checkpoint = checkpoint
        self.across: Segmenter | None = None
        self.runner = FeatureRunner(encoder, choose_device(self.config.device), self.config.batch)
        self._encoded: dict[int, tuple[Support, float, EncodedSupport]] = {}

    def segment(
        self,
        supports: Support | Sequence[Support],
        query: Volume,
        *,
        extent: Extents | None = None,
        progress: OnProgress | None = None,
        cancel: ShouldCancel | None = None,
        choose: Choose | None = None,
        inspect: Callable[[Solved], None] | None = None,
    ) -> Segmentation:
        """Segment every organ of the supports in the query.

        Args:
            supports: one or several drawn scans with the same organs. A support whose image is the query itself means: the
                rest of this scan after its drawn slices.
            extent: for the papers' protocol only: first and last slice (along the query array's z) of organs, by name.
            progress: called often with a `Progress`.
            cancel: called often; `Cancelled` is raised when it says True.
            choose: which of several supports teach this query; all of them without it.
            inspect: called once at the end, with what the labels were made from.

        Raises:
            SupportError, VolumeError: see `Support.create` and `grid.normalise`. Cancelled.
        """
        started = time.monotonic()
        known = [supports] if isinstance(supports, Support) else list(supports)
        organs = _common_organs(known)
        own = next((s for s in known if is_same_scan(s.image, query)), None)
        images = [query] if own is not None else [*(s.image for s in known), query]
        other = self._for_kinds(images)
        if other is not None:
            return other.segment(known, query, extent=extent, progress=progress, cancel=cancel, choose=choose, inspect=inspect)
        notes = [*warnings_about(self.card, images), *notes_of(self.method)]
        if own is not None:
            if len(known) > 1:
                notes.append("The scan itself carries drawings: the other supports were not used.")
            known = [own]
        pixel_mm = AxialGrid.of(known[0].image.geometry).pixel_mm
        new = sum(not self._is_kept(s, pixel_mm) for s in known)
        stages = {"encoding the support": new, "encoding the scan": float(own is None), "finding the organs": 0.6}
        report = Reporter(stages, progress, cancel)
        with torch.no_grad():
            encoded = self._encode_supports(known, pixel_mm, report)
            job = _Job(encoded, organs, own, extent, len(kinds_of(images)) == 1, choose, report)
            result = self._solve(job, query)
            turn = self._turn(job, result)
            if turn != AS_IT_IS:
                turned = self._solve(job, query, turn)
                if turned.certainty > result.certainty:
                    result = turned
                    notes.append(turn.note)
            if inspect is not None:
                inspect(result.solved)
        report.step("finding the organs", 1.0)
        numbers = [0, *(o.label for o in organs)]
        labels = np.array(numbers, np.uint8 if max(numbers) < 256 else np.uint16)[result.solved.index]
        return Segmentation(
            query.geometry,
            organs,
            labels,
            result.confidence.organs,
            result.confidence.slices,
            result.probabilities,
            query.name,
            (*notes, *self.runner.notes),
            time.monotonic() - started,
        )

    def _solve(self, job: _Job, query: Volume, turn: Turn = AS_IT_IS) -> _Result:
        """Encode the query, unless it is the support's own scan, find the organs in it and label its voxels."""
        encoded = job.supports
        scan = encoded[0].scan
        if job.own is None:
            scan = self._encode_query(turn.of(query), scan.grid.pixel_mm, job.report)
            encoded = encoded if job.choose is None else [encoded[i] for i in job.choose(scan, encoded)]
        job.report.step("finding the organs", 0.0)
        told = _on_encoded(job.extent, scan, job.organs)
        encode = None if self.runner.volumetric else self.runner
        pieces = self._pieces(encoded, job.own)
        task = strategies.Task(encoded, scan, told, job.own is not None, encode, pieces, job.alike, self.config.place)
        answer = strategies.answer(self.method, self.config.strategy, task, lambda p: job.report.step("finding the organs", p))
        index, probabilities, confidence = self._finish(answer, scan, job.own, pieces)
        return _Result(Solved(encoded, scan, answer, index, turn), probabilities, confidence)

    def _turn(self, job: _Job, result: _Result) -> Turn:
        """How the query has to be laid to lie like the support; only asked where the result in another scan is unsure."""
        scan, support = result.solved.scan, result.solved.supports[0].scan
        asked = self.config.turns and job.own is None and not self.runner.volumetric
        if not asked or result.certainty >= UNSURE or not can_be_turned(scan):
            return AS_IT_IS
        return find_turn(scan, support, self.runner)

    def _for_kinds(self, images: Sequence[Volume]) -> Segmenter | None:
        """The Segmenter for images of different kinds, kept for the next ones; None where this one does it."""
        config = across_kinds(self.config, images) if self.checkpoint is not None else None
        if config is None:
            return None
        if self.across is None:
            self.across = Segmenter(config)
        return self.across

    def _is_kept(self, support: Support, pixel_mm: float) -> bool:
        kept = self._encoded.get(id(support))
        return kept is not None and kept[0] is support and kept[1] == pixel_mm

    def _encode_supports(self, supports: Sequence[Support], pixel_mm: float, report: Reporter) -> list[EncodedSupport]:
        """Encode the supports that are not kept from the call before; forget all others."""
        self._encoded = kept = {id(s): self._encoded[id(s)] for s in supports if self._is_kept(s, pixel_mm)}
        new = [s for s in supports if id(s) not in kept]
        for number, support in enumerate(new):

            def step(part: float, done: int = number) -> None:
                report.step("encoding the support", (done + part) / len(new))

            encoded = encode_support(support, self.runner, every_mm=self.config.every_mm, pixel_mm=pixel_mm, step=step)
            kept[id(support)] = (support, pixel_mm, encoded)
        return [kept[id(s)][2] for s in supports]

    def _encode_query(self, query: Volume, pixel_mm: float, report: Reporter) -> EncodedScan:
        return encode_scan(
            query,
            self.runner,
            every_mm=self.config.every_mm,
            pixel_mm=pixel_mm,
            step=lambda part: report.step("encoding the scan", part),
        )

    def _pieces(self, supports: Sequence[EncodedSupport], own: Support | None) -> list[int] | None:
        """How many pieces of each organ are kept: as many as were drawn; None: all, or those that the drawing touches."""
        if own is not None or not self.config.largest_only:
            return None
        return [max(counts) for counts in zip(*(s.pieces for s in supports), strict=True)]

    def _finish(
        self, answer: Answer, scan: EncodedScan, own: Support | None, pieces: Sequence[int] | None
    ) -> tuple[np.ndarray, np.ndarray | None, Confidence]:
        """Labels on the query's voxels, cleaned; drawn slices stay as they were drawn."""
        refined = self.config.refine and not getattr(self.method.config, "faithful", False)
        borders = Borders(answer.margins, refined, answer.thin, getattr(self.method.config, "compete", False), answer.tones)
        voxels = to_voxels(scan, answer.deciding, borders, probabilities=self.config.probabilities)
        index = voxels.index
        if own is not None:
            _restore_drawn(index, own)
        if pieces is not None:
            keep_largest(index, pieces, None if answer.votes is None else partial(_votes_for, scan, answer.votes))
        elif self.config.largest_only and own is not None:
            for number, mask in enumerate(own.masks, 1):
                keep_touching(index, number, mask & own.drawn[number - 1][:, None, None])
        return index, voxels.probabilities, confidence_of(answer, scan, index)


def is_same_scan(image: Volume, query: Volume) -> bool:
    """Whether two volumes are the same scan, voxel for voxel."""
    return image is query or (
        image.geometry.same_as(query.geometry) and (image.array is query.array or bool(np.array_equal(image.array, query.array)))
    )


def _common_organs(supports: Sequence[Support]) -> tuple[Organ, ...]:
    if not supports:
        raise SupportError("No support was given", "at least one drawn scan")
    names = [tuple(o.name for o in s.organs) for s in supports]
    if len(set(names)) > 1:
        raise SupportError(
            f"The supports show different organs: {'; '.join(', '.join(n) for n in dict.fromkeys(names))}",
            "the same organs, in the same order",
            "choose the organs that all supports share",
        )
    return supports[0].organs


def _on_encoded(extent: Extents | None, scan: EncodedScan, organs: tuple[Organ, ...]) -> dict[int, tuple[int, int]]:
    """Told extents as first and last index among the encoded slices, by organ number."""
    told = {}
    for number, organ in enumerate(organs):
        if extent is None or organ.name not in extent:
            continue
        ends = [scan.grid.slice_of_native(k) for k in extent[organ.name]]
        if None in ends:
            raise ConfigError("Extents were told for a scan whose slices are not axial", "an axial scan")
        low, high = sorted(int(e) for e in ends if e is not None)
        inside = np.flatnonzero((scan.slices >= low) & (scan.slices <= high))
        nearest = int(np.abs(scan.slices - (low + high) / 2).argmin())
        told[number] = (int(inside[0]), int(inside[-1])) if len(inside) else (nearest, nearest)
    return told


def _votes_for(scan: EncodedScan, votes: Tensor, organ: int, pieces: np.ndarray) -> np.ndarray:
    """How many of an organ's `votes` (n, organs, h, w) fall on each of its pieces, numbered (z, y, x) on the scan's voxels."""
    on_grid = scan.grid.forward_slices(pieces, scan.slices, order=0, fill=0)
    on_pixels = votes[:, organ].repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2).cpu().numpy() / STRIDE**2
    return np.bincount(on_grid.ravel(), on_pixels.ravel(), minlength=pieces.max() + 1)[1:]


def _restore_drawn(index: np.ndarray, own: Support) -> None:
    """Put the drawing back, in place: on an organ's drawn slices it is exactly what was drawn."""
    for number, (mask, drawn) in enumerate(zip(own.masks, own.drawn, strict=True), 1):
        for k in np.flatnonzero(drawn):
            plane = index[k]
            plane[(plane == number) & ~mask[k]] = 0
            plane[mask[k]] = number
