"""Sessions are counted, closed when idle, and leave nothing behind. Processes are pretended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from FewShotSegLib.app.config import AppConfig
from FewShotSegLib.app.sessions import AWAY_S, Session, SessionPool
from FewShotSegLib.errors import ConfigError


class PretendedProcess:
    """Lives until its pipe is closed, or until it is told to die."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.dead = pipe, False

    def is_alive(self) -> bool:
        if not self.dead and self.pipe.poll():
            self.dead = True
        return not self.dead

    def join(self, timeout: float | None = None) -> None:
        self.is_alive()

    def kill(self) -> None:
        self.dead = True


def start(config: AppConfig, folder: Path, secret: str) -> tuple[Any, Connection]:
    ours, theirs = Pipe()
    theirs.send(4711)
    return PretendedProcess(theirs), ours


def pool_of(**limits: Any) -> SessionPool:
    return SessionPool(AppConfig(**limits), start)


def opened(pool: SessionPool) -> Session:
    session = pool.open()
    until(lambda: session.process is not None)
    return session


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_each_session_has_a_name_a_secret_and_a_folder_of_its_own() -> None:
    pool = pool_of()
    one, other = opened(pool), opened(pool)
    assert len({one.id, other.id, one.secret, other.secret}) == 4 and one.folder != other.folder
    assert one.folder.is_dir() and one.folder.stat().st_mode & 0o077 == 0, "only the user may look into it"
    assert asyncio.run(one.ready()) == 4711 and pool.get(one.id) is one and pool.get("none") is None
    pool.close_all()
    assert len(pool) == 0 and not one.folder.exists() and not other.folder.exists()


def test_idle_sessions_are_closed_and_used_ones_not() -> None:
    pool = pool_of(idle_minutes=1)
    idle, used = opened(pool), opened(pool)
    (idle.folder / "scan.nii").write_text("x")
    idle.used -= 61
    assert pool.close_idle() == [idle.id] and pool.close_idle() == []
    assert pool.get(idle.id) is None and not idle.folder.exists() and pool.get(used.id) is used
    used.used -= 61
    used.touch()
    assert pool.close_idle() == []
    pool.close_all()


def test_no_more_sessions_than_may_be() -> None:
    pool = pool_of(sessions=1)
    first = opened(pool)
    with pytest.raises(ConfigError, match="1 pages are open"):
        pool.open()
    first.used -= AWAY_S + 1
    first.sockets = 1
    with pytest.raises(ConfigError):
        pool.open()
    first.sockets = 0
    second = opened(pool)
    assert pool.get(first.id) is None and pool.get(second.id) is second, "one that nobody looks at gives way"
    pool.close_all()


def test_a_session_that_died_is_forgotten() -> None:
    pool = pool_of(sessions=1)
    session = opened(pool)
    session.process.kill()  # type: ignore[union-attr]
    assert session.dead and pool.get(session.id) is None and not session.folder.exists()
    opened(pool)
    pool.close_all()


def test_a_process_that_cannot_be_started_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*arguments: object) -> Any:
        raise OSError("no memory")

    pool = SessionPool(AppConfig(), fail)
    session = pool.open()
    until(lambda: session.failed)
    assert asyncio.run(session.ready(5)) is None and pool.get(session.id) is None
    assert "could not be started" in caplog.text
