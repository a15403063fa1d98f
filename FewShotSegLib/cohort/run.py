"""All cases of a cohort: readers ahead of one worker per device; an executor decides where the work is done."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from FewShotSegLib.cohort.case import Loaded, ShouldCancel, Worker, finish_case, open_worker, read_case
from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.manifest import Case, plan
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.errors import Cancelled, ConfigError
from FewShotSegLib.job_output import check_place

POLL_SECONDS = 0.1
UNSEEN = 8  # records


class Executor(Protocol):
    """Where cases are done."""

    def __call__(self, cases: Sequence[Case], config: CohortConfig, cancelled: ShouldCancel) -> Iterator[CaseRecord]:
        """Do every case with `open_worker` and `run_case`, and yield each record as soon as it is there, in any order.

        Raises:
            FewShotSegError: the run cannot go on (unusable supports, disk full). Cancelled.
        """
        ...


@dataclass(frozen=True)
class Tally:
    """How a run went: cases done now, done before, failed, and left to another run."""

    done: int = 0
    kept: int = 0
    failed: int = 0
    busy: int = 0

    def plus(self, record: CaseRecord) -> Tally:
        """With one more case."""
        kind = "kept" if not record.fresh else record.status
        counts = {name: getattr(self, name) + (name == kind) for name in ("done", "kept", "failed", "busy")}
        return Tally(**counts)


OnRecord = Callable[[CaseRecord, Tally], None]


def run(
    config: CohortConfig,
    on_record: OnRecord = lambda record, tally: None,
    cancelled: ShouldCancel = lambda: False,
    executor: Executor | None = None,
) -> Tally:
    """Do every case of a cohort that is not done yet; a case that fails is recorded and never stops the others.

    Args:
        config: the cohort; it is also written into its folder, for `status`, `review` and corrections.
        on_record: told after every case.
        cancelled: asked often.
        executor: where the cases are done; on this machine by default.

    Raises:
        ConfigError: the list, the supports or the options cannot be used, or a run with other settings is at work there.
        OutputError: nothing can be written (any more). What is done stays done; run again to go on.
        Cancelled: the same.
    """
    cases = plan(config)
    check_place(config.output / "x")
    config.write()
    tally = Tally()
    for record in (executor or LocalExecutor())(cases, config, cancelled):
        if record.status == "busy" and "other settings" in " ".join(record.notes):
            raise ConfigError(
                f"{record.name}: {', '.join(record.notes)}",
                "one set of supports and options for all runs on one output folder",
                "wait for that run, or give this one an output of its own",
            )
        tally = tally.plus(record)
        on_record(record, tally)
    return tally


class LocalExecutor:
    """This machine: one thread with a model per device, each with threads that read ahead of it.

    A scan is read only when its reader finds a free place, so that at most `readers` scans wait for each worker.
    """

    def __call__(self, cases: Sequence[Case], config: CohortConfig, cancelled: ShouldCancel) -> Iterator[CaseRecord]:
        """See `Executor`."""
        shared = _Shared()
        for case in cases:
            shared.todo.put(case)

        def stop() -> bool:
            return shared.stopped.is_set() or cancelled()

        workers = [open_worker(config, device, stop) for device in config.devices or ("",)]
        threads = [thread for worker in workers for thread in _Lane(worker, shared).start(config.readers)]
        try:
            yield from _as_they_come(len(cases), shared, cancelled)
        finally:
            shared.stopped.set()
            _drain(shared, threads)
            for worker in workers:
                worker.locks.close()


class _Shared:
    """What all threads of a run share: cases to do, results that nobody has seen yet, and whether to stop."""

    def __init__(self) -> None:
        self.todo: queue.SimpleQueue[Case] = queue.SimpleQueue()
        self.results: queue.Queue[CaseRecord | BaseException] = queue.Queue(maxsize=UNSEEN)
        self.stopped = threading.Event()


def _as_they_come(count: int, shared: _Shared, cancelled: ShouldCancel) -> Iterator[CaseRecord]:
    seen = 0
    while seen < count:
        if cancelled():
            raise Cancelled()
        try:
            item = shared.results.get(timeout=POLL_SECONDS)  # short, so that Ctrl-C is heard
        except queue.Empty:
            continue
        if isinstance(item, BaseException):
            raise item
        seen += 1
        yield item


def _drain(shared: _Shared, threads: Sequence[threading.Thread]) -> None:
    """Wait for the threads to end; nobody looks at their results any more, so these must not block them."""
    while any(thread.is_alive() for thread in threads):
        with suppress(queue.Empty):
            shared.results.get(timeout=POLL_SECONDS)


class _Lane:
    """One worker, the readers before it, and the places between them."""

    def __init__(self, worker: Worker, shared: _Shared) -> None:
        self.worker, self.shared = worker, shared
        self.loaded: queue.SimpleQueue[Loaded | None] = queue.SimpleQueue()

    def start(self, readers: int) -> list[threading.Thread]:
        """Start the threads."""
        self.free, self.reading, self.guard = threading.Semaphore(readers), readers, threading.Lock()
        threads = [
            threading.Thread(target=self._guarded, args=(part,), daemon=True) for part in [self._read] * readers + [self._work]
        ]
        for thread in threads:
            thread.start()
        return threads

    def _guarded(self, part: Callable[[], None]) -> None:
        """Whatever ends a thread early ends the run."""
        try:
            part()
        except BaseException as error:
            self.shared.stopped.set()
            self.shared.results.put(error)

    def _read(self) -> None:
        try:
            while (case := self._next()) is not None:
                found = read_case(case, self.worker)
                if isinstance(found, Loaded):
                    self.loaded.put(found)
                else:
                    self.free.release()
                    self.shared.results.put(found)
        finally:
            with self.guard:
                self.reading -= 1
                if self.reading == 0:
                    self.loaded.put(None)

    def _next(self) -> Case | None:
        """The next case when there is a place for its scan; None at the end."""
        while not self.shared.stopped.is_set():
            if self.free.acquire(timeout=POLL_SECONDS):
                with suppress(queue.Empty):
                    return self.shared.todo.get_nowait()
                return None
        return None

    def _work(self) -> None:
        while (item := self.loaded.get()) is not None:
            self.free.release()  # this scan is in work now: the next one may be read
            if not self.shared.stopped.is_set():
                self.shared.results.put(finish_case(item, self.worker))
