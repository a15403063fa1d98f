"""Jobs in the background: both runners give what the library gives, and nothing that goes wrong there reaches the application."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from FewShotSegLib.background import (
    CancelledEvent,
    DoneEvent,
    Event,
    FailedEvent,
    Job,
    ProcessRunner,
    ProgressEvent,
    ResultEvent,
    Runner,
    ThreadRunner,
)
from FewShotSegLib.background.child import Child
from FewShotSegLib.background.exchange import read_job, read_result, write_job, write_result
from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.phantom import make_patient
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

SHAPE = (3, 40, 40)
PATIENCE_S = 240.0
CHOICE = FeatureRunner._bf16_is_faster  # conftest takes it from this process, not from the workers
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(scope="module", autouse=True)
def precision_as_in_the_workers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureRunner, "_bf16_is_faster", CHOICE)
        yield


@pytest.fixture(scope="module")
def job(tiny_checkpoint: Path) -> Job:
    """Two queries: another scan, and the rest of the drawn one."""
    drawn, other = make_patient(0, shape=SHAPE), make_patient(1, shape=SHAPE)
    organs = (drawn.organs[0], drawn.organs[3])
    masks = np.stack([drawn.labels == organ.label for organ in organs])
    support = Support.create(drawn.volume, masks, organs, slices=[2])
    config = SegmenterConfig(checkpoint=str(tiny_checkpoint), device="cpu", probabilities=True)
    return Job((support,), (other.volume, drawn.volume), config)


@pytest.fixture(scope="module")
def expected(job: Job) -> list[Segmentation]:
    segmenter = Segmenter(job.config)
    return [segmenter.segment(job.supports, query) for query in job.queries]


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessRunner]:
    """One worker process for all tests that leave it alive."""
    runner = ProcessRunner()
    yield runner
    runner.close()


def until(runner: Runner, stop: Callable[[list[Event]], Any]) -> list[Event]:
    """Poll until the events satisfy `stop`."""
    events: list[Event] = []
    end = time.monotonic() + PATIENCE_S
    while not stop(events):
        assert time.monotonic() < end, events
        events += runner.poll()
        time.sleep(0.01)
    return events


def ended(runner: Runner) -> list[Event]:
    return until(runner, lambda events: not runner.running)


def begun(runner: Runner) -> list[Event]:
    """Wait until the worker has taken up the job."""
    return until(runner, lambda events: any(e.stage == "loading the model" for e in events if isinstance(e, ProgressEvent)))


def assert_equal(found: Segmentation, expected: Segmentation, *, exactly: bool = False) -> None:
    """The same result; `exactly`: bit by bit. Computed anew, some voxels of a network with random weights lie on an edge, and
    sums whose arrays lie elsewhere in memory differ in their last bit; a worker process may find bfloat16 faster.
    """
    assert found.geometry == expected.geometry and found.organs == expected.organs and found.name == expected.name
    assert found.notes == expected.notes and found.seconds > 0
    for name in ("labels", "confidence", "slice_confidence", "probabilities"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype and one.shape == other.shape, name
        same = (one == other) if name == "labels" else np.isclose(one, other, atol=0.05, equal_nan=True)
        assert np.array_equal(one, other, equal_nan=True) if exactly else same.mean() > 0.99, (name, same.mean())


def assert_done(events: list[Event], expected: list[Segmentation]) -> None:
    results = [event for event in events if isinstance(event, ResultEvent)]
    assert [event.query_index for event in results] == list(range(len(expected))), events
    for event, one in zip(results, expected, strict=True):
        assert_equal(event.segmentation, one)
    assert isinstance(events[-1], DoneEvent)


# ------------------------------------------------------------------------------------------------ results
def test_both_runners_give_what_the_library_gives(job: Job, expected: list[Segmentation], process: ProcessRunner) -> None:
    for runner in (ThreadRunner(), process):
        assert not runner.running and runner.poll() == []
        runner.start(job)
        assert runner.running
        assert_done(ended(runner), expected)
        assert not runner.running and runner.poll() == []


def test_progress_goes_from_0_to_1_over_all_queries(job: Job, process: ProcessRunner) -> None:
    process.start(job)
    told = [event for event in ended(process) if isinstance(event, ProgressEvent)]
    fractions = [event.fraction for event in told]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] <= 1
    assert [event.query_index for event in told] == sorted(event.query_index for event in told)
    assert told[0].stage == "starting" and all(event.stage for event in told)
    assert all(event.seconds_left >= 0 or np.isnan(event.seconds_left) for event in told)


def test_the_model_stays_loaded(job: Job, expected: list[Segmentation], process: ProcessRunner) -> None:
    process.start(job)
    ended(process)
    pid = process.pid
    process.start(job)
    assert_done(ended(process), expected)
    assert process.pid == pid
    process.start(replace(job, config=replace(job.config, refine=False)))
    assert isinstance(ended(process)[-1], DoneEvent) and process.pid == pid


def test_one_job_at_a_time(job: Job, process: ProcessRunner) -> None:
    for runner in (ThreadRunner(), process):
        runner.start(job)
        with pytest.raises(RuntimeError, match="running"):
            runner.start(job)
        ended(runner)


def test_polling_never_holds_up_the_application(job: Job, process: ProcessRunner) -> None:
    """100 ms at most, with results of 16 MB: each poll's own time, and for nine of ten, whatever else runs, that on the wall."""
    big = Volume(np.zeros((16, 512, 512), np.float32), Geometry((512, 512, 16), (0.8, 0.8, 5)))
    big.array[:, 100:400, 100:400] = 100
    process.start(replace(job, queries=(big,), config=replace(job.config, probabilities=True)))
    own, wall, results = [], [], []
    gc.collect()
    gc.disable()  # all objects of all tests before would be looked through in one of the polls
    try:
        while process.running:
            before = time.thread_time(), time.perf_counter()
            results += [event for event in process.poll() if isinstance(event, ResultEvent)]
            own.append(time.thread_time() - before[0])
            wall.append(time.perf_counter() - before[1])
            time.sleep(0.01)
    finally:
        gc.enable()
    assert results[0].segmentation.probabilities is not None
    assert len(own) > 20 and max(own) < 0.1 and np.quantile(wall, 0.9) < 0.1


# ------------------------------------------------------------------------------------------------ failures of a query
def test_a_query_that_cannot_be_segmented_does_not_stop_the_others(
    job: Job, expected: list[Segmentation], process: ProcessRunner
) -> None:
    broken = Volume(np.full((2, 8, 8), np.nan, np.float32), Geometry((8, 8, 2), (1, 1, 1)), "broken")
    for runner in (ThreadRunner(), process):
        runner.start(replace(job, queries=(broken, job.queries[0])))
        events = [event for event in ended(runner) if not isinstance(event, ProgressEvent)]
        failed, result, done = events
        assert isinstance(failed, FailedEvent) and failed.query_index == 0 and "What to do" in failed.message
        assert isinstance(result, ResultEvent) and result.query_index == 1 and isinstance(done, DoneEvent)
        assert_equal(result.segmentation, expected[0])


def test_a_checkpoint_that_is_not_there_ends_the_job(job: Job, process: ProcessRunner) -> None:
    for runner in (ThreadRunner(), process):
        runner.start(replace(job, config=replace(job.config, checkpoint="no-such-checkpoint")))
        last = ended(runner)[-1]
        assert isinstance(last, FailedEvent) and last.query_index is None and "no-such-checkpoint" in last.message


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore"), "memory was not enough (CUDA out of memory"),
        (MemoryError(), "memory was not enough (MemoryError)"),
        (ImportError("No module named 'einops'"), "package is missing: No module named 'einops'"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_unforeseen_errors_are_told_and_the_rest_goes_on(
    job: Job, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    segment, calls = Segmenter.segment, []

    def once(self: Segmenter, *given: Any, **named: Any) -> Segmentation:
        calls.append(self)
        if len(calls) == 1:
            raise error
        return segment(self, *given, **named)

    monkeypatch.setattr(Segmenter, "segment", once)
    runner = ThreadRunner()
    runner.start(job)
    failed, result, done = [event for event in ended(runner) if not isinstance(event, ProgressEvent)]
    assert isinstance(failed, FailedEvent) and told in failed.message and "What to do" in failed.message
    assert isinstance(result, ResultEvent) and isinstance(done, DoneEvent)
    assert calls[0] is not calls[1], "after an unforeseen error the model is loaded anew"


# ------------------------------------------------------------------------------------------------ cancel
def test_cancel_ends_the_job_and_the_next_one_works(job: Job, expected: list[Segmentation], process: ProcessRunner) -> None:
    many = replace(job, queries=job.queries * 50)
    for runner in (ThreadRunner(), process):
        runner.start(many)
        begun(runner)
        runner.cancel()
        events = ended(runner)
        assert isinstance(events[-1], CancelledEvent), events
        assert sum(isinstance(event, ResultEvent) for event in events) < 100
        runner.start(job)
        assert_done(ended(runner), expected)


def test_cancel_at_once(job: Job, process: ProcessRunner) -> None:
    many = replace(job, queries=job.queries * 50)  # not over before a busy machine comes to `cancel`
    for runner in (ThreadRunner(), process):
        runner.start(many)
        runner.cancel()
        assert isinstance(ended(runner)[-1], CancelledEvent)
        runner.cancel()
        assert runner.poll() == []


def test_a_worker_that_does_not_stop_is_killed(job: Job) -> None:
    runner = ProcessRunner(patience_s=0.0)
    runner.start(replace(job, queries=job.queries * 50))
    begun(runner)
    pid = runner.pid
    runner.cancel()
    assert isinstance(ended(runner)[-1], CancelledEvent)
    runner.close()
    assert pid and gone(pid)


# ------------------------------------------------------------------------------------------------ death of the worker
def gone(pid: int) -> bool:
    """Whether the process ends within a while; a dead child that nobody waited for yet counts as gone."""
    for _ in range(3000):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                return True
        except ChildProcessError:
            pass
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


@needs_signals
@pytest.mark.parametrize(("number", "told"), [(signal.SIGSEGV, "crashed (SIGSEGV)"), (signal.SIGKILL, "memory runs out")])
def test_a_worker_that_dies_is_a_failure_and_the_next_job_works(
    job: Job, expected: list[Segmentation], process: ProcessRunner, number: signal.Signals, told: str
) -> None:
    process.start(replace(job, queries=job.queries * 50))
    begun(process)
    first = process.pid
    assert first
    os.kill(first, number)
    last = ended(process)[-1]
    assert isinstance(last, FailedEvent) and last.query_index is None
    assert told in last.message and "What to do" in last.message
    if number == signal.SIGKILL:
        process.start(job)
        assert_done(ended(process), expected)
        assert process.pid != first


@needs_signals
def test_a_worker_that_died_between_two_jobs_is_replaced(job: Job, expected: list[Segmentation], process: ProcessRunner) -> None:
    process.start(replace(job, queries=()))
    ended(process)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    assert gone(process.pid)
    process.start(replace(job, queries=job.queries[:1]))
    assert_done(ended(process), expected[:1])


@needs_signals
def test_a_worker_whose_death_shows_only_when_asked_is_replaced(
    job: Job, expected: list[Segmentation], process: ProcessRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may call a killed process alive for a moment, while its threads end."""
    process.start(replace(job, queries=()))
    ended(process)
    dead = process.pid
    assert dead
    os.kill(dead, signal.SIGKILL)
    monkeypatch.setattr(Child, "alive", True)
    process.start(replace(job, queries=job.queries[:1]))
    assert_done(ended(process), expected[:1])
    assert process.pid != dead


@needs_signals
def test_an_interpreter_that_does_not_work_is_told(job: Job, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'No module named numpy' >&2\nexit 7\n")
    script.chmod(0o755)
    for python, told in ((script, "code 7: No module named numpy"), (tmp_path / "absent", "absent")):
        runner = ProcessRunner(python)
        runner.start(job)
        last = ended(runner)[-1]
        assert isinstance(last, FailedEvent) and told in last.message
        runner.close()


@needs_signals
@pytest.mark.parametrize("end", ["runner.close()", "os._exit(0)"])
def test_the_worker_and_its_files_go_with_the_application(tmp_path: Path, end: str) -> None:
    """Also when the application dies: no process and no scan stays behind."""
    code = f"""
import os, time
import numpy as np
from FewShotSegLib.background import Job, ProcessRunner
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.organs import Organ
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume
volume = Volume(np.ones((2, 8, 8)), Geometry((8, 8, 2), (1, 1, 1)))
support = Support.create(volume, np.ones((1, 2, 8, 8)), [Organ("liver", 1)])
runner = ProcessRunner()
runner.start(Job((support,), (volume,), SegmenterConfig(checkpoint="none")))
while not any(getattr(event, "stage", "") == "loading the model" for event in runner.poll()):
    time.sleep(0.01)
print(runner.pid, flush=True)
{end}
"""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(root)}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert gone(int(told.stdout))
    for _ in range(3000):
        if not list(tmp_path.glob("fewshotseg-*")):
            break
        time.sleep(0.02)
    assert not list(tmp_path.glob("fewshotseg-*"))


def test_nothing_of_a_job_stays_on_disk(job: Job, process: ProcessRunner) -> None:
    process.start(job)
    ended(process)
    assert process._child is not None
    left = sorted(path.name for path in process._child._root.iterdir())
    assert left == ["log.txt"]
    if os.name == "posix":
        assert process._child._root.stat().st_mode & 0o077 == 0, "nobody else may look into it"


def test_a_panel_does_not_import_torch() -> None:
    code = "import sys, FewShotSegLib.background, FewShotSegLib.mrml; print('torch' in sys.modules, 'slicer' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=300)
    assert told.stdout.split() == ["False", "False"]


# ------------------------------------------------------------------------------------------------ files
def test_jobs_and_results_come_out_of_files_as_they_went_in(job: Job, expected: list[Segmentation], tmp_path: Path) -> None:
    job = replace(job, config=replace(job.config, options={"faithful": True, "name": "ü"}, every_mm=3.5))
    write_job(job, tmp_path)
    again = read_job(tmp_path)
    assert again.config == job.config
    for one, other in zip(again.supports, job.supports, strict=True):
        assert one.organs == other.organs and one.image.geometry == other.image.geometry
        assert np.array_equal(one.masks, other.masks) and np.array_equal(one.drawn, other.drawn)
    for query, before in zip(again.queries, job.queries, strict=True):
        assert (query.geometry, query.name, query.modality) == (before.geometry, before.name, before.modality)
        assert np.array_equal(query.array, before.array) and query.array.dtype == before.array.dtype
    assert again.queries[1] is again.supports[0].image, "a scan that is its own support stays that"
    for index, result in enumerate(expected):
        write_result(index, result, tmp_path)
        assert_equal(read_result(index, job, tmp_path), result, exactly=True)


def test_pickles_are_refused(job: Job, tmp_path: Path) -> None:
    write_job(job, tmp_path)
    np.save(tmp_path / "array0.npy", np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_job(tmp_path)
