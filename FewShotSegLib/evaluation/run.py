"""Evaluation: segment labelled scans as a user would, and compare.

The Segmenter is given the scans and the drawings alone; the truth of a query reaches it only as the extent of its organs,
where the protocol or the baseline says so. Slices are those of the native grid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from FewShotSegLib.cards import Card
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.annotation import draw, organ_slices
from FewShotSegLib.evaluation.baselines import create_baseline, list_baselines
from FewShotSegLib.evaluation.config import LAYS, EvaluateConfig
from FewShotSegLib.evaluation.datasets import Dataset, renumbered
from FewShotSegLib.evaluation.journal import Journal, Measured
from FewShotSegLib.evaluation.result import EXTENTS_TOLD, PLACE_SAID, EvaluationResult, Record, machine_facts
from FewShotSegLib.evaluation.scoring import Case, Extents, Pair, score_scan
from FewShotSegLib.evaluation.tasks import Task, plan, taught_by
from FewShotSegLib.evaluation.untrained import is_untrained, untrained_encoder
from FewShotSegLib.relays import ScanList
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import DEFAULT_CHECKPOINT, Segmenter, SegmenterConfig
from FewShotSegLib.support import Organ, Support
from FewShotSegLib.volume import Volume

__all__ = ["EvaluateConfig", "EvaluationResult", "create_segmenter", "evaluate"]

FINDS_ITS_SLICES = ("match",)
"""Methods that never need to be told on which slices an organ lies."""


class Segmenting(Protocol):
    """What is evaluated: the library's Segmenter, or a baseline. A baseline may say `needs_extent`."""

    def segment(self, supports: Support | Sequence[Support], query: Volume, *, extent: Extents | None = None) -> Segmentation: ...


SegmenterFactory = Callable[[EvaluateConfig, "int | None"], Segmenting]
OnScan = Callable[[int, int, Sequence[Record]], None]


def evaluate(
    config: EvaluateConfig, segmenter_factory: SegmenterFactory | None = None, on_scan: OnScan | None = None
) -> EvaluationResult:
    """Run an evaluation; write its JSON where the configuration says so.

    Beside that JSON, what is measured is kept scan by scan; the same evaluation goes on from there when it was stopped.

    Args:
        config: what to evaluate.
        segmenter_factory: makes what is evaluated, from the configuration and the number of the fold;
            `create_segmenter` by default.
        on_scan: told after each scan: scans done, scans in all, records of this scan.

    Raises:
        ConfigError, VolumeError, SupportError, CheckpointError: as their makers say.
        OutputError: the JSON cannot be written.
    """
    dataset = Dataset.open(config.data_dir, config.organs)
    teachers = dataset if config.support_data is None else Dataset.open(config.support_data, None)
    tasks = plan(dataset.labelled, config)
    if teachers is not dataset:
        tasks = taught_by(tasks, plan(teachers.labelled, config))
    run = _Run(config, dataset, teachers, segmenter_factory or create_segmenter)
    records: list[Record] = []
    total, done = sum(len(task.queries) for task in tasks), 0
    for task in tasks:
        for found in run.task(task):
            records += found
            done += 1
            if on_scan:
                on_scan(done, total, found)
    if not records:
        raise ConfigError("No organ could be evaluated. " + " ".join(run.notes), "organs that both support and query have")
    result = EvaluationResult(
        dataset=dataset.name,
        method=config.method,
        protocol=f"{config.described} {_what_was_told(config, run.told)}",
        config=config.to_json(),
        records=tuple(records),
        notes=tuple(dict.fromkeys(run.notes)),
        machine=machine_facts(),
    )
    if config.json is not None:
        result.write(config.json)
        run.journal.close()
    return result


def create_segmenter(config: EvaluateConfig, fold: int | None) -> Segmenting:
    """The baseline or the library's Segmenter of a configuration, with the checkpoint of the fold, or an untrained encoder.

    Raises:
        ConfigError: a baseline that cannot serve the protocol, or lacks its package.
        CheckpointError: the checkpoint cannot be loaded.
    """
    if config.method in list_baselines():
        baseline = create_baseline(config.method, seed=config.seed)
        if config.protocol not in baseline.protocols:
            raise ConfigError(
                f"The baseline {config.method} with the protocol {config.protocol}", f"one of {', '.join(baseline.protocols)}"
            )
        return baseline
    checkpoint = config.checkpoint_for(fold) or DEFAULT_CHECKPOINT
    encoder = untrained_encoder(checkpoint, config.seed) if is_untrained(checkpoint) else None
    how = SegmenterConfig(
        config.method,
        config.options,
        strategy=config.strategy,
        checkpoint=checkpoint,
        place=config.place,
        turns=config.turns,
        device=config.device,
    )
    return Segmenter(how, encoder=encoder)


def is_told(config: EvaluateConfig, segmenter: Segmenting) -> bool:
    """Whether what is evaluated is told the extent of the query's organs."""
    oracle = config.protocol == "oracle-z" and config.method not in FINDS_ITS_SLICES
    return oracle or bool(getattr(segmenter, "needs_extent", False))


def _what_was_told(config: EvaluateConfig, extents: bool) -> str:
    """What the method knew about the query, in words."""
    if not extents:
        return "The organs' extents were not told."
    by_paper = not config.place or config.options.get("faithful", False)
    if by_paper or config.method in (*FINDS_ITS_SLICES, *list_baselines()):
        return EXTENTS_TOLD
    return f"{EXTENTS_TOLD} {PLACE_SAID}"


class _Run:
    """One evaluation: the Segmenter of the current fold, what is known already, the notes so far, whether extents are told."""

    def __init__(self, config: EvaluateConfig, dataset: Dataset, teachers: Dataset, factory: SegmenterFactory) -> None:
        self.config, self.dataset, self.teachers, self.factory = config, dataset, teachers, factory
        self.notes: list[str] = []
        self.told = False
        self.journal = Journal(config)
        self._loaded: dict[str, tuple[Volume, np.ndarray]] = {}  # what the current task has read already
        self._current: tuple[str | None, Segmenting] | None = None

    def task(self, task: Task) -> Iterator[list[Record]]:
        """The records of each query of one support; none where the support has none of the organs."""
        drawn = {case: self._teacher(case) for case in (task.support, *task.beside)}
        self._loaded = drawn if self.teachers is self.dataset else {}
        supports = self._supports(list(drawn.values()))
        if not supports:
            yield from ([] for _ in task.queries)
            return
        for known in (self._together if self.config.together else self._one_by_one)(task, supports):
            self.told = known.told
            self.notes += known.notes
            yield list(known.records)

    def _one_by_one(self, task: Task, supports: Sequence[Support]) -> Iterator[Measured]:
        """Each query as if it were the only one."""
        segmenter = self._segmenter(task.fold)
        for case in task.queries:
            pair = Pair(task.fold, task.support, case)
            known = self.journal.find(pair, _model(segmenter))
            if known is None:
                known = self._scan(pair, supports, self._query(case), segmenter)
                self.journal.add(known)
            yield known

    def _together(self, task: Task, supports: Sequence[Support]) -> Iterator[Measured]:
        """All queries as one list; its results depend on one another, so that they are kept when all are there."""
        segmenter = self._segmenter(task.fold)
        pairs = [Pair(task.fold, task.support, case) for case in task.queries]
        found = [known for pair in pairs if (known := self.journal.find(pair, _model(segmenter))) is not None]
        if len(found) < len(pairs):
            assert isinstance(segmenter, Segmenter)  # as the configuration says: the method is match
            found = self._list(pairs, supports, ScanList(segmenter, supports, len(pairs)))
            for measured in found:
                self.journal.add(measured)
        yield from found

    def _list(self, pairs: Sequence[Pair], supports: Sequence[Support], scans: ScanList) -> list[Measured]:
        found: list[Measured] = []
        for number, pair in enumerate(pairs):
            query = self._query(pair.case)
            done = scans.first(number, query.image)
            found.append(self._measured(pair, supports, query, scans.segmenter, done, done.seconds))
        for number in filter(scans.can_help, scans.unsure):
            query = self._query(pairs[number].case)
            again = scans.again(number, query.image)
            if again is not None:
                found[number] = self._measured(pairs[number], supports, query, scans.segmenter, again, again.seconds)
        return found

    def _query(self, case: str) -> Case:
        image, truth = self._loaded.get(case) or self.dataset.load(case)
        return Case(LAYS[self.config.lay].of(image), truth)

    def _teacher(self, case: str) -> tuple[Volume, np.ndarray]:
        """A support scan and its labels, numbered as the evaluated dataset's."""
        image, labels = self.teachers.load(case)
        if self.teachers is self.dataset:
            return image, labels
        return image, renumbered(labels, self.teachers.labels, self.dataset.organs)

    def _supports(self, scans: Sequence[tuple[Volume, np.ndarray]]) -> list[Support]:
        """The drawings of scans that teach together, with the organs that all of them have; empty without any."""
        shared = set.intersection(*(self._drawable(image, labels) for image, labels in scans))
        organs = [organ for organ in self.dataset.organs if organ in shared]
        drawn = (draw(image, labels, organs, self.config.slices_drawn, self.config.slice_rule) for image, labels in scans)
        return [support for support in drawn if support is not None]

    def _drawable(self, image: Volume, labels: np.ndarray) -> set[Organ]:
        """The organs of a scan, but those that it lacks or that would be drawn on all their slices, so that nothing is left."""
        needed = 1 + (self.config.slices_drawn or 0) if self.config.protocol == "same-scan" else 1
        organs = [organ for organ in self.dataset.organs if len(organ_slices(labels, organ)) >= needed]
        missing = [organ.name for organ in self.dataset.organs if organ not in organs]
        if missing:
            self.notes.append(f"Support {image.name}: left out, on fewer than {needed} slices: {', '.join(missing)}.")
        return set(organs)

    def _scan(self, pair: Pair, supports: Sequence[Support], query: Case, segmenter: Segmenting) -> Measured:
        told = is_told(self.config, segmenter)
        support, start = supports[0], time.perf_counter()
        found = segmenter.segment(
            support if len(supports) == 1 else supports, query.image, extent=query.extents(support.organs) if told else None
        )
        return self._measured(pair, supports, query, segmenter, found, time.perf_counter() - start)

    def _measured(
        self,
        pair: Pair,
        supports: Sequence[Support],
        query: Case,
        segmenter: Segmenting,
        found: Segmentation,
        seconds: float,
    ) -> Measured:
        told = is_told(self.config, segmenter)
        records = score_scan(pair, query, supports[0], found, self.config.protocol, seconds)
        notes = tuple(f"{pair.case}: {note}" for note in found.notes)
        return Measured(pair, _model(segmenter), told, tuple(records), notes)

    def _segmenter(self, fold: int | None) -> Segmenting:
        """One Segmenter for all folds that share a checkpoint."""
        checkpoint = self.config.checkpoint_for(fold)
        if self._current is None or self._current[0] != checkpoint:
            self._current = checkpoint, self.factory(self.config, fold)
            self._warn_of_training_data(self._current[1])
        return self._current[1]

    def _warn_of_training_data(self, segmenter: Segmenting) -> None:
        """Note when one model for all scans was trained on scans of this dataset: they may be the evaluated ones."""
        card: Card | None = getattr(segmenter, "card", None)
        if card is None or self.config.checkpoint_template is not None:
            return
        for source in card.training_data:
            if source["name"] == self.dataset.name:
                self.notes.append(
                    f"The checkpoint {card.name} was trained on {source['scans']} scans of {self.dataset.name} (without their "
                    "labels, unless its card says otherwise): the evaluated ones may be among them."
                )


def _model(segmenter: Segmenting) -> str:
    """SHA-256 of the checkpoint in use, "" without one."""
    card: Card | None = getattr(segmenter, "card", None)
    return "" if card is None else card.sha256
