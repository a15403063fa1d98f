"""The worker process of `ProcessRunner`: `python -m FewShotSegLib.background.worker FOLDER`.

On its standard input come lines: the folder of a job, or `cancel`. When it ends, the application is gone, and so go the worker
and its FOLDER.
On its standard output go events, one JSON object a line; what others print goes to the standard error.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import IO

from FewShotSegLib.background.events import Event, FailedEvent, ResultEvent
from FewShotSegLib.background.exchange import read_job, write_result
from FewShotSegLib.background.work import Worker

CANCEL = "cancel"
UNHEALTHY = 3
"""Exit code after an error that nobody foresaw; the last event has told of it."""


def main() -> int:
    """Do jobs until the application is gone."""
    told = _take_output()
    jobs: queue.SimpleQueue[tuple[Path, threading.Event]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    worker = Worker()
    while worker.healthy:
        folder, stop = jobs.get()
        _do(worker, folder, told, stop)
    return UNHEALTHY


def _take_output() -> IO[str]:
    """The real standard output, for events alone; the file descriptor is given the standard error instead."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return output


def _listen(jobs: queue.SimpleQueue[tuple[Path, threading.Event]]) -> None:
    """Take orders until the application is gone; then leave nothing of the patient behind."""
    stop = threading.Event()
    for line in sys.stdin:
        if line.strip() == CANCEL:
            stop.set()
        else:
            stop = threading.Event()
            jobs.put((Path(json.loads(line)), stop))
    for folder in sys.argv[1:]:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # the main thread may be deep in a convolution


def _do(worker: Worker, folder: Path, told: IO[str], stop: threading.Event) -> None:
    def emit(event: Event) -> None:
        if isinstance(event, ResultEvent):
            write_result(event.query_index, event.segmentation, folder)
            content: dict[str, object] = {"query_index": event.query_index}
        else:
            content = asdict(event)
        told.write(json.dumps({"event": type(event).__name__, **content}) + "\n")
        told.flush()

    try:
        job = read_job(folder)
    except Exception as error:
        emit(FailedEvent(None, f"The worker could not read the job ({type(error).__name__}: {error})"))
        return
    worker.run(job, emit, stop.is_set)


if __name__ == "__main__":
    sys.exit(main())
