"""The job on files: drawn scans and queries in, segmentations, probabilities, report and record out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from FewShotSegLib.errors import Cancelled, ConfigError, FewShotSegError
from FewShotSegLib.files import write_json
from FewShotSegLib.job_output import check_place, probability_file, record_file, spare, targets, write_result
from FewShotSegLib.progress import Progress
from FewShotSegLib.provenance import record_of
from FewShotSegLib.relays import ScanList
from FewShotSegLib.report import ReportJob, write_report
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.support import Slices, Support
from FewShotSegLib.volume import Volume


@dataclass(frozen=True)
class Drawing:
    """A support on disk: the scan, its labels, which slices of them count (see `Support.create`), and which series of a DICOM
    folder the scan is (see `Support.read`).
    """

    image: Path
    labels: Path
    slices: Slices = "auto"
    series: str | None = None


@dataclass(frozen=True)
class SegmentJob:
    """Which files to segment after which, and how.

    Args:
        drawings: one or several drawn scans.
        queries: scans to segment; the image of a drawing may be one of them.
        output: a file for one query, otherwise a folder.
        organs: names or label numbers; None for all.
        names: organ names for the values of a label map.
        report: folder of the report, None for none.
        config: how to segment.
        result_format: of results in a folder, see `job_output.FORMATS`.
        series: which series of the queries that are DICOM folders with several, see `dicom_series.find_series`.
    """

    drawings: tuple[Drawing, ...]
    queries: tuple[Path, ...]
    output: Path
    organs: tuple[str | int, ...] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    report: Path | None = None
    config: SegmenterConfig = field(default_factory=SegmenterConfig)
    result_format: str = "seg.nrrd"
    series: str | None = None


@dataclass(frozen=True)
class Found:
    """An organ of a result: its volume, and how sure it is (0..1, NaN when it was not found)."""

    name: str
    ml: float
    confidence: float
    dice: float = math.nan


@dataclass(frozen=True)
class Outcome:
    """What became of one query; `error` tells why there is no result."""

    query: Path
    output: Path
    organs: tuple[Found, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = math.nan
    error: FewShotSegError | None = None


class Listener:
    """Hears how a job goes, and may stop it. Does nothing by itself: override what is of interest."""

    def started(self, query: Path) -> None:
        """A query is begun."""

    def progressed(self, progress: Progress) -> None:
        """The current query came a step further."""

    def postponed(self, query: Path) -> None:
        """A query's files are written, but the result is unsure: it will be started again when all others are done."""

    def finished(self, outcome: Outcome) -> None:
        """A query's files are written, or it failed."""

    def cancelled(self) -> bool:
        """Asked often; the job stops with Cancelled when this says True."""
        return False


def run(job: SegmentJob, listener: Listener | None = None) -> list[Outcome]:
    """Segment every query of a job and write all its files.

    With several queries, one that fails does not stop the others: its outcome holds the error.

    Raises:
        FewShotSegError: no query can be segmented: drawings, options, checkpoint or place for the output are unusable, or
            the only query is. Cancelled.
    """
    return _Run(job, listener or Listener()).everything()


def found_organs(segmentation: Segmentation, dice: Sequence[float] | None = None) -> tuple[Found, ...]:
    """The organs of a segmentation; `dice` where the truth is known."""
    volumes = segmentation.volumes_ml()
    scores = dice if dice is not None else [math.nan] * len(segmentation.organs)
    return tuple(
        Found(organ.name, volumes[organ.name], float(confidence), score)
        for organ, confidence, score in zip(segmentation.organs, segmentation.confidence, scores, strict=True)
    )


class _Run:
    """One run of a job; holds one query at a time in memory."""

    def __init__(self, job: SegmentJob, listener: Listener) -> None:
        if not job.queries or not job.drawings:
            raise ConfigError("A job without a drawing or without a query", "at least one of each")
        self.job, self.listener = job, listener
        self.targets = targets(job.output, job.queries, job.result_format)
        spare([*job.queries, *(path for drawing in job.drawings for path in (drawing.image, drawing.labels))], self.targets)
        self.record = record_file(job.output, job.report, self.targets)
        check_place(self.record)
        self.segmenter = Segmenter(job.config)
        self.supports = [_read(drawing, job) for drawing in job.drawings]
        self.scans = ScanList(self.segmenter, self.supports, len(job.queries))
        self.outcomes: dict[int, Outcome] = {}

    def everything(self) -> list[Outcome]:
        pages = self._queries()
        first = next(pages, None)
        if first is not None and self.job.report is not None:
            write_report(self.job.report, chain([first], pages))
        for _ in pages:
            pass
        self._stop_if_asked()
        write_json(self.record, self._facts())
        return [self.outcomes[number] for number in sorted(self.outcomes)]

    def _queries(self) -> Iterator[ReportJob]:
        """Segment query after query, then unsure ones again; what succeeds is yielded for the report."""
        for number, query in enumerate(self.job.queries):
            try:
                page = self._query(number, self.scans.first)
            except Cancelled:
                raise
            except FewShotSegError as error:
                if len(self.targets) == 1:
                    raise
                page, self.outcomes[number] = None, Outcome(query, self.targets[number], error=error)
            if number in self.scans.unsure:
                self.listener.postponed(query)
            else:
                self.listener.finished(self.outcomes[number])
            if page is not None:
                yield page
        for number in self.scans.unsure:
            page = self._again(number)
            self.listener.finished(self.outcomes[number])
            if page is not None:
                yield page

    def _again(self, number: int) -> ReportJob | None:
        """Segment an unsure query again; where that is impossible its first result stands."""
        if not self.scans.can_help(number):
            return None
        try:
            return self._query(number, self.scans.again)  # None: the first result stands
        except Cancelled:
            raise
        except FewShotSegError as error:
            first = self.outcomes[number]
            self.outcomes[number] = replace(first, notes=(*first.notes, f"It could not be segmented a second time. {error}"))
            return None

    def _query(self, number: int, segment: Callable[..., Segmentation | None]) -> ReportJob | None:
        """Segment a query and write its files, where `segment` gives a result."""
        query, target = self.job.queries[number], self.targets[number]
        self._stop_if_asked()
        self.listener.started(query)
        volume = self._volume(query)
        done = segment(number, volume, progress=self.listener.progressed, cancel=self.listener.cancelled)
        self._stop_if_asked()
        if done is None:
            return None
        settings = self._settings(target)
        write_result(done, target, query, volume.series.uid if volume.series else None, settings)
        if done.probabilities is not None:
            done.write_probabilities(probability_file(target))
        self.outcomes[number] = Outcome(query, target, found_organs(done), done.notes, done.seconds)
        return ReportJob(volume, done, settings=settings, key=str(number))

    def _settings(self, target: Path) -> dict[str, str]:
        """What the report says about how a result was made."""
        config = self.job.config
        drawn = ", ".join(drawing.labels.name for drawing in self.job.drawings)
        return {"method": config.method, "checkpoint": config.checkpoint, "drawing": drawn, "output": target.name}

    def _volume(self, query: Path) -> Volume:
        """The scan; that of a drawing is not read twice."""
        series = self.job.series
        for drawing, support in zip(self.job.drawings, self.supports, strict=True):
            if drawing.image.resolve() == query.resolve() and series in (None, drawing.series):
                return support.image
        return Volume.read(query, series=series if query.is_dir() else None)

    def _stop_if_asked(self) -> None:
        if self.listener.cancelled():
            raise Cancelled()

    def _facts(self) -> dict[str, Any]:
        job = self.job
        return {
            **record_of(self.segmenter),
            "supports": [_drawing_record(*pair) for pair in zip(job.drawings, self.supports, strict=True)],
            "queries": [_outcome_record(self.outcomes[number]) for number in sorted(self.outcomes)],
        }


def _read(drawing: Drawing, job: SegmentJob) -> Support:
    return Support.read(
        drawing.image, drawing.labels, slices=drawing.slices, organs=job.organs, names=job.names, series=drawing.series
    )


def _drawing_record(drawing: Drawing, support: Support) -> dict[str, Any]:
    """A drawing's files, and the slices on which each organ is drawn: "all", or their numbers."""
    drawn = {
        organ.name: "all" if row.all() else np.flatnonzero(row).tolist()
        for organ, row in zip(support.organs, support.drawn, strict=True)
    }
    return {"image": drawing.image.absolute(), "labels": drawing.labels.absolute(), "slices": drawing.slices, "drawn": drawn}


def _outcome_record(outcome: Outcome) -> dict[str, Any]:
    if outcome.error is not None:
        return {"query": outcome.query.absolute(), "error": str(outcome.error)}
    return {
        "query": outcome.query.absolute(),
        "output": outcome.output.absolute(),
        "seconds": round(outcome.seconds, 3),
        "organs": {
            found.name: {"ml": found.ml, "confidence": None if math.isnan(found.confidence) else found.confidence}
            for found in outcome.organs
        },
        "notes": outcome.notes,
    }
