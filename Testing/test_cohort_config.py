from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.job import Drawing
from FewShotSegLib.segmenter_config import SegmenterConfig

CONFIG = CohortConfig(
    Path("/data/scans"),
    Path("/data/out"),
    (Drawing(Path("/a.nii"), Path("/a.seg.nrrd")), Drawing(Path("/b.nii"), Path("/b.nii.gz"), (3, 7))),
    organs=("liver", 3),
    names={3: "left kidney"},
    segmenter=SegmenterConfig(options={"sigma": 2.0}),
    devices=("cpu", "cuda:1"),
    shard=(2, 5),
)


def test_json_round_trip() -> None:
    assert CohortConfig.from_json(CONFIG.to_json()) == CONFIG


def test_the_file_is_for_all_processes_and_any_place(tmp_path: Path) -> None:
    replace(CONFIG, output=tmp_path / "a").write()
    (tmp_path / "a").rename(tmp_path / "b")
    assert CohortConfig.read(tmp_path / "b") == replace(CONFIG, output=tmp_path / "b", shard=(1, 1))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of a cohort"):
        CohortConfig.read(tmp_path)
    (tmp_path / "cohort.json").write_text('{"source": "x"}')
    with pytest.raises(ConfigError, match="not the configuration"):
        CohortConfig.read(tmp_path)


@pytest.mark.parametrize("change", [{"nearest": 1}, {"organs": None}, {"segmenter": SegmenterConfig()}, {"dry_run": True}])
def test_settings_change_with_what_results_depend_on(change: dict) -> None:
    assert replace(CONFIG, **change).settings("x") != CONFIG.settings("x")


@pytest.mark.parametrize(
    "change",
    [
        {"shard": (1, 1)},
        {"readers": 4},
        {"devices": ()},
        {"source": Path("/x")},
        {"segmenter": replace(CONFIG.segmenter, device="cuda")},
    ],
)
def test_settings_do_not_change_with_where_it_runs(change: dict) -> None:
    assert replace(CONFIG, **change).settings("x") == CONFIG.settings("x") != CONFIG.settings("y")


@pytest.mark.parametrize("wrong", [{"nearest": -1}, {"readers": 0}, {"supports": ()}])
def test_impossible_options_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        replace(CONFIG, **wrong)
