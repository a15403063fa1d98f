"""A runner in a process of its own, which keeps the model loaded from job to job."""

from __future__ import annotations

import json
import math
import queue
import shutil
import threading
from pathlib import Path
from typing import Any

from FewShotSegLib.background.child import Child
from FewShotSegLib.background.events import (
    CancelledEvent,
    DoneEvent,
    Event,
    FailedEvent,
    Job,
    ProgressEvent,
    ResultEvent,
    UnsureEvent,
    is_last,
)
from FewShotSegLib.background.exchange import read_result, write_job
from FewShotSegLib.background.thread import drain
from FewShotSegLib.errors import FewShotSegError

STARTING = "starting"
EVENTS = {kind.__name__: kind for kind in (ProgressEvent, UnsureEvent, FailedEvent, DoneEvent, CancelledEvent)}


class ProcessRunner:
    """Runs jobs in a worker process; see `Runner`. One that crashes or is killed is a `FailedEvent`; the next job has a new one.

    Args:
        python: the interpreter; None: this one, or in Slicer PythonSlicer.
        patience_s: seconds that a cancelled job may take to its next step before its process is killed.
    """

    def __init__(self, python: str | Path | None = None, *, patience_s: float = 10.0) -> None:
        self._python, self._patience_s = python, patience_s
        self._child: Child | None = None
        self._task: _Task | None = None

    @property
    def running(self) -> bool:
        return self._task is not None

    @property
    def pid(self) -> int | None:
        """Of the worker process, when there is one."""
        child = self._task.child if self._task else self._child
        return child.pid if child else None

    def start(self, job: Job) -> None:
        if self._task:
            raise RuntimeError("A job is running")
        self._task = _Task(job, self._child, self._python)
        self._task.begin()

    def poll(self) -> list[Event]:
        if self._task is None:
            return []
        events = drain(self._task.events)
        if any(map(is_last, events)):
            self._child, self._task = self._task.child, None
        return events

    def cancel(self) -> None:
        if self._task:
            self._task.cancel(self._patience_s)

    def close(self) -> None:
        """Kill the worker process and with it the job that runs; its events are dropped, its files are removed."""
        child = self._task.end() if self._task else self._child
        if child:
            child.close()
        self._child = self._task = None


class _Task:
    """One job on its way through a worker process. Its thread does all that takes time: files, start of the process, reading."""

    def __init__(self, job: Job, child: Child | None, python: str | Path | None) -> None:
        self.job, self.child = job, child
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._python = python
        self._stop, self._lock, self._ended, self._closed = threading.Event(), threading.Lock(), False, False

    def begin(self) -> None:
        threading.Thread(target=self._run, daemon=True, name="FewShotSeg").start()

    def cancel(self, patience_s: float) -> None:
        """Ask the worker to stop; kill it when it has not after the patience."""
        with self._lock:
            self._stop.set()
            if self.child:
                self.child.send("cancel")
        timer = threading.Timer(patience_s, self._kill)
        timer.daemon = True
        timer.start()

    def end(self) -> Child | None:
        """Give the worker up; it is returned. One that is only just being started is closed as soon as it is there."""
        with self._lock:
            self._stop.set()
            self._closed = True
            return self.child

    def _kill(self) -> None:
        with self._lock:
            if self.child and not self._ended:
                self.child.kill()

    def _run(self) -> None:
        try:
            last = self._work()
        except (OSError, FewShotSegError) as error:
            last = FailedEvent(None, f"The worker process cannot be used: {error}")
        except Exception as error:
            last = FailedEvent(None, f"Unexpected error, {type(error).__name__}: {error}")
        with self._lock:
            self._ended = True
        self.events.put(CancelledEvent() if self._stop.is_set() and isinstance(last, FailedEvent) else last)

    def _work(self) -> Event:
        self.events.put(ProgressEvent(0, STARTING, 0.0, math.nan))
        before = self.child
        last = self._attempt()
        if last is None and before is not None and self.child is before:  # dead already, only the system did not say so yet
            self._replace(before)
            last = self._attempt()
        return last or self._obituary()

    def _attempt(self) -> Event | None:
        """The job's last event; None where the worker died before it said a word."""
        child = self._living_child()
        folder = child.new_folder()
        try:
            write_job(self.job, folder)
            with self._lock:
                if self._stop.is_set():
                    return CancelledEvent()
                child.send(json.dumps(str(folder)))
            return self._listen(child, folder)
        finally:
            self._tidy(child, folder)

    def _living_child(self) -> Child:
        """The worker of the job before, or a new one where there is none or it has died."""
        if self.child is None or not self.child.alive:
            self._replace(self.child)
        assert self.child is not None
        return self.child

    def _replace(self, dead: Child | None) -> None:
        if dead is not None:
            dead.close()
        child = Child(self._python)
        with self._lock:
            self.child = child

    def _tidy(self, child: Child, folder: Path) -> None:
        """Leave nothing of the job on disk, and nothing at all when the runner was closed meanwhile."""
        with self._lock:
            closed = self._closed
        if closed:
            child.close()
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def _listen(self, child: Child, folder: Path) -> Event | None:
        """Pass on events up to the last one, which is returned; None where there is not even a first."""
        begun = False
        for line in child.lines():
            begun, event = True, self._event(json.loads(line), folder)
            if is_last(event):
                return event
            self.events.put(event)
        return self._obituary() if begun else None

    def _obituary(self) -> Event:
        assert self.child is not None
        return FailedEvent(None, self.child.last_words())

    def _event(self, told: dict[str, Any], folder: Path) -> Event:
        kind = told.pop("event")
        if kind == ResultEvent.__name__:
            return ResultEvent(told["query_index"], read_result(told["query_index"], self.job, folder))
        return EVENTS[kind](**told)
