"""How long the page takes from Apply to the result on the sample case, and how much memory: `python -m FewShotSegLib.app.bench`.

A session is served to nobody: the same scene, drawing, job and result as behind a browser, without pictures being sent.
`make bench` runs this in a process of its own, so that its memory is counted alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from FewShotSegLib.app.config import SAMPLE_SHAPE, AppConfig
from FewShotSegLib.errors import FewShotSegError
from FewShotSegLib.memory import measured_apart, peak_memory_mb, peak_memory_of_children_mb

PATIENCE_S = 1800.0


@dataclass(frozen=True)
class PageBenchmark:
    """The page's sample case, four organs of one scan drawn whole, another scan segmented.

    scan: voxels (z, y, x). first: seconds from Apply to the result on the page, the model's process started and the support
    encoded on the way; again: the same once more, both kept. session_mb, model_mb: peak memory of the session's process, in
    which scene and views are, and of the model's.
    """

    scan: tuple[int, int, int]
    first: float
    again: float
    session_mb: float
    model_mb: float

    def told(self) -> str:
        """For people."""
        return (
            f"Web page, from Apply to the result: {self.again:.1f} s ({self.first:.1f} s the first time, the model's process "
            f"started on the way); peak memory {self.session_mb:.0f} MB for the page, {self.model_mb:.0f} MB for the model"
        )


def measure(checkpoint: str = "", shape: tuple[int, int, int] = SAMPLE_SHAPE) -> PageBenchmark | None:
    """Run the benchmark in a new process; None where the page's packages are not installed.

    Raises:
        OutputError: it failed, with its last words.
    """
    if find_spec("trame_slicer") is None:
        return None
    options = ("--checkpoint", checkpoint, "--shape", *map(str, shape))
    found = measured_apart("FewShotSegLib.app.bench", *options, timeout_s=PATIENCE_S)
    return PageBenchmark(**{**found, "scan": tuple(found["scan"])})


def run(checkpoint: str, shape: tuple[int, int, int]) -> PageBenchmark:
    """Measure in this process. Raises FewShotSegError when nothing is found."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    from FewShotSegLib.app.worker import make_server

    config = AppConfig(checkpoint=checkpoint, sample_shape=shape, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        page = make_server(config, Path(folder), "no visitor").session
        try:
            first, again = asyncio.get_event_loop().run_until_complete(_use(page))
        finally:
            page.close()
    return PageBenchmark(shape, first, again, peak_memory_mb(), peak_memory_of_children_mb())


async def _use(page: Any) -> tuple[float, float]:
    page.loading.sample()
    while page.state.why:
        await asyncio.sleep(0.01)
    return await _apply(page), await _apply(page)


async def _apply(page: Any) -> float:
    """Seconds from Apply until the result is on the page."""
    before, begun = page.state.results, time.perf_counter()
    page.running.apply()
    while page.state.results == before and page.state.busy:
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - begun
    while page.state.busy:
        await asyncio.sleep(0.01)
    if page.state.results == before:
        raise FewShotSegError(f"No result: {page.state.message}")
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: prints one line of JSON."""
    parser = argparse.ArgumentParser(description="Time the page from Apply to the result, on the sample case.")
    parser.add_argument("--checkpoint", default="", help='name or path; "": the default')
    parser.add_argument("--shape", type=int, nargs=3, default=SAMPLE_SHAPE, help="voxels z y x of both scans")
    options = parser.parse_args(arguments)
    print(json.dumps(asdict(run(options.checkpoint, tuple(options.shape)))))


if __name__ == "__main__":
    main()
