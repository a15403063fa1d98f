"""The web page served as a user serves it, and a browser that uses it as a user does: real mouse, real keys, real files.

The browser is Debian's Chromium (or the one that FEWSHOTSEG_CHROMIUM names), driven by Playwright.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).resolve().parent
TOKEN = "a-token-for-tests-only"
PATIENCE_MS = 200_000
SIZE = {"width": 1280, "height": 800}


@dataclass(frozen=True)
class Served:
    """A page that is served: its address without and with the token, the process, and what is written of connections."""

    process: subprocess.Popen[str]
    log: Path
    opened: str

    @property
    def base(self) -> str:
        return self.opened.split("/?")[0]

    def far_connections(self) -> list[str]:
        """Attempts of the server's processes to reach another machine."""
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []

    def model_processes(self) -> list[int]:
        """Processes in which the model of one of the sessions runs (Linux)."""
        mine = f"CONNECTION_LOG={self.log}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if b"FewShotSegLib.background.worker" in command and mine in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
        return found


@contextmanager
def serving(folder: Path, *options: object) -> Iterator[Served]:
    """`fewshotseg app` in a process of its own, on a free port, until the end of the block."""
    log, errors = folder / "connections.txt", folder / "errors.txt"
    watched = os.pathsep.join([str(HERE / "connection_watch"), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"CONNECTION_LOG": str(log), "PYTHONPATH": watched, "COLUMNS": "250", "FEWSHOTSEG_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "FewShotSegLib.cli", "app", "--port", "0", "--token", TOKEN, *map(str, options)]
    with errors.open("w") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, encoding="utf-8", env=os.environ | own)
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if line.startswith("Open")), None)
        if line is None:
            pytest.fail(f"The server did not start: {errors.read_text()}")
        yield Served(process, log, line.split()[-1])
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def chromium() -> Path:
    """The browser; the test is skipped where there is none."""
    path = Path(os.environ.get("FEWSHOTSEG_CHROMIUM", "/usr/bin/chromium"))
    if not path.exists():
        pytest.skip(f"no browser at {path}: install Debian's package chromium, or set FEWSHOTSEG_CHROMIUM to one")
    return path


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser without a window, without any cookie."""
    path = chromium()
    pytest.importorskip("trame_slicer", reason="the page needs the extra 'app'")
    api = pytest.importorskip("playwright.sync_api", reason="the browser tests need playwright")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def settled(look: Callable[[], np.ndarray]) -> np.ndarray:
    """What is there and does not change any more for two seconds: mouse events are worked off one by one."""
    last, same, end = look(), 0, time.monotonic() + PATIENCE_MS / 1000
    while time.monotonic() < end:
        time.sleep(1)
        now = look()
        same = same + 1 if np.array_equal(last, now) and now.any() else 0
        if same == 2:
            return now
        last = now
    raise AssertionError("nothing came, or it never ended")


def eventually(condition: Callable[[], object], told: Callable[[], object] = lambda: "it never came") -> None:
    """Wait for what comes a moment later, such as an image that the server still draws."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.2)


class Visit:
    """One page, opened with the token in a browser without history. `requests` are all addresses that the page asked for."""

    def __init__(self, browser: Any, served: Served, scheme: str = "dark") -> None:
        self.context = browser.new_context(viewport=SIZE, accept_downloads=True, color_scheme=scheme)
        self.context.set_default_timeout(PATIENCE_MS)
        self.requests: list[str] = []
        self.faults: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.goto(served.opened)
        self.page.wait_for_selector("#sample")
        self.until("typeof window.fewshot !== 'undefined'")

    def close(self) -> None:
        self.context.close()

    @property
    def home(self) -> str:
        """The address of this session."""
        return str(self.page.url).rsplit("/", 1)[0]

    # ---- what the page knows

    def state(self, name: str) -> Any:
        return self.page.evaluate("name => window.trame.state.get(name)", name)

    def until(self, condition: str, timeout_s: float = PATIENCE_MS / 1000) -> None:
        """Wait for a condition in JavaScript; `get(name)` reads the page's state."""
        script = f"() => {{ const get = n => window.trame && window.trame.state.get(n); return {condition}; }}"
        self.page.wait_for_function(script, timeout=1000 * timeout_s)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    # ---- files

    def choose(self, button: str, paths: Sequence[Path]) -> None:
        """Press a button, and choose files in the dialog that opens."""
        with self.page.expect_file_chooser() as chooser:
            self.page.click(button)
        chooser.value.set_files([str(path) for path in paths])

    def drop(self, role: str, paths: Sequence[Path]) -> None:
        """Drag files from the desktop onto one of the two fields that appear: "support" or "query"."""
        devtools = self.context.new_cdp_session(self.page)
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}

        def drag(kind: str, x: float, y: float) -> None:
            devtools.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})

        drag("dragEnter", 640, 400)
        drag("dragOver", 640, 400)
        field = self.page.locator(f"[data-drop={role}]")
        field.wait_for(state="visible")
        box = field.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        drag("dragOver", x, y)
        drag("drop", x, y)
        devtools.detach()

    def fetch(self, path: str) -> bytes:
        """What a link of the page leads to."""
        answer = self.context.request.get(f"{self.home}/{path}", timeout=PATIENCE_MS)
        assert answer.ok, (answer.status, answer.text())
        return bytes(answer.body())

    # ---- the axial view

    def view(self, number: int = 0) -> dict[str, float]:
        """Where a view lies on the page: 0 is the axial one, 1 the 3D one."""
        return dict(self.page.locator(".fs-views img.image-display-area").nth(number).bounding_box())

    def place(self, row: float, column: float, shape: tuple[int, int]) -> tuple[float, float]:
        """Where the middle of a pixel of an axial slice (rows, columns; square pixels) is shown: the slice fits the view."""
        box = self.view()
        scale = min(box["width"] / shape[1], box["height"] / shape[0])
        x, y = (column + 0.5 - shape[1] / 2) * scale, (row + 0.5 - shape[0] / 2) * scale
        return box["x"] + box["width"] / 2 + x, box["y"] + box["height"] / 2 + y

    def go_to(self, number: int) -> None:
        """Press the arrow keys until the axial view shows a slice, first = 0."""
        self.page.mouse.move(176, 20)
        self.until("get('place_Red')")
        for _ in range(200):
            shown = int(self.state("place_Red").split("/")[0]) - 1
            if shown == number:
                return
            self.page.keyboard.press("ArrowUp" if shown < number else "ArrowDown")
            self.until(f"get('place_Red') && !get('place_Red').startswith('{shown + 1} ')".replace("startswith", "startsWith"))
        raise AssertionError(f"slice {number} is not reached")

    def stroke(self, points: Sequence[tuple[float, float]]) -> None:
        """Drag the pressed mouse along points of the page."""
        self.page.mouse.move(*points[0])
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*point, steps=6)
            time.sleep(0.03)
        self.page.mouse.up()

    def pixels(self, number: int = 0) -> np.ndarray:
        """A view as it is seen, (row, column, colour), float; its own controls lie on it."""
        image = Image.open(io.BytesIO(self.page.screenshot(clip=self.view(number))))
        return np.asarray(image.convert("RGB"), float)

    def color(self, row: float, column: float, shape: tuple[int, int]) -> np.ndarray:
        """Mean colour seen around a pixel of the axial slice."""
        (x, y), box = self.place(row, column, shape), self.view()
        i, j = round(y - box["y"]), round(x - box["x"])
        return self.pixels()[i - 2 : i + 3, j - 2 : j + 3].mean((0, 1))
