"""How fast training is: `python -m fewshotseg_training.bench`. Steps and episodes a second, and the supervoxels beside.

All scans are invented. CPU (with the threads that PyTorch has) and, when there is one, GPU are measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fewshotseg_training import bench_supervoxels
from fewshotseg_training.bench_supervoxels import SupervoxelBenchmark
from fewshotseg_training.config import FitConfig
from fewshotseg_training.fit import Run
from fewshotseg_training.prepare import PrepareConfig, prepare_folder
from fewshotseg_training.presets import config_for
from FewShotSegLib.evaluation.result import machine_facts, say_json
from FewShotSegLib.phantom import save_case

SHAPE = (12, 256, 256)
SCANS = 2
MIN_SIZE = 1700  # 5000 of a scan of 36 slices
PAIRS = {"cpu": 4, "cuda": 16}
"""Of slices, or episodes, a step."""
MOST_STEPS = 200


@dataclass(frozen=True)
class StepRate:
    """Training on one device: `pairs` slice pairs (carry) or episodes a step; first steps do not count.

    processor_seconds: of the processor, in all its threads, for a step; on a busy machine steadier than `steps_a_second`.
    """

    method: str
    device: str
    pairs: int
    steps: int
    steps_a_second: float
    processor_seconds: float

    @property
    def episodes_a_second(self) -> float:
        """Slice pairs or episodes a second."""
        return self.pairs * self.steps_a_second


def devices() -> list[str]:
    """The CPU, and a GPU when there is one."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def bench_scans(folder: Path, shape: tuple[int, int, int] = SHAPE, size: int = SHAPE[1]) -> tuple[str, ...]:
    """Prepared scans of invented patients, superpixels and all; their files."""
    for seed in range(SCANS):
        save_case(folder / "invented", seed, shape=shape)
    config = PrepareConfig(min_size=max(60, MIN_SIZE * size**2 // SHAPE[1] ** 2), size=size, superpixels=True)
    return tuple(str(path) for path in prepare_folder(folder / "invented", folder / "cache", config).done)


def step_rate(config: FitConfig, seconds: float, warm_up: int = 2) -> StepRate:
    """Train for about so many seconds, at least one step, and count; nothing is written."""
    run = Run(config)
    for _ in range(warm_up):
        run.advance()
    start, used, first = _now(run.device), time.process_time(), run.step
    while run.step == first or (time.perf_counter() - start < seconds and run.step < config.steps):
        run.advance()
    done = run.step - first
    rate = done / (_now(run.device) - start)
    return StepRate(config.method, run.device.type, config.pairs, done, rate, (time.process_time() - used) / done)


def _now(device: torch.device) -> float:
    """The time, when all work given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def step_rates(files: tuple[str, ...], seconds: float) -> list[StepRate]:
    """The carry objective and ALPNet's episodes on every device at hand."""
    found = []
    for device in devices():
        for method in ("carry", "alpnet"):
            config = config_for(method, (files,), "", device=device, pairs=PAIRS[device], show="none", steps=MOST_STEPS)
            found.append(step_rate(config, seconds))
    return found


def table(rates: Sequence[StepRate]) -> Table:
    """The rates for a terminal."""
    facts = machine_facts()
    caption = (
        f"{facts['machine']}, {facts['cores']} cores, {facts['threads']} threads, load {facts['load']}, torch {facts['torch']}; "
        "an episode of carry is a pair of slices"
    )
    shown = Table(title=f"Training, slices of {SHAPE[1]} x {SHAPE[2]}, ResNet-50 v2", caption=caption)
    for heading in ("objective", "device", "a step", "steps / s", "processor s / step", "episodes / s", "100,000, minutes"):
        shown.add_column(heading, justify="left" if heading in ("objective", "device") else "right")
    for rate in rates:
        each = rate.episodes_a_second
        figures = (f"{rate.steps_a_second:.2f}", f"{rate.processor_seconds:.2f}", f"{each:.1f}", f"{100_000 / each / 60:.0f}")
        shown.add_row(rate.method, rate.device, str(rate.pairs), *figures)
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: prints a table, a line about the supervoxels, and the JSON."""
    parser = argparse.ArgumentParser(description="Time training steps and supervoxels on invented scans.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of training for each objective and device")
    parser.add_argument("--json", type=Path, help="also write the JSON here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rates = step_rates(bench_scans(Path(folder)), options.seconds)
    cut: SupervoxelBenchmark = bench_supervoxels.measure()
    Console().print(table(rates))
    Console().print(cut.told())
    told = [{**asdict(rate), "episodes_a_second": rate.episodes_a_second} for rate in rates]
    say_json({"training": told, "supervoxels": asdict(cut), "machine": machine_facts()}, options.json)


if __name__ == "__main__":
    main()
