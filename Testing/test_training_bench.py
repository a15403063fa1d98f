"""The benchmark of training: what is counted, and what the command says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from learning_encoder import create  # noqa: E402

from fewshotseg_training import bench, bench_supervoxels, learners  # noqa: E402
from fewshotseg_training.bench_supervoxels import SupervoxelBenchmark  # noqa: E402
from fewshotseg_training.presets import config_for  # noqa: E402


class SlowRun:
    """In the place of a run, with a clock of its own: a step takes 20 ms, the two first ones ten times as long."""

    clock = 0.0

    def __init__(self, config: object) -> None:
        self.step, self.device = 0, torch.device("cpu")

    def advance(self) -> None:
        self.step += 1
        SlowRun.clock += 0.2 if self.step <= 2 else 0.02


def test_steps_are_counted_after_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=lambda: SlowRun.clock, process_time=lambda: 2 * SlowRun.clock)
    monkeypatch.setattr(bench, "Run", SlowRun)
    monkeypatch.setattr(bench, "time", clock)
    found = bench.step_rate(config_for("carry", ((),), "", pairs=3, steps=200), seconds=0.199)
    assert (found.steps, found.steps_a_second, found.processor_seconds) == (10, pytest.approx(50), pytest.approx(0.04))
    assert found.episodes_a_second == pytest.approx(150)
    assert bench.step_rate(config_for("carry", ((),), "", steps=200), seconds=0.0).steps == 1
    assert bench.step_rate(config_for("carry", ((),), "", steps=8), seconds=9.0).steps == 6


def test_both_objectives_are_measured_on_invented_scans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(learners, "create_encoder", create)
    monkeypatch.setattr(bench, "devices", lambda: ["cpu"])
    files = bench.bench_scans(tmp_path, shape=(6, 64, 64), size=64)
    assert len(files) == bench.SCANS
    rates = bench.step_rates(files, seconds=0.0)
    assert [(r.method, r.device, r.pairs, r.steps) for r in rates] == [("carry", "cpu", 4, 1), ("alpnet", "cpu", 4, 1)]
    assert all(r.steps_a_second > 0 and r.processor_seconds > 0 for r in rates)


def test_the_supervoxels_are_measured_in_a_process_of_their_own() -> None:
    found = bench_supervoxels.measure(shape=(4, 48, 48), repeats=1)
    assert found.shape == (4, 48, 48) and 0 < found.processor_seconds < 5 and 20 < found.peak_mb < 400


def test_the_command_prints_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = [bench.StepRate("carry", "cpu", 4, 9, 0.5, 1.9), bench.StepRate("alpnet", "cuda", 16, 90, 12.5, 0.1)]
    monkeypatch.setattr(bench, "bench_scans", lambda folder: ())
    monkeypatch.setattr(bench, "step_rates", lambda files, seconds: rates if seconds == 3.0 else [])
    cut = SupervoxelBenchmark((36, 256, 256), 1.25, 1.05, 203.0)
    monkeypatch.setattr(bench, "bench_supervoxels", SimpleNamespace(measure=lambda: cut))
    bench.main(["--seconds", "3", "--json", str(tmp_path / "bench.json")])
    printed = capsys.readouterr().out
    assert "1.25 s" in printed and "11.6 s" in printed and "200.0" in printed and "1.90" in printed
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [rate["episodes_a_second"] for rate in written["training"]] == [2.0, 200.0]
    assert written["supervoxels"]["peak_mb"] == 203.0
