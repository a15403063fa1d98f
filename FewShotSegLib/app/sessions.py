"""One process for each open page: started on demand, counted, closed when idle."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from FewShotSegLib.app.config import AppConfig
from FewShotSegLib.errors import ConfigError

PRELOADED = ["FewShotSegLib.app.worker"]
AWAY_S = 60.0
"""A page that nobody has looked at for so long gives way when all places are taken."""
POLL_S = 0.05

logger = logging.getLogger(__name__)


class Process(Protocol):
    """What is used of multiprocessing.Process."""

    def is_alive(self) -> bool: ...
    def join(self, timeout: float | None = None) -> None: ...
    def kill(self) -> None: ...


@dataclass
class Session:
    """One page's process. `secret` is what only the gateway and the process know; `folder` holds its files."""

    id: str
    secret: str
    folder: Path
    process: Process | None = None
    pipe: Connection | None = None
    failed: bool = False
    port: int | None = None
    sockets: int = 0
    used: float = field(default_factory=time.monotonic)
    _closing: threading.Lock = field(default_factory=threading.Lock)

    async def ready(self, timeout: float = 300.0) -> int | None:
        """The port on which the process answers; None when it died or took too long."""
        deadline = time.monotonic() + timeout
        while self.port is None and not self.dead and time.monotonic() < deadline:
            with suppress(EOFError, OSError):
                if self.pipe is not None and self.pipe.poll():
                    self.port = int(self.pipe.recv())
                    break
            await asyncio.sleep(POLL_S)
        return self.port

    @property
    def dead(self) -> bool:
        """Whether its process has ended, or could not be started."""
        return self.failed or (self.process is not None and not self.process.is_alive())

    def touch(self) -> None:
        """Note that somebody uses it."""
        self.used = time.monotonic()

    def close(self) -> None:
        """End the process and delete its files; waits a few seconds at most."""
        with self._closing:  # the thread that starts the process may close it at the same time
            if self.pipe is not None and self.process is not None:
                self.pipe.close()  # tells the process to end
                self.process.join(5)
                if self.process.is_alive():
                    self.process.kill()
                    self.process.join(5)
            shutil.rmtree(self.folder, ignore_errors=True)


Start = Callable[[AppConfig, Path, str], tuple[Any, Connection]]


class SessionPool:
    """All open sessions. `start` makes a process and the gateway's end of its pipe."""

    def __init__(self, config: AppConfig, start: Start | None = None) -> None:
        self.config = config
        self._start = start or start_worker
        self._sessions: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self) -> Session:
        """A new session, whose process may still be starting.

        Raises:
            ConfigError: as many sessions are in use as may be.
        """
        self._make_room()
        folder = Path(tempfile.mkdtemp(prefix="fewshotseg-"))
        session = Session(secrets.token_urlsafe(12), secrets.token_urlsafe(24), folder)
        self._sessions[session.id] = session
        threading.Thread(target=self._launch, args=(session,), daemon=True).start()
        return session

    def _launch(self, session: Session) -> None:
        """Start the process, which may take seconds; a session that was closed meanwhile is closed again."""
        try:
            process, session.pipe = self._start(self.config, session.folder, session.secret)
            session.process = process  # last: who sees it may close both
        except Exception:
            logger.exception("A session could not be started")
            session.failed = True  # last: who waits for it may read the log at once
        if session.id not in self._sessions:
            session.close()

    def get(self, session_id: str) -> Session | None:
        """A session that is still open."""
        session = self._sessions.get(session_id)
        if session is not None and session.dead:
            self.close(session_id)
            return None
        return session

    def close(self, session_id: str) -> None:
        """Close one; nothing happens when it is closed already."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            session.close()

    def close_idle(self) -> list[str]:
        """Close the sessions without traffic for longer than the limit, and forget those that died; returns their ids."""
        limit = time.monotonic() - 60 * self.config.idle_minutes
        idle = [s.id for s in self._sessions.values() if s.used < limit or s.dead]
        for session_id in idle:
            self.close(session_id)
        return idle

    def close_all(self) -> None:
        """Close every session."""
        for session_id in list(self._sessions):
            self.close(session_id)

    def _make_room(self) -> None:
        self.close_idle()
        if len(self._sessions) < self.config.sessions:
            return
        limit = time.monotonic() - AWAY_S
        left = [s for s in self._sessions.values() if s.sockets == 0 and s.used < limit]
        if not left:
            raise ConfigError(
                f"{len(self._sessions)} pages are open, as many as may be",
                f"fewer than {self.config.sessions}",
                "close a page that is no longer needed and try again in a minute, or start the server with a higher --sessions",
            )
        self.close(min(left, key=lambda s: s.used).id)


def preload() -> None:
    """Start loading trame and Slicer's libraries, once, in a process from which each session is then forked in a moment."""
    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload(PRELOADED)
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if threading.current_thread() is threading.main_thread() else None
        forkserver.ensure_running()
        if before is not None:
            signal.signal(signal.SIGINT, before)


def start_worker(config: AppConfig, folder: Path, secret: str) -> tuple[Any, Connection]:
    """Start the process of a session."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(config, folder, secret, theirs), name="fewshotseg session")
    process.start()
    theirs.close()
    return process, ours


def _run(*arguments: Any) -> None:
    """What the new process does; the gateway itself never loads Slicer's libraries."""
    from FewShotSegLib.app.worker import run_session

    run_session(*arguments)
