"""Who is at which case: one file per case, so that several runs, on several machines, share a cohort's folder.

A lock is created whole (a hard link to a written file), so that of two runs one gets it. Its holder touches it every
`BEAT_SECONDS`. A lock is stale when its process is gone, which is seen at once on the same machine, and elsewhere when it was
not touched for `STALE_SECONDS` (compared with the file server's own clock).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from FewShotSegLib.files import cannot_write

BEAT_SECONDS = 20.0
STALE_SECONDS = 300.0
CLAIM_SECONDS = 30.0
PAUSE_SECONDS = 0.01
SUFFIX = ".lock"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock: a run's `token`, its machine, process and when that began; `settings` of the run."""

    token: str
    machine: str
    process: int
    began: str
    settings: str

    @property
    def described(self) -> str:
        """For people."""
        return f"process {self.process} on {self.machine.split('/')[0]}"


class Locks:
    """The locks that one run holds in a folder; its heartbeat runs while it holds any.

    Use as a context manager: at its end all are given back. `inherited`: cases whose last holder died, who may have left
    temporary files behind.
    """

    def __init__(self, folder: Path, settings: str = "") -> None:
        self.folder = folder
        self.me = Holder(secrets.token_hex(8), _machine(), os.getpid(), _began(os.getpid()), settings)
        self._held: set[str] = set()
        self.inherited: set[str] = set()
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> Locks:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def take(self, name: str) -> Holder | None:
        """Take the lock of a case: None when it is now held by this run, else who holds it.

        Raises:
            OutputError: the folder cannot be written to.
        """
        path = self._path(name)
        with self._guard:
            if name in self._held:
                return self.me
        while not self._created(path):
            holder = read_holder(path)
            if holder is not None and not is_stale(path, holder):
                return holder
            if holder is not None:
                self._clear(path, holder)
                self.inherited.add(name)
        with self._guard:
            self._held.add(name)
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat, name="cohort-locks", daemon=True)
                self._heart.start()
        return None

    def is_mine(self, name: str) -> bool:
        """Whether this run still holds it: another may have taken it over from a machine that slept."""
        holder = read_holder(self._path(name))
        return holder is not None and holder.token == self.me.token

    def release(self, name: str) -> None:
        """Give a lock back; nothing happens where it is not held."""
        with self._guard:
            held = name in self._held
            self._held.discard(name)
        if held and self.is_mine(name):
            with suppress(OSError):
                self._path(name).unlink()

    def close(self) -> None:
        """Give all locks back."""
        self._ended.set()
        for name in list(self._held):
            self.release(name)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _created(self, path: Path) -> bool:
        """Create a lock with its whole content at once; False when there is one."""
        temporary = path.with_name(f".{path.name}-{self.me.token}-{threading.get_ident()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(asdict(self.me)), encoding="utf-8")
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            raise cannot_write(path, error.strerror or str(error)) from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        return True

    def _clear(self, path: Path, stale: Holder) -> None:
        """Remove a stale lock: only who first links it to a name made of its token may, so that no new lock is removed."""
        claim = path.with_name(f".{path.name}-{stale.token or 'damaged'}.stale")
        try:
            os.link(path, claim)
        except FileExistsError:
            with suppress(OSError):  # that run died at this very moment: linking has set the time of change
                if _clock(self.folder) - claim.stat().st_ctime > CLAIM_SECONDS:
                    claim.unlink()
            time.sleep(PAUSE_SECONDS)
            return
        except OSError:
            return
        with suppress(OSError):
            if read_holder(claim) == stale:
                path.unlink()
        with suppress(OSError):
            claim.unlink()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with self._guard:
                names = list(self._held)
            for name in names:
                with suppress(OSError):
                    os.utime(self._path(name))


def read_holder(path: Path) -> Holder | None:
    """Who holds a lock; None when there is none."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        return Holder("", "", 0, "", "")  # damaged: counts as another machine's, stale when it grows old


def is_stale(path: Path, holder: Holder) -> bool:
    """Whether the holder of a lock is gone."""
    if holder.machine == _machine():
        return _began(holder.process) != holder.began
    try:
        return _clock(path.parent) - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False


def break_lock_of(folder: Path, name: str, token: str) -> bool:
    """Remove the lock of a case if the run `token` holds it. Only for who knows that this run is gone, as a cluster does."""
    path = folder / f"{name}{SUFFIX}"
    holder = read_holder(path)
    if holder is None or holder.token != token:
        return False
    with suppress(OSError):
        path.unlink()
    return True


def running(folder: Path) -> dict[str, Holder]:
    """The cases that somebody is at now, by name."""
    found = {}
    for path in sorted(folder.glob(f"[!.]*{SUFFIX}")) if folder.is_dir() else []:
        holder = read_holder(path)
        if holder is not None and not is_stale(path, holder):
            found[path.name[: -len(SUFFIX)]] = holder
    return found


def _machine() -> str:
    """The machine, and the namespace in which its process numbers count (a container has its own)."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()}/{space}"


def _began(process: int) -> str:
    """When a process of this machine began, "" for none: numbers are used again."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _began_elsewhere(process)
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def _began_elsewhere(process: int) -> str:
    """Where there is no /proc, only whether the process is there; on Windows even to ask would end it, so it counts as there."""
    if os.path.isdir("/proc/self"):
        return ""
    if os.name != "posix":
        return "unknown"
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "unknown"


def _clock(folder: Path) -> float:
    """The time of day by the clock that stamps this folder's files."""
    probe = folder / f".clock-{secrets.token_hex(4)}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()
