"""Evaluations that are stopped: what was measured is kept, and the same command goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from evaluation_folder import labels_of, write_folder

from FewShotSegLib.errors import OutputError
from FewShotSegLib.evaluation.comparison import CompareConfig, cells, compare
from FewShotSegLib.evaluation.config import EvaluateConfig
from FewShotSegLib.evaluation.journal import same_options, without_place
from FewShotSegLib.evaluation.result import EvaluationResult
from FewShotSegLib.evaluation.run import evaluate
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

CASES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "bricks", CASES)


class Breaking:
    """Finds the liver only, so that HD95 and NaN are in the records; is killed at a scan."""

    def __init__(self, killed_at: str = "", model: str = "abc") -> None:
        self.killed_at, self.card = killed_at, SimpleNamespace(sha256=model, training_data=[])
        self.seen: list[str] = []

    def segment(self, supports: Support, query: Volume, *, extent: Any = None) -> Segmentation:
        if query.name == self.killed_at:
            raise KeyboardInterrupt
        self.seen.append(query.name)
        labels = np.where(labels_of(CASES.index(query.name)) == 1, 1, 0).astype(np.uint8)
        count = len(supports.organs)
        unsure = np.full(count, np.nan)
        return Segmentation(
            query.geometry, supports.organs, labels, unsure, np.ones((count, len(labels))), notes=(f"seen {query.name}",)
        )


def run(folder: Path, out: Path, segmenter: Breaking, **options: Any) -> EvaluationResult:
    return evaluate(EvaluateConfig(folder, json=out, **options), lambda config, fold: segmenter)


def stopped(folder: Path, out: Path, at: str = "c", **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, out, Breaking(at), **options)
    assert not out.exists() and out.with_suffix(".partial.json").exists()


def test_a_stopped_evaluation_goes_on_with_the_next_scan(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "out.json"
    stopped(folder, out, protocol="oracle-z", method="alpnet")
    again = Breaking()
    found = run(folder, out, again, protocol="oracle-z", method="alpnet")
    assert again.seen == ["c"] and not out.with_suffix(".partial.json").exists()
    whole = run(folder, tmp_path / "whole.json", Breaking(), protocol="oracle-z", method="alpnet")
    for one, other in zip(found.records, whole.records, strict=True):
        assert repr(one)[: repr(one).index("seconds")] == repr(other)[: repr(other).index("seconds")]
    assert found.notes == whole.notes and found.protocol == whole.protocol and "were told" in found.protocol
    assert json.loads(out.read_text())["mean_dice"] == pytest.approx(50)


@pytest.mark.parametrize("change", ["other options", "other model", "damaged"])
def test_what_does_not_fit_is_measured_anew(folder: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "out.json"
    stopped(folder, out)
    again, options = Breaking(model="new" if change == "other model" else "abc"), {}
    if change == "other options":
        options = {"organs": ("liver",)}
    if change == "damaged":
        partial = out.with_suffix(".partial.json")
        partial.write_text(partial.read_text()[:-30])
    run(folder, out, again, **options)
    assert again.seen == ["a", "b", "c"]


def test_an_option_that_is_newer_than_the_file_had_its_default() -> None:
    wanted = without_place(EvaluateConfig("data", limit=3, slice_rule="ends"))
    older = {name: value for name, value in wanted.items() if name not in ("seed", "folds")} | {"json": "elsewhere.json"}
    assert same_options(older, wanted) and not same_options(older, {**wanted, "seed": 1})
    assert not same_options({k: v for k, v in wanted.items() if k != "limit"}, wanted)


def test_each_support_is_a_scan_of_its_own(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    stopped(folder, out, support="all")
    again = Breaking()
    assert len(run(folder, out, again, support="all").records) == 12 * 2
    assert len(again.seen) == 12 - 1  # a taught b, then it was stopped at c


def test_without_a_place_nothing_is_written_and_a_bad_place_is_told_at_once(folder: Path, tmp_path: Path) -> None:
    evaluate(EvaluateConfig(folder), lambda config, fold: Breaking())
    (tmp_path / "file").write_text("")
    segmenter = Breaking()
    with pytest.raises(OutputError):
        run(folder, tmp_path / "file" / "out.json", segmenter)
    assert segmenter.seen == ["a"]


def test_a_comparison_goes_on_inside_a_cell_and_may_move(folder: Path, tmp_path: Path) -> None:
    config = CompareConfig((folder,), ("match",), ("full-volume",), tmp_path / "first")
    with pytest.raises(KeyboardInterrupt):
        compare(config, lambda cell: evaluate(cell, lambda *_: Breaking("b")))
    again = Breaking()
    compare(config, lambda cell: evaluate(cell, lambda *_: again))
    assert again.seen == ["b", "c"]
    (tmp_path / "first").rename(tmp_path / "second")
    moved = CompareConfig((folder,), ("match",), ("full-volume",), tmp_path / "second")
    assert next(cells(moved)).path.exists()
    assert compare(moved, lambda cell: pytest.fail("measured again"))[0].result is not None
