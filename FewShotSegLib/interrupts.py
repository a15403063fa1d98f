"""What Ctrl-C does: it ends the command at once, but a running segmentation only at its next step, so that it can tidy up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C ended (128 + SIGINT), by the convention of shells."""


class Interrupted(BaseException):
    """Ctrl-C. Neither an Exception, so that nothing on the way swallows it, nor a KeyboardInterrupt, which Typer would."""


@contextmanager
def raise_on_interrupt() -> Iterator[None]:
    """Inside the block, Ctrl-C raises Interrupted."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    with _handled_by(stop):
        yield


@contextmanager
def cancel_on_interrupt(warn: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Inside the block, the first Ctrl-C calls `warn` and lets the yielded function say True; a second one kills the process."""
    asked = threading.Event()

    def cancel(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        warn()

    with _handled_by(cancel):
        yield asked.is_set


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Install a handler for the block; only the main thread may, elsewhere Ctrl-C stays what it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
