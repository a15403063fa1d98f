from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from FewShotSegLib.encoders import create_encoder
from FewShotSegLib.evaluation import bench
from FewShotSegLib.evaluation.result import machine_facts
from FewShotSegLib.phantom import make_patient
from FewShotSegLib.strategies.chunks import chunk_of, pick_slices


def test_the_published_loop_pairs_every_slice_of_every_organ_with_its_chunk() -> None:
    teacher, query = (make_patient(seed, shape=(12, 64, 64)) for seed in (1, 2))
    jobs = list(bench.published_jobs(teacher, query))
    assert len(jobs) == 12 * 4
    taught, shown = (np.flatnonzero((patient.labels == 1).any((1, 2))).tolist() for patient in (teacher, query))
    chosen = pick_slices(taught)
    for z in (0, 5, 11):
        pair, mask = jobs[z]
        k = chosen[chunk_of(z, (shown[0], shown[-1]))]
        torch.testing.assert_close(pair[1], bench._pixels(query)[z])
        torch.testing.assert_close(pair[0], bench._pixels(teacher)[k])
        assert float(mask.mean()) == pytest.approx((teacher.labels[k] == 1).mean())


def test_the_loop_is_scaled_from_the_timed_pairs_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_time_loop", lambda encoder, jobs: bench.Seconds(0.5, 1.0).scaled(len(jobs)))
    monkeypatch.setattr(bench, "_time_segmenter", lambda *_: (bench.Seconds(4.0, 8.0), bench.Seconds(2.0, 4.0)))
    monkeypatch.setattr(bench, "_time_carry", lambda *_: bench.Seconds(1.0, 2.0))
    monkeypatch.setattr(bench, "_encoder", lambda checkpoint: (None, checkpoint))
    found = bench.run(checkpoint="c", pairs=5, shape=(12, 64, 64))
    assert (found.published_pairs, found.published_of, found.published) == (5, 48, bench.Seconds(24.0, 48.0))
    assert (found.ratio, found.ratio_alpnet) == (12.0, 12.0)


def test_registration_and_labels_are_timed_on_features_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([9.0, 3.0, 1.0, 2.0])

    def seconds(work: Callable[[], object]) -> bench.Seconds:
        work()
        return bench.Seconds(next(ticks), 0.0)

    monkeypatch.setattr(bench, "_seconds", seconds)
    teacher, query = (make_patient(seed, shape=(6, 64, 64)) for seed in (1, 2))
    assert bench._time_carry(create_encoder().eval(), teacher, query, repeats=3).wall == 2.0


def test_the_command_prints_and_writes_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {
        name: bench.Seconds(wall, 1.5)
        for name, wall in (("match", 3.0), ("carry", 1.25), ("first_match", 5.0), ("alpnet", 4.0), ("published", 36.0))
    }
    counts = {"published_pairs": 5, "published_of": 144, "ratio": 12.0, "ratio_alpnet": 9.0, "peak_memory_mb": 900.0}
    result = bench.Benchmark("e", (36, 256, 256), 4, **times, **counts, machine=machine_facts())
    monkeypatch.setattr(bench, "run", lambda **options: result)
    page = bench.page_bench.PageBenchmark((36, 256, 256), 9.0, 6.5, 700.0, 1300.0)
    monkeypatch.setattr(bench.page_bench, "measure", lambda checkpoint: page if checkpoint == "" else None)
    bench.main(["--json", str(tmp_path / "bench.json")])
    printed = capsys.readouterr().out
    assert "registration and labels" in printed and "1.25" in printed
    assert "36 slices of 256 x 256" in printed and '"ratio": 12.0' in printed
    written = json.loads((tmp_path / "bench.json").read_text())
    assert "from Apply to the result: 6.5 s (9.0 s" in printed.replace("\n", " ") and written["page"]["model_mb"] == 1300.0
    assert written["match"] == {"wall": 3.0, "cpu": 1.5} and written["machine"]["threads"] == torch.get_num_threads()
