"""Calibration of the expected Dice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_folder import write_folder
from tiny_encoder import TinyEncoder
from typer.testing import CliRunner

from fewshotseg_training.calibrate import FEATURES, Fit, app, judge, left_out, read_rows
from FewShotSegLib import grid
from FewShotSegLib.cards import Card
from FewShotSegLib.cohort.features import DESCRIPTIONS
from FewShotSegLib.cohort.quality import FILE, Calibration
from FewShotSegLib.devices import FeatureRunner


def rows(dataset: str, count: int, seed: int) -> list[dict]:
    """Organs whose Dice follows the share; one in ten was not found."""
    rng, made = np.random.default_rng(seed), []
    for number in range(count):
        share = float(rng.uniform(0.1, 1))
        features = {name: float(rng.normal()) * 0.1 for name in FEATURES} | {"votes": share}
        row = {
            "dataset": dataset,
            "checkpoint": "fold",
            "support": "a",
            "case": str(number),
            "dice": share**2,
            "features": features,
        }
        made.append(row if number % 10 else row | {"dice": 0.0, "features": {}})
    return made


def write(path: Path, made: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def test_judged_by_rank_and_by_failures_among_the_least_sure() -> None:
    true = [0.1, 0.9, 0.8, 0.7, 0.95, 0.6, 0.85, 0.4, 0.75, 0.65]
    perfect = judge(true, true, [1 - value for value in true])
    assert (perfect.spearman, perfect.spearman_of_confidence, perfect.failures, perfect.failures_found) == (1.0, -1.0, 2, 2)
    missed = judge([0.9, *true[1:]], true, true)
    assert missed.failures_found == 1 and missed.error == pytest.approx(0.08)


def test_a_data_set_that_is_left_out_does_not_teach() -> None:
    mine, misleading = rows("mine", 40, 0), rows("other", 40, 1)
    for row in misleading:
        if row["features"]:
            row["dice"] = 1 - row["features"]["votes"]  # more votes, less Dice: no weight may say so
    assert (
        left_out([*mine, *misleading], "mine", Fit()).spearman
        < 0.9
        < left_out([*mine, *rows("b", 40, 2)], "mine", Fit()).spearman
    )


def test_fit_writes_a_calibration_with_what_it_is_from(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.jsonl", rows(name, 30, seed)) for seed, name in enumerate(("one", "two"))]
    done = CliRunner().invoke(app, ["fit", *map(str, files), "--output", str(tmp_path)])
    assert done.exit_code == 0 and "one left out of the fit" in done.output and "all data sets left out in turn" in done.output
    made = Calibration.read(tmp_path / FILE)
    assert made.made_from["fitted_on"] == {name: {"pairs": 30, "organs": 30} for name in ("one", "two")}
    assert made.made_from["left_out"]["one"]["spearman"] > 0.9
    assert made.features == FEATURES and FEATURES[int(np.argmax(made.weights))] == "votes"
    other = write(tmp_path / "other.jsonl", rows("three", 30, 5))
    told = CliRunner().invoke(app, ["judge", str(other), "--calibration", str(tmp_path / FILE)]).output
    assert float(told.split("spearman=")[1].split(",")[0]) > 0.9
    only = CliRunner().invoke(app, ["fit", *map(str, files), "--feature", "steady", "--ridge", "1"])
    assert only.exit_code == 0 and "votes" not in only.output


def test_collect_measures_every_pair_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "DEFAULT_PIXELS", 128)
    monkeypatch.setattr(FeatureRunner, "_bf16_is_faster", lambda self: False)
    monkeypatch.setattr("FewShotSegLib.segmenter.load_checkpoint", lambda name: (TinyEncoder(), Card("tiny", modalities=["MR"])))
    command = ["collect", str(write_folder(tmp_path, ["p", "q"])), str(tmp_path / "found.jsonl"), "--checkpoint", "tiny"]
    cases = ["--case", "p", "--case", "q"]
    assert CliRunner().invoke(app, [*command, *cases, "--limit", "1"]).exit_code == 0
    first = read_rows([tmp_path / "found.jsonl"])
    assert {(row["support"], row["case"]) for row in first} == {("q", "p")} or len({row["case"] for row in first}) == 1
    assert [set(row["features"]) for row in first if row["features"]] == [set(DESCRIPTIONS)] * sum(
        bool(r["features"]) for r in first
    )
    assert CliRunner().invoke(app, [*command, *cases]).exit_code == 0
    both = read_rows([tmp_path / "found.jsonl"])
    assert both[: len(first)] == first and {(row["support"], row["case"]) for row in both} == {("p", "q"), ("q", "p")}
