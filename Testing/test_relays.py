"""Lists of scans whose surest results teach the unsure ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from FewShotSegLib.background.events import CancelledEvent, DoneEvent, Event, Job, ProgressEvent, ResultEvent, UnsureEvent
from FewShotSegLib.background.work import Worker
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.job import Drawing, Listener, Outcome, SegmentJob, run
from FewShotSegLib.methods import create_method
from FewShotSegLib.phantom import make_patient
from FewShotSegLib.relays import RELAYS, ScanList
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.turns import AS_IT_IS, Turn
from FewShotSegLib.volume import Volume

PATIENT = make_patient(0, shape=(4, 32, 32))
ORGANS = PATIENT.organs[:2]
LABELS = np.where(np.isin(PATIENT.labels, [o.label for o in ORGANS]), PATIENT.labels, 0).astype(np.uint8)
NAN = float("nan")


def drawing() -> Support:
    return Support.create(PATIENT.volume, np.stack([o.label == LABELS for o in ORGANS]), ORGANS, slices="all")


def scan(name: str) -> Volume:
    return replace(PATIENT.volume, array=PATIENT.volume.array + ord(name), name=name)


class Prescribed:
    """A Segmenter that finds what is drawn, as surely as it is told, after several supports by `gain` more; it remembers them."""

    def __init__(
        self, method: str = "match", relays: bool = True, turn: Turn = AS_IT_IS, gain: float = 0.1, **sure: Sequence[float]
    ) -> None:
        self.gain, self.turn = gain, turn
        self.config, self.method = SegmenterConfig(method, relays=relays), create_method(method)
        self.sure, self.taught = sure, list[list[str]]()

    def segment(self, supports: Sequence[Support], query: Volume, *, inspect: Callable[..., None] | None = None, **_: Any) -> Any:
        self.taught.append([query.name, *(support.image.name for support in supports)])
        if inspect is not None:
            inspect(SimpleNamespace(turn=self.turn))
        confidence = np.array(self.sure.get(query.name, (0.9, 0.9))) + self.gain * (len(supports) > 1)
        return Segmentation(
            query.geometry, ORGANS, LABELS, confidence, np.full((2, 4), 0.5), name=query.name, notes=("first",), seconds=1.0
        )


def listed(segmenter: Any, names: str) -> ScanList:
    """A list of scans, named by letters, after its first time."""
    scans = ScanList(segmenter, [drawing()], len(names))
    for number, name in enumerate(names):
        scans.first(number, scan(name))
    return scans


def test_an_unsure_scan_is_taught_by_the_surest_others_beside_the_drawing() -> None:
    segmenter = Prescribed(a=(0.8, 0.7), b=(0.5, 0.6), c=(0.9, 0.7), d=(0.7, 0.7))
    scans = listed(segmenter, "abcd")
    assert list(scans.unsure) == [1] and scans.can_help(1)
    done = scans.again(1, scan("b"))
    assert segmenter.taught[-1] == ["b", PATIENT.volume.name, "c", "a"]
    assert done is not None and done.notes[0] == "first" and "c and a" in done.notes[1]
    assert done.seconds == 2.0  # both times


def test_an_unsure_scan_does_not_teach_itself() -> None:
    segmenter = Prescribed(a=(0.69, 0.69), b=(0.65, 0.65), c=(0.6, 0.6), d=(0.61, 0.61))
    scans = listed(segmenter, "abcd")
    for number in scans.unsure:
        scans.again(number, scan("abcd"[number]))
    assert [taught[0] + "".join(taught[2:]) for taught in segmenter.taught[-4:]] == ["abd", "bad", "cab", "dab"]


def test_what_is_drawn_on_a_relay_is_its_result() -> None:
    taught: list[Support] = []
    segmenter = Prescribed(b=(0.1, 0.1))
    scans = listed(segmenter, "ab")
    segmenter.segment = lambda supports, query, **_: (
        taught.extend(supports)
        or replace(  # type: ignore[method-assign]
            Prescribed().segment(supports, query), notes=()
        )
    )
    scans.again(1, scan("b"))
    assert np.array_equal(taught[1].masks, drawing().masks) and taught[1].drawn.all() and taught[1].image.name == "a"


@pytest.mark.parametrize("sure", [(0.5, 0.6), (0.99, NAN)], ids=["unsure", "an organ was not found"])
def test_a_poor_result_teaches_nobody(sure: tuple[float, float]) -> None:
    scans = listed(Prescribed(a=sure, b=(0.2, 0.2)), "ab")
    assert 1 in scans.unsure and not scans.can_help(1)


def test_a_scan_that_was_turned_neither_teaches_nor_is_taught() -> None:
    scans = listed(Prescribed(turn=Turn(columns=True), a=(0.2, 0.2)), "ab")
    assert not scans.unsure and not scans.can_help(0)


def test_the_drawn_scan_itself_neither_teaches_nor_is_taught() -> None:
    scans = ScanList(Prescribed(a=(0.2, 0.2)), [drawing()], 2)  # type: ignore[arg-type]
    scans.first(0, replace(PATIENT.volume, name="a"))
    assert not scans.unsure and not scans.can_help(1)


@pytest.mark.parametrize(
    ("segmenter", "names"),
    [(Prescribed(relays=False, a=(0.2, 0.2)), "ab"), (Prescribed("alpnet", a=(0.2, 0.2)), "ab"), (Prescribed(a=(0.2, 0.2)), "a")],
    ids=["switched off", "another method", "no list"],
)
def test_nothing_is_asked_again(segmenter: Prescribed, names: str) -> None:
    scans = listed(segmenter, names)
    assert not scans.unsure and not scans.can_help(0) and len(segmenter.taught) == len(names)


@pytest.mark.parametrize(("gain", "taken"), [(0.04, False), (0.06, True)])
def test_a_second_result_that_is_hardly_surer_is_not_taken(gain: float, taken: bool) -> None:
    scans = listed(Prescribed(gain=gain, b=(0.5, 0.5)), "ab")
    assert (scans.again(1, scan("b")) is not None) == taken


def test_a_scan_that_is_twice_in_the_list_does_not_teach_itself() -> None:
    scans = listed(Prescribed(b=(0.5, 0.5)), "ab")
    assert scans.again(1, scan("b")) is not None
    assert scans.again(1, replace(scan("a"), name="b")) is None


def test_only_the_surest_are_kept() -> None:
    scans = listed(Prescribed(), "abcdefgh")
    assert len(scans._relays) == RELAYS + 1


# ------------------------------------------------------------------------------------------------ jobs on files
class Diary(Listener):
    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def started(self, query: Path) -> None:
        self.heard.append(("started", query.name))

    def postponed(self, query: Path) -> None:
        self.heard.append(("postponed", query.name))

    def finished(self, outcome: Outcome) -> None:
        self.heard.append(("finished", outcome.query.name))


@pytest.fixture
def unsure_of_b(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first result of every scan named b is unsure, all others are sure."""
    segment = Segmenter.segment

    def told(self: Segmenter, supports: Any, query: Volume, **named: Any) -> Segmentation:
        done = segment(self, supports, query, **named)
        sure = 0.3 if query.name.startswith("b") and (isinstance(supports, Support) or len(supports) == 1) else 0.9
        return replace(done, confidence=np.full_like(done.confidence, sure))

    monkeypatch.setattr(Segmenter, "segment", told)


@pytest.fixture
def job(clinic: Path, tiny_checkpoint: Path, tmp_path: Path) -> SegmentJob:
    other = tmp_path / "c.nii.gz"
    make_patient(1, shape=(8, 64, 64)).volume.write(other)
    return SegmentJob(
        (Drawing(clinic / "a.nii.gz", clinic / "a.seg.nrrd"),),
        (clinic / "b.nii.gz", other),
        tmp_path / "out",
        ("liver",),
        report=tmp_path / "report",
        config=SegmenterConfig(checkpoint=str(tiny_checkpoint), device="cpu"),
    )


@pytest.mark.usefixtures("unsure_of_b")
def test_a_job_segments_unsure_scans_again_when_all_others_are_done(job: SegmentJob) -> None:
    diary = Diary()
    first, other = run(job, diary)
    b, c = "b.nii.gz", "c.nii.gz"
    assert diary.heard == [("started", b), ("postponed", b), ("started", c), ("finished", c), ("started", b), ("finished", b)]
    assert first.query.name == b and "result in c," in first.notes[-1] and other.notes == ()
    page = (job.report / "report.html").read_text(encoding="utf-8") if job.report else ""
    assert page.count("Unsure after the drawing alone") == 1 and re.findall(r'id="scan-(\d)"', page) == ["1", "2"]
    record = json.loads((job.report / "run.json").read_text(encoding="utf-8")) if job.report else {}
    assert [Path(query["query"]).name for query in record["queries"]] == [b, c]
    assert sorted(path.name for path in job.output.iterdir()) == ["b.seg.nrrd", "c.seg.nrrd"]


@pytest.mark.usefixtures("unsure_of_b")
def test_a_job_keeps_the_first_result_when_there_is_no_second(job: SegmentJob, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any, **named: Any) -> Segmentation:
        raise VolumeError("The scan is gone", "a scan")

    monkeypatch.setattr(ScanList, "again", fail)
    first, _ = run(job)
    assert first.error is None and "second time" in first.notes[-1] and "gone" in first.notes[-1]
    assert (job.output / "b.seg.nrrd").exists()


@pytest.mark.usefixtures("unsure_of_b")
def test_a_job_keeps_a_first_result_that_the_second_does_not_better(job: SegmentJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("FewShotSegLib.relays.CLEARLY", 1.0)
    diary = Diary()
    first, _ = run(job, diary)
    assert first.error is None and first.notes == () and diary.heard[-1] == ("finished", "b.nii.gz")
    page = (job.report / "report.html").read_text(encoding="utf-8") if job.report else ""
    assert re.findall(r'id="scan-(\d)"', page) == ["1", "2"] and "taught as well" not in page


@pytest.mark.usefixtures("unsure_of_b")
def test_a_job_of_unsure_scans_alone_takes_no_second_time(job: SegmentJob) -> None:
    diary = Diary()
    run(replace(job, queries=(job.queries[0], job.queries[0].parent / "a.nii.gz")), diary)
    assert [name for what, name in diary.heard if what == "started"].count("b.nii.gz") == 1
    assert ("finished", "b.nii.gz") in diary.heard


# ------------------------------------------------------------------------------------------------ the background worker
def events_of(worker: Worker, job: Job, cancel: Callable[[list[Event]], bool] = lambda events: False) -> list[Event]:
    events: list[Event] = []
    worker.run(job, events.append, lambda: cancel(events))
    return events


@pytest.fixture
def work(clinic: Path, tiny_checkpoint: Path) -> Job:
    support = Support.read(clinic / "a.nii.gz", clinic / "a.seg.nrrd", organs=["liver"])
    b, c = (make_patient(seed, shape=(8, 64, 64)).volume for seed in (0, 1))
    queries = (replace(b, name="b"), replace(c, name="c"))
    return Job((support,), queries, SegmenterConfig(checkpoint=str(tiny_checkpoint), device="cpu"))


@pytest.mark.usefixtures("unsure_of_b")
def test_a_worker_gives_unsure_scans_their_results_at_the_end(work: Job) -> None:
    events = events_of(Worker(), work)
    results = [event for event in events if isinstance(event, ResultEvent)]
    assert [event.query_index for event in results] == [1, 0] and isinstance(events[-1], DoneEvent)
    assert "taught as well" in results[1].segmentation.notes[-1]
    told = [event.query_index for event in events if isinstance(event, UnsureEvent | ResultEvent)]
    assert told == [0, 1, 0] and events.index(UnsureEvent(0)) < events.index(results[0]), "unsure, then the other, then it"
    fractions = [event.fraction for event in events if isinstance(event, ProgressEvent)]
    assert fractions == sorted(fractions) and fractions[-1] <= 1


@pytest.mark.usefixtures("unsure_of_b")
def test_a_worker_gives_the_first_result_where_the_second_is_no_surer(work: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("FewShotSegLib.relays.CLEARLY", 1.0)
    results = [event for event in events_of(Worker(), work) if isinstance(event, ResultEvent)]
    assert [event.query_index for event in results] == [1, 0] and results[1].segmentation.notes == ()


@pytest.mark.usefixtures("unsure_of_b")
def test_a_worker_that_is_stopped_gives_the_first_results(work: Job) -> None:
    events = events_of(Worker(), work, lambda events: any(isinstance(event, ResultEvent) for event in events))
    results = [event for event in events if isinstance(event, ResultEvent)]
    assert [event.query_index for event in results] == [1, 0] and isinstance(events[-1], CancelledEvent)
    assert results[1].segmentation.notes == ()


@pytest.mark.usefixtures("unsure_of_b")
def test_a_worker_that_cannot_do_it_again_gives_the_first_results(work: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: Any, **named: Any) -> Segmentation:
        raise MemoryError

    monkeypatch.setattr(ScanList, "again", fail)
    worker = Worker()
    events = events_of(worker, work)
    assert [event.query_index for event in events if isinstance(event, ResultEvent)] == [1, 0]
    assert isinstance(events[-1], DoneEvent) and not worker.healthy
