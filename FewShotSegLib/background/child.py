"""The worker as a child process: how it is started, spoken to, ended, and what is said of its death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from FewShotSegLib.errors import ConfigError

MODULE = "FewShotSegLib.background.worker"
ROOT = Path(__file__).resolve().parents[2]
LAST_LINES = 3


class Child:
    """A worker process with a private folder for jobs, which goes with it.

    Args:
        python: the interpreter; None: see `find_python`.

    Raises:
        OSError, ConfigError: it cannot be started.
    """

    def __init__(self, python: str | Path | None = None) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="fewshotseg-"))  # only the user may look into it
        self._log, self._jobs = self._root / "log.txt", 0
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [str(python or find_python()), "-m", MODULE, str(self._root)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    encoding="utf-8",
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
        except BaseException:
            shutil.rmtree(self._root, ignore_errors=True)
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def new_folder(self) -> Path:
        """An empty folder for a job."""
        self._jobs += 1
        folder = self._root / f"job{self._jobs}"
        folder.mkdir()
        return folder

    def send(self, line: str) -> None:
        """Tell the worker a line; nothing happens when it is dead, which `lines` shows."""
        assert self._process.stdin is not None
        with suppress(OSError, ValueError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def lines(self) -> Iterator[str]:
        """What the worker tells, line by line, until it dies."""
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            yield line

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Kill the process and remove its folder."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def last_words(self) -> str:
        """Why the worker died, for the user. Waits for its end, and removes its folder."""
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        self.close()
        if code == -getattr(signal, "SIGKILL", 9):
            return "The worker process was killed, as systems do when the memory runs out. " + ROOM
        if code < 0:
            return f"The worker process crashed ({signal.Signals(-code).name}). {AGAIN}"
        said = " | ".join(line.strip() for line in lines[-LAST_LINES:] if line.strip())
        return f"The worker process ended with code {code}{': ' + said if said else ''}. {AGAIN}"


ROOM = "What to do: close other programs or scans, or crop the scan, and try again."
AGAIN = "What to do: try again; if it comes back, choose the device 'cpu', and report it."


def find_python() -> str:
    """The interpreter for the worker: the one that runs this, or in an application with a Python inside that of Slicer."""
    if Path(sys.executable).name.lower().startswith("python"):
        return sys.executable
    if found := shutil.which("PythonSlicer"):
        return found
    raise ConfigError(f"No Python interpreter: this program is {sys.executable!r}", "PythonSlicer or python", "name one")
