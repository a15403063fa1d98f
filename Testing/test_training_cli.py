"""The command `fewshotseg-train`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from fewshotseg_training import cli  # noqa: E402
from fewshotseg_training.fit import FitConfig, Paused, fit  # noqa: E402
from fewshotseg_training.prepare import PrepareConfig, Prepared  # noqa: E402
from FewShotSegLib.cards import Card  # noqa: E402
from FewShotSegLib.checkpoints import load_checkpoint, save_checkpoint  # noqa: E402
from FewShotSegLib.encoders import create_encoder  # noqa: E402
from FewShotSegLib.errors import CheckpointError, ConfigError  # noqa: E402


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture()
def cache(tmp_path: Path) -> tuple[Path, Path]:
    """Two prepared data sets, by their file names only."""
    for name, cases in (("mr", ("01", "02", "03")), ("ct", ("01", "07"))):
        (tmp_path / name).mkdir()
        for case in cases:
            (tmp_path / name / f"{case}.npz").touch()
        (tmp_path / name / "99.npz.part").touch()
    return tmp_path / "mr", tmp_path / "ct"


@pytest.fixture()
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[FitConfig]:
    """The configurations that `fit` was called with."""
    calls: list[FitConfig] = []

    def pretend(config: FitConfig) -> Path:
        calls.append(config)
        return Path(config.out) / "encoder.safetensors"

    monkeypatch.setattr(cli, "fit", pretend)
    return calls


def used(config: FitConfig) -> list[list[str]]:
    return [[f"{Path(f).parent.name}:{Path(f).stem}" for f in files] for files in config.data]


def test_prepare_says_what_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Path, Path, int]] = []

    def pretend(folder: Path, cache: Path, config: PrepareConfig, **options: object) -> Prepared:
        calls.append((folder, cache, config.min_size))
        return Prepared([cache / "a.npz", cache / "b.npz"], {"c": "it is empty"})

    monkeypatch.setattr("fewshotseg_training.prepare.prepare_folder", pretend)
    result = run("prepare", tmp_path / "heart", tmp_path / "cache", "--min-size", 1000)
    assert result.exit_code == 0 and "2 scans of heart are ready" in result.output
    assert "Skipped c: it is empty" in result.output
    run("prepare", tmp_path / "belly", tmp_path / "cache")
    assert calls == [(tmp_path / "heart", tmp_path / "cache", 1000), (tmp_path / "belly", tmp_path / "cache", 5000)]


def test_fit_trains_on_every_prepared_scan(cache: tuple[Path, Path], fitted: list[FitConfig], tmp_path: Path) -> None:
    result = run("fit", *cache, "--out", tmp_path / "run", "--steps", 7, "--seed", 3, "--weights", tmp_path / "w.safetensors")
    assert result.exit_code == 0 and "encoder.safetensors" in result.output
    (config,) = fitted
    assert (config.method, config.pairs, config.lr, config.schedule, config.options) == ("carry", 4, 1e-2, "poly", ())
    assert used(config) == [["mr:01", "mr:02", "mr:03"], ["ct:01", "ct:07"]]
    assert (config.out, config.steps, config.seed) == (str(tmp_path / "run"), 7, 3)
    assert config.weights == str(tmp_path / "w.safetensors")


def test_scans_can_be_left_out(cache: tuple[Path, Path], fitted: list[FitConfig], tmp_path: Path) -> None:
    assert run("fit", *cache, "--out", tmp_path / "run", "--leave-out", "mr:01,03;ct:07").exit_code == 0
    assert used(fitted[0]) == [["mr:02"], ["ct:01"]]


@pytest.mark.parametrize("leave_out", ["mr:1", "MR:01", "mr:01,04", "heart:01", "mr"])
def test_a_scan_to_leave_out_that_is_not_there_stops_the_training(
    cache: tuple[Path, Path], fitted: list[FitConfig], tmp_path: Path, leave_out: str
) -> None:
    """A slip of the pen must not put a tested scan into the training."""
    result = run("fit", *cache, "--out", tmp_path / "run", "--leave-out", leave_out)
    assert isinstance(result.exception, ConfigError) and "names scans that are not there" in str(result.exception)
    assert fitted == []


def test_a_fold_leaves_out_what_the_evaluation_tests(tmp_path: Path, fitted: list[FitConfig]) -> None:
    """Fold 1 of ten scans: queries 3 and 5, support 8, by number and not by letters; one that failed counts."""
    ids = ["1", "2", "3", "5", "8", "10", "13", "15", "19", "20"]
    (tmp_path / "mr").mkdir()
    for case in ids[1:]:
        (tmp_path / "mr" / f"{case}.npz").touch()
    (tmp_path / "mr" / "prepare.json").write_text(json.dumps({"done": ids[1:], "failed": {"1": "broken"}}))
    assert run("fit", tmp_path / "mr", "--out", tmp_path / "run", "--fold", 1).exit_code == 0
    assert set(used(fitted[0])[0]) == {f"mr:{i}" for i in ids[1:] if i not in ("3", "5", "8")}
    assert isinstance(run("fit", tmp_path / "mr", "--out", tmp_path / "run", "--fold", 5).exception, ConfigError)


def test_a_training_whose_time_is_over_says_so(cache: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pause(config: FitConfig) -> Path:
        raise Paused(f"paused after {config.minutes} minutes")

    monkeypatch.setattr(cli, "fit", pause)
    result = run("fit", *cache, "--out", tmp_path / "run", "--minutes", 2.5, "--curves", 0.5)
    assert result.exit_code == cli.PAUSED == 75 and "paused after 2.5 minutes" in result.output


def test_a_folder_without_scans_is_refused(cache: tuple[Path, Path], fitted: list[FitConfig], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folders, left_out in (([*cache, tmp_path / "empty"], ""), (cache, "ct:01,07")):
        result = run("fit", *folders, "--out", tmp_path / "run", "--leave-out", left_out)
        assert result.exit_code == 2 and "No prepared scans" in result.output
    assert fitted == []


def test_a_method_brings_its_own_settings(cache: tuple[Path, Path], fitted: list[FitConfig], tmp_path: Path) -> None:
    words = ["--out", tmp_path / "run", "--option", "stage=1", "--base", "some", "--exclude", "2,3", "--exclude-rule", "all"]
    assert run("fit", *cache, "--method", "visa", *words).exit_code == 0
    assert run("fit", *cache, "--method", "alpnet", "--published", "--out", tmp_path / "run").exit_code == 0
    ours, published = fitted
    assert (ours.method, ours.options, ours.base, ours.exclude) == ("visa", (("stage", 1),), "some", (2, 3))
    assert (ours.exclude_rule, ours.lr, ours.pairs, ours.schedule, ours.encoder) == ("all", 1e-3, 4, "cosine", "resnet50v2")
    assert (published.pairs, published.steps, published.schedule, published.encoder) == (1, 100_100, "decay", "resnet101")
    assert (published.clip, published.bf16) == (0.0, False)


@pytest.mark.parametrize("words", [["--exclude", "two"], ["--method", "magic"], ["--method", "alpnet", "--option", "x"]])
def test_slips_of_the_pen_are_told(cache: tuple[Path, Path], fitted: list[FitConfig], tmp_path: Path, words: list[str]) -> None:
    assert run("fit", *cache, "--out", tmp_path / "run", *words).exit_code != 0
    assert fitted == []


def test_a_run_becomes_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    for case in ("01", "02"):
        np.savez(tmp_path / "toy" / f"{case}.npz", image=np.zeros((2, 8, 8)), regions=np.zeros((2, 8, 8)), slice_spacing=5.0)
    files = tuple(str(p) for p in sorted((tmp_path / "toy").glob("*.npz")))
    fit(FitConfig((files,), str(tmp_path / "run"), steps=0, channels=8, seed=4))
    results = [{"dataset": "toy", "protocol": "none", "method": "match", "mean_dice": 1.5, "note": ""}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    words = ["--name", "toy-1", "--modality", "MR", "--licence", "CC0-1.0", "--data-licence", "toy=CC-BY-4.0"]
    result = run("export", tmp_path / "run", tmp_path / "out", *words, "--results", tmp_path / "results.json")
    assert result.exit_code == 0, result.output
    _, card = load_checkpoint(tmp_path / "out" / "toy-1.safetensors")
    assert (card.name, card.channels, card.modalities, card.licence) == ("toy-1", 8, ["MR"], "CC0-1.0")
    assert card.training_data == [{"name": "toy", "licence": "CC-BY-4.0", "scans": 2}]
    assert card.results == results and card.extra["seed"] == 4 and card.extra["objective"] == "carry"
    assert str(tmp_path) not in card.to_json()


def finished_run(folder: Path, sets: dict[str, int], base: str = "") -> str:
    """A run that ended, as far as its card goes; returns its weights."""
    data = tuple(tuple(f"{name}/{i}.npz" for i in range(count)) for name, count in sets.items())
    config = FitConfig(data, str(folder), channels=8, base=base)
    folder.mkdir()
    (folder / "run.json").write_text(config.to_json())
    save_file({k: v.contiguous() for k, v in create_encoder(channels=8).state_dict().items()}, folder / "encoder.safetensors")
    return str(folder / "encoder.safetensors")


def test_a_card_names_what_the_base_has_seen(tmp_path: Path) -> None:
    """From a checkpoint to a run to a run: every data set and the licence come along, unless one is given."""
    known = [{"name": "old", "licence": "CC-BY-NC-4.0", "scans": 9}, {"name": "toy", "licence": "secret", "scans": 2}]
    card = Card("base", training_data=known, licence="research only")
    base = save_checkpoint(create_encoder(channels=8), card, tmp_path)
    first = finished_run(tmp_path / "first", {"toy": 3}, str(base))
    finished_run(tmp_path / "second", {"new": 1}, first)
    assert run("export", tmp_path / "second", tmp_path / "out", "--name", "a", "--data-licence", "new=CC0").exit_code == 0
    _, card = load_checkpoint(tmp_path / "out" / "a.safetensors")
    seen = [{"name": "toy", "licence": "secret", "scans": 3}, {"name": "new", "licence": "CC0", "scans": 1}]
    assert card.training_data == [known[0], *seen] and card.licence == "research only"
    run("export", tmp_path / "second", tmp_path / "out", "--name", "b", "--licence", "mine")
    assert load_checkpoint(tmp_path / "out" / "b.safetensors")[1].licence == "mine"
    base.unlink()
    assert isinstance(run("export", tmp_path / "second", tmp_path / "out", "--name", "c").exception, CheckpointError)


def test_a_training_from_nothing_is_told(cache: tuple[Path, Path], fitted: list[FitConfig], tmp_path: Path) -> None:
    words = ["fit", *cache, "--out", tmp_path / "run"]
    assert "random numbers" in run(*words).output
    for more in (["--base", "some"], ["--weights", "some"], ["--method", "flow"]):
        assert "random numbers" not in run(*words, *more).output


@pytest.mark.parametrize("there", [(), ("run.json",)])
def test_only_finished_runs_are_exported(tmp_path: Path, there: tuple[str, ...]) -> None:
    for name in there:
        (tmp_path / name).write_text("{}")
    result = run("export", tmp_path, tmp_path / "out", "--name", "toy")
    assert isinstance(result.exception, CheckpointError) and not (tmp_path / "out").exists()


def test_errors_are_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fewshotseg-train", "prepare", str(tmp_path), str(tmp_path / "cache")])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert str(stopped.value).startswith(f"fewshotseg-train: {tmp_path}") and "Expected:" in str(stopped.value)
