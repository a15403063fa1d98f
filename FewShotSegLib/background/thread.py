"""A runner in a thread of the application."""

from __future__ import annotations

import queue
import threading

from FewShotSegLib.background.events import Event, Job, is_last
from FewShotSegLib.background.work import Worker


class ThreadRunner:
    """Runs jobs in a thread; see `Runner`. The model stays loaded until `close`."""

    def __init__(self) -> None:
        self._worker = Worker()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._running = False

    @property
    def running(self) -> bool:
        return self._running

    def start(self, job: Job) -> None:
        if self._running:
            raise RuntimeError("A job is running")
        self._running, self._stop, self._events = True, threading.Event(), queue.SimpleQueue()
        arguments = (job, self._events.put, self._stop.is_set)
        threading.Thread(target=self._worker.run, args=arguments, daemon=True, name="FewShotSeg").start()

    def poll(self) -> list[Event]:
        events = drain(self._events)
        if any(map(is_last, events)):
            self._running = False
        return events

    def cancel(self) -> None:
        self._stop.set()

    def close(self) -> None:
        """End at the job's next step, without waiting for it; its events are dropped, its memory is given back then."""
        self._stop.set()
        self._worker, self._running, self._events = Worker(), False, queue.SimpleQueue()


def drain(events: queue.SimpleQueue[Event]) -> list[Event]:
    """All that is in the queue now."""
    found = []
    while True:
        try:
            found.append(events.get_nowait())
        except queue.Empty:
            return found
