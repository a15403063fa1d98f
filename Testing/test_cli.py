from __future__ import annotations

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_folder import write_folder

from FewShotSegLib.cli import app, main
from FewShotSegLib.commands import options
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.volume import Volume

STARTUP = """
import resource, sys
from FewShotSegLib.cli import main
code = main(["--help"])
heavy = sorted({"torch", "numpy", "SimpleITK", "scipy", "skimage"} & set(sys.modules))
used = resource.getrusage(resource.RUSAGE_SELF)
print(code, heavy, used.ru_utime + used.ru_stime, file=sys.stderr, sep=";")
"""


@dataclass
class Run:
    code: int
    out: str
    err: str


def run(*arguments: object) -> Run:
    """The command line in this process, on a wide terminal."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("COLUMNS", "250")
        code = main([str(argument) for argument in arguments])
    return Run(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def drawn(clinic: Path, tiny_checkpoint: Path) -> list[object]:
    """The options of a job with one drawn slice of the liver."""
    support = ["--support-image", clinic / "a.nii.gz", "--support-labels", clinic / "a.seg.nrrd", "--support-slices", "4"]
    return ["segment", *support, "--organ", "liver", "--checkpoint", tiny_checkpoint]


# ------------------------------------------------------------------------------------------------ as a whole


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", STARTUP], capture_output=True, text=True, check=True)
    code, heavy, seconds = done.stderr.strip().split(";")
    assert (code, heavy) == ("0", "[]")
    assert float(seconds) < 1.5
    for command in ("segment", "evaluate", "methods", "checkpoints", "demo", "info"):
        assert re.search(rf"\b{command}\b", done.stdout)


@pytest.mark.parametrize("command", ["segment", "evaluate", "methods", "checkpoints", "demo", "info"])
def test_every_command_explains_itself(command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0 and f"fewshotseg {command}" in done.out


def test_an_error_is_three_lines_without_traceback() -> None:
    done = run("info", "no such file.nii")
    assert done.code == 2 and done.out == ""
    found, expected, action = done.err.splitlines()
    assert found == "Found:      no such file.nii does not exist"
    assert expected.startswith("Expected:   an image file") and action == "What to do: check the path"


def test_debug_anywhere_shows_where_an_error_arose() -> None:
    for arguments in (["--debug", "info", "x.nii"], ["info", "x.nii", "--debug"]):
        done = run(*arguments)
        assert done.code == 2
        assert "Traceback" in done.err and "image_files.py" in done.err
        assert "What to do: check the path" in done.err


def test_unknown_options_and_commands_are_refused() -> None:
    assert run("info").code == run("segmnt").code == run("segment", "--nonsense").code == 2


def test_ctrl_c_ends_a_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("FewShotSegLib.methods.list_methods", lambda: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    done = run("methods")
    assert done.code == 130 and "cancelled" in done.err and "Traceback" not in done.err
    assert signal.getsignal(signal.SIGINT) is before


def test_the_console_script_takes_the_arguments_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fewshotseg", "info", "nothing.nrrd"])
    assert main() == 2
    assert app.info.epilog is not None and "--debug" in app.info.epilog


# ------------------------------------------------------------------------------------------------ segment


def test_segment_to_a_file(drawn: list[object], clinic: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "result.nrrd"
    done = run(*drawn, "--query", clinic / "a.nii.gz", "--output", out, "--option", "drawn_sigma=2.5")
    assert done.code == 0, done.err
    assert re.search(r"liver +│ +\d+\.\d │ +0\.\d\d", done.out) and str(out) in done.out
    assert "done in" in done.err
    assert sorted(path.name for path in out.parent.iterdir()) == ["result.nrrd", "result.run.json"]
    truth = read_labels(clinic / "a.seg.nrrd")
    assert np.array_equal(Volume.read(out).array[4] == 1, truth.mask(truth.segments[0])[4])
    record = json.loads((out.parent / "result.run.json").read_text())
    assert record["method_options"]["drawn_sigma"] == 2.5 and record["supports"][0]["drawn"] == {"liver": [4]}


def test_a_failing_query_is_told_and_the_others_still_run(drawn: list[object], clinic: Path, tmp_path: Path) -> None:
    queries = ["--query", clinic / "missing.nii.gz", "--query", clinic / "a.nii.gz"]
    done = run(*drawn, *queries, "--output", tmp_path / "out", "--report", tmp_path / "report")
    assert done.code == 1
    assert "missing.nii.gz: no result" in done.err and "does not exist" in done.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.seg.nrrd"]
    assert str(tmp_path / "report" / "report.html") in done.out
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"01_a.png", "report.html", "run.json"}


def test_several_supports(clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Any] = []
    monkeypatch.setattr("FewShotSegLib.job.run", lambda job, listener: jobs.append(job) or [])
    pair = ["--support-image", clinic / "a.nii.gz", "--support-labels", clinic / "a.seg.nrrd"]
    rest = ["--query", clinic / "b.nii.gz", "--output", tmp_path / "x.seg.nrrd", "--probabilities", "--method", "alpnet"]
    slices = ["--support-slices", "2,4-5", "--support-slices", "all"]
    assert run("segment", *pair, *pair, *slices, "--organ", "3=left kidney", *rest, "--option", "faithful=true").code == 0
    (job,) = jobs
    assert [drawing.slices for drawing in job.drawings] == [(2, 4, 5), "all"]
    assert job.organs == ("3",) and job.names == {3: "left kidney"}
    assert job.config.probabilities and (job.config.method, job.config.options) == ("alpnet", {"faithful": True})


def test_images_and_labels_must_pair(clinic: Path, tmp_path: Path) -> None:
    image = ["--support-image", clinic / "a.nii.gz"]
    rest = ["--support-labels", clinic / "a.seg.nrrd", "--query", clinic / "b.nii.gz", "--output", tmp_path / "x"]
    done = run("segment", *image, *image, *rest)
    assert done.code == 2 and "2 support images and 1 support labels" in done.err


@pytest.mark.parametrize(
    ("text", "slices"), [("auto", "auto"), ("all", "all"), ("17", (17,)), ("3-5, 9", (3, 4, 5, 9)), ("0,2", (0, 2))]
)
def test_slices(text: str, slices: object) -> None:
    assert options.slices(text) == slices


@pytest.mark.parametrize("text", ["", "first", "3-", "-3", "1-2-3", "1;2", "1.5"])
def test_slices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="17,30"):
        options.slices(text)


def test_slices_once_or_once_per_support() -> None:
    assert options.one_each(None, 2, "auto") == ["auto", "auto"]
    assert options.one_each(["3"], 2, "auto") == ["3", "3"]
    assert options.one_each(["3", "all"], 2, "auto") == ["3", "all"]
    with pytest.raises(ConfigError, match="2 times --support-slices for 3 supports"):
        options.one_each(["3", "4"], 3, "auto")


def test_organs_by_name_number_and_new_name() -> None:
    assert options.organs(None) == (None, {})
    assert options.organs(["liver", "3", "4=my spleen"]) == (("liver", "3", "4"), {4: "my spleen"})


def test_method_options_have_the_type_they_look_like() -> None:
    assert options.method_options(["a=1", "b=2.5", "c=True", "d=ends"]) == {"a": 1, "b": 2.5, "c": True, "d": "ends"}
    with pytest.raises(ConfigError, match="key=value"):
        options.method_options(["sigma"])


# ------------------------------------------------------------------------------------------------ the other commands


def test_methods_and_their_options_are_listed() -> None:
    done = run("methods")
    assert done.code == 0
    for text in ("match", "alpnet", "visa", "sigma=3.0", "faithful=False"):
        assert text in done.out


def test_checkpoints_are_listed(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEWSHOTSEG_CACHE", str(tmp_path))
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for path in (tiny_checkpoint, tiny_checkpoint.with_suffix(".json")):
        (folder / path.name).symlink_to(path)
    done = run("checkpoints")
    assert done.code == 0 and "random weights, for tests" in done.out


def test_info_of_a_scan(clinic: Path) -> None:
    done = run("info", clinic / "a.nii.gz")
    assert done.code == 0
    for text in ("64 × 64 × 8", "5 × 5 × 34.65", "not declared", "int16", "256 × 256 pixels of 1.25 mm"):
        assert text in done.out


def test_info_of_a_segmentation(clinic: Path) -> None:
    done = run("info", clinic / "a.seg.nrrd")
    labels = read_labels(clinic / "a.seg.nrrd")
    ml = labels.mask(labels.segments[0]).sum() * labels.geometry.voxel_ml
    assert re.search(rf"liver +│ label 1, {ml:.1f} mL, slices \d to 7", done.out)
    assert "left kidney" in done.out


def test_info_of_a_checkpoint(tiny_checkpoint: Path) -> None:
    for path in (tiny_checkpoint, tiny_checkpoint.with_suffix(".json")):
        done = run("info", path)
        assert "random weights, for tests" in done.out and "resnet50v2, 16 channels" in done.out


def test_evaluate_measures_and_writes(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "bricks", ["p", "q", "r"])
    done = run("evaluate", folder, "--method", "paste", "--protocol", "oracle-z", "--json", tmp_path / "result.json")
    assert done.code == 0, done.err
    assert "liver" in done.out and str(tmp_path / "result.json") in done.out
    result = json.loads((tmp_path / "result.json").read_text())
    assert 0 < result["mean_dice"] <= 100 and {record["case"] for record in result["records"]} == {"p", "q"}


def test_evaluate_hands_every_option_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[Any] = []

    def measure(config: Any, on_scan: Any) -> None:
        configs.append(config)
        raise ConfigError("enough")

    monkeypatch.setattr("FewShotSegLib.evaluation.run.evaluate", measure)
    choice = ["--method", "alpnet", "--strategy", "direct", "--protocol", "same-scan", "--slices-drawn", "3"]
    which = ["--slice-rule", "ends", "--support", "all", "--fold", "0", "--fold", "2", "--organ", "liver", "--limit", "4"]
    done = run("evaluate", tmp_path, *choice, *which, "--checkpoint-template", "fold{fold}", "--seed", "7", "--device", "cpu")
    assert done.code == 2
    (config,) = configs
    assert (config.method, config.strategy, config.protocol, config.slices_drawn) == ("alpnet", "direct", "same-scan", 3)
    assert (config.slice_rule, config.support, config.folds, config.organs) == ("ends", "all", (0, 2), ("liver",))
    assert (config.limit, config.checkpoint_template, config.seed, config.device) == (4, "fold{fold}", 7, "cpu")
    run("evaluate", tmp_path, "--folds")
    assert configs[1].folds is True and configs[1].checkpoint is None and configs[1].json is None


def test_evaluate_refuses_options_that_do_not_fit(tmp_path: Path) -> None:
    done = run("evaluate", tmp_path, "--protocol", "same-scan")
    assert done.code == 2 and "slices_drawn" in done.err
