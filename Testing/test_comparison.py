"""Comparisons: cells kept on disk, methods that fail, tables, figures and pages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from FewShotSegLib.cli import app
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.comparison import CompareConfig, cells, compare
from FewShotSegLib.evaluation.comparison_report import HEADINGS, markdown, write_comparison
from FewShotSegLib.evaluation.config import EvaluateConfig
from FewShotSegLib.evaluation.figures import box_plots, extreme_cases, pictures
from FewShotSegLib.evaluation.isolated import evaluate_apart
from FewShotSegLib.evaluation.result import EvaluationResult, Record
from FewShotSegLib.evaluation.run import evaluate

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiny scans of one bright organ that moves a little."""
    folder = tmp_path_factory.mktemp("chaos_t2")
    for case in range(3):
        labels = np.zeros((8, 24, 24), np.uint8)
        labels[2:6, 6 + case : 14 + case, 6:14] = 1
        image = labels * 100.0 + np.random.default_rng(case).normal(0, 1, labels.shape)
        for name, array in (("image", image.astype(np.float32)), ("label", labels)):
            sitk.WriteImage(sitk.GetImageFromArray(array), os.fspath(folder / f"{case}_{name}.nii.gz"))
    described = {"name": "tiny", "modality": "MR", "labels": {"1": "organ"}, "cases": ["0", "1", "2"]}
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


def options(folder: Path, output: Path, **more: object) -> CompareConfig:
    return CompareConfig((folder,), ("paste",), ("full-volume", "oracle-z"), output, **more)  # type: ignore[arg-type]


def fake(config: EvaluateConfig) -> EvaluationResult:
    dice = {"paste": 0.4, "match": 0.9}[config.method]
    records = [Record(None, "2", str(case), "organ", dice + 0.01 * case, 0.5, 3.0, dice, 0.8, 2.0) for case in range(5)]
    return EvaluationResult("chaos_t2", config.method, config.described, config.to_json(), tuple(records), ("a note",), {})


def test_every_combination_is_a_cell_with_its_own_file(tmp_path: Path) -> None:
    config = CompareConfig((tmp_path / "a", tmp_path / "b"), ("match", "paste"), ("oracle-z", "same-scan:3"), tmp_path)
    found = list(cells(config))
    assert len({cell.path for cell in found}) == len(found) == 8
    assert found[-1].config.protocol == "same-scan" and found[-1].config.slices_drawn == 3


@pytest.mark.parametrize(
    "change", [{"methods": ("magic",)}, {"protocols": ("same-scan:x",)}, {"methods": ()}, {"protocols": ("same-scan",)}]
)
def test_a_comparison_that_cannot_be_is_refused_before_anything_runs(tmp_path: Path, change: dict[str, tuple[str, ...]]) -> None:
    given = {"methods": ("match",), "protocols": ("oracle-z",)} | change
    with pytest.raises(ConfigError):
        CompareConfig((tmp_path,), output=tmp_path, **given)


def test_real_baselines_are_measured_kept_and_not_measured_again(folder: Path, tmp_path: Path) -> None:
    config, calls = options(folder, tmp_path), []

    def measure(given: EvaluateConfig) -> EvaluationResult:
        calls.append(given.method)
        return evaluate(given)

    first = compare(config, measure)
    assert first[0].result is None and "protocol full-volume" in first[0].reason  # it cannot know where an organ ends
    again = compare(config, measure)
    assert len(calls) == 3  # what was measured is kept, what could not be is tried again
    assert again[1].result.to_json() == first[1].result.to_json()  # type: ignore[union-attr]
    compare(options(folder, tmp_path, limit=1), measure)
    assert len(calls) == 5  # another configuration is measured anew


def test_a_damaged_file_is_measured_again(tmp_path: Path) -> None:
    config = CompareConfig((tmp_path / "chaos_t2",), ("match",), ("oracle-z",), tmp_path)
    compare(config, fake)
    path = next(cells(config)).path
    path.write_text(path.read_text()[:200])
    assert compare(config, fake)[0].result is not None
    assert json.loads(path.read_text())["method"] == "match"


def test_tables_figures_and_page(tmp_path: Path) -> None:
    outcomes = compare(CompareConfig((tmp_path / "chaos_t2",), ("match", "paste"), ("oracle-z",), tmp_path), fake)
    text = markdown(outcomes)
    assert "| match | 92.0 |" in text and "0 of 5" in text and "5 of 5" in text
    plots = box_plots(outcomes)
    assert plots[("chaos_t2", "oracle-z")].startswith(PNG)
    page = write_comparison(tmp_path, outcomes, plots, {})
    html = page.read_text()
    assert "data:image/png;base64," in html and "a note" in html and "http" not in html
    assert (tmp_path / "chaos_t2" / "oracle-z.png").read_bytes().startswith(PNG)


def test_who_was_told_more_and_who_could_not_be_measured_is_said(folder: Path, tmp_path: Path) -> None:
    outcomes = compare(options(folder, tmp_path), evaluate)
    text = markdown(outcomes)
    assert "| paste | - | -" in text and "\n- paste was not measured. The baseline paste with the protocol full-volume" in text
    assert "| paste, told the extents |" in text and text.count("\nOracle-z, scored") == 1
    html = write_comparison(tmp_path, outcomes, {}, {}).read_text()
    assert "<li>paste was not measured." in html


def test_the_command_prints_whole_rows_and_writes_the_page(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However narrow the terminal is; a scan that teaches itself says nothing about the choice of supports."""
    monkeypatch.setattr("FewShotSegLib.evaluation.isolated.evaluate_apart", evaluate)
    monkeypatch.setenv("COLUMNS", "60")
    words = ["--method", "paste", "--protocol", "oracle-z", "--protocol", "same-scan:1", "--support", "all"]
    done = CliRunner().invoke(app, ["compare", str(folder), "--output", str(tmp_path), *words, "--pictures", "1"])
    assert done.exit_code == 0, done.output
    carried, same = ([cell.strip() for cell in line.split("|")] for line in done.output.splitlines() if "| paste" in line)
    assert len(carried) == len(same) == len(HEADINGS) + 2
    assert " to " in carried[4] and same[4] == "-" and " to " in same[3]
    assert (tmp_path / "comparison.html").read_text().count("data:image/jpeg") == 4


def test_the_worst_cases_come_first_and_no_case_twice(tmp_path: Path) -> None:
    result = fake(EvaluateConfig(tmp_path, "match"))
    assert [record.case for _, record in extreme_cases(result)] == ["0", "1", "2", "4"]
    assert [record.case for _, record in extreme_cases(result, worst=9)] == ["0", "1", "2", "3", "4"]


def test_pictures_of_cases_are_segmented_again(folder: Path) -> None:
    config = EvaluateConfig(folder, "paste", protocol="oracle-z")
    found = pictures(config, evaluate(config), worst=1)
    assert [p.case for p in found] == ["0", "1"] and all(p.jpeg.startswith(b"\xff\xd8") for p in found)


def test_an_evaluation_apart_tells_its_memory(folder: Path) -> None:
    config = EvaluateConfig(folder, "paste", protocol="oracle-z", limit=1)
    apart = evaluate_apart(config)
    assert apart.machine["peak_memory_mb"] > 50
    assert apart.records[0].dice == evaluate(config).records[0].dice
    with pytest.raises(ConfigError, match="full-volume"):
        evaluate_apart(EvaluateConfig(folder, "paste"))
