"""`fewshotseg cohort` on the command line."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
from cohort_folder import GEOMETRY, ORGANS, make_cohort, make_scan, use_bright_engine

from FewShotSegLib.cli import main
from FewShotSegLib.cohort.cluster import RayExecutor
from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.run import Tally
from FewShotSegLib.segfiles import write_segmentation

ALL = [f"s{number:03d}" for number in range(4)]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CohortConfig:
    use_bright_engine(monkeypatch)
    return make_cohort(tmp_path, 4)


def call(*arguments: object) -> tuple[int, str]:
    """The exit code, and all that was printed, on a wide terminal."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        patch.setenv("COLUMNS", "250")
        code = main(["cohort", *map(str, arguments)])
    return code, out.getvalue()


def start(config: CohortConfig, *more: object) -> tuple[int, str]:
    drawing = config.supports[0]
    support = ["--support-image", drawing.image, "--support-labels", drawing.labels]
    return call("run", config.source, "--output", config.output, *support, *more)


def test_run_status_correct_and_review(config: CohortConfig, tmp_path: Path) -> None:
    code, told = start(config)
    assert code == 0 and "4 done" in told
    assert CohortConfig.read(config.output) == replace(config, supports=CohortConfig.read(config.output).supports)
    corrected = write_segmentation(GEOMETRY.to_sitk(make_scan(9)[1]), ORGANS, tmp_path / "corrected.seg.nrrd")
    code, told = call("add-support", config.output, "s001", corrected, "--rerun", "all")
    assert code == 0 and "Cases to do again: 3" in told and "3 done" in told
    code, told = call("status", config.output, "--all")
    assert code == 0 and "4 cases: 3 done, 1 corrected" in told and all(name in told for name in ALL)
    code, told = call("review", config.output, "--title", "My patients")
    assert code == 0 and "My patients" in (config.output / "review.html").read_text()


def test_a_run_goes_on_with_what_it_began_with(config: CohortConfig) -> None:
    start(config)
    Places(config.output).result("s002").unlink()
    code, told = call("run", config.output)
    assert code == 0 and "1 done, 3 done before" in told


def test_shards_share_the_work(config: CohortConfig) -> None:
    assert "2 done" in start(config, "--shard", "2/2")[1]
    assert sorted(path.stem for path in Places(config.output).results.glob("*.json")) == ["s001", "s003"]
    assert "2 done" in start(config, "--shard", "1/2")[1]
    assert "4 done before" in start(config)[1]


def test_some_that_fail_are_told_and_seen_in_the_exit_code(config: CohortConfig) -> None:
    (config.source / "s002.nii").write_bytes(b"no scan")
    code, told = start(config)
    assert code == 1 and "3 done" in told and "1 failed" in told
    assert "s002.nii" in call("status", config.output)[1]


def test_a_dry_run_with_a_list(config: CohortConfig) -> None:
    (config.source / "list.csv").write_text("image,name\ns000.nii,first\ns001.nii,second\n")
    code, told = start(replace(config, source=config.source / "list.csv"), "--dry-run")
    assert code == 0 and "2 done" in told and Places(config.output).result("first").is_file()


def test_a_cluster_by_its_address(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(
        "FewShotSegLib.cohort.run.run", lambda config, on_record, cancelled, executor: seen.append(executor) or Tally(done=4)
    )
    assert start(config, "--ray", "head:6379", "--ray-workers", 3, "--ray-cpus", 2)[0] == 0 and start(config)[0] == 0
    assert seen == [RayExecutor("head:6379", 3, 2), None]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--shard", "3"], "Shard '3'"),
        (["--shard", "0/2"], "Shard 0/2"),
        (["--nearest", "-1"], "nearest=-1"),
        (["--support-image", "x.nii"], "2 support images and 1 support labels"),
        (["--ray-workers", "2"], "without --ray"),
    ],
)
def test_wrong_options_are_told(config: CohortConfig, more: list[str], told: str) -> None:
    code, text = start(config, *more)
    assert code != 0 and told in text and not Places(config.output).results.exists()


def test_without_output_or_cohort(config: CohortConfig, tmp_path: Path) -> None:
    assert "No --output" in call("run", config.source)[1]
    for command in ("status", "review"):
        code, told = call(command, tmp_path)
        assert code != 0 and "not the folder of a cohort" in told
