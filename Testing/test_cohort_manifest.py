from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cohort_folder import make_cohort, make_scan

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.manifest import Case, plan, safe_name
from FewShotSegLib.errors import ConfigError


@pytest.fixture
def config(tmp_path: Path) -> CohortConfig:
    return make_cohort(tmp_path, 3)


def listed(config: CohortConfig, text: str, encoding: str = "utf-8") -> list[Case]:
    path = config.source / "list.csv"
    path.write_text(text, encoding=encoding)
    return plan(replace(config, source=path))


def test_a_folder_gives_its_scans_and_nothing_else(config: CohortConfig) -> None:
    folder = config.source
    (folder / "deep" / "er").mkdir(parents=True)
    scan = make_scan(0)[0]
    scan.write(folder / "deep" / "er" / "x y.nrrd")
    scan.write(folder / ".hidden.nii")
    for name in ("notes.txt", "s000.seg.nrrd", "table.csv"):
        (folder / name).write_text("")
    (folder / "dicom").mkdir()
    (folder / "dicom" / "IM1").write_bytes(bytes(128) + b"DICM")
    assert [case.name for case in plan(config)] == ["s000", "s001", "s002", "deep_er_x_y", "dicom"]
    assert plan(config)[-1].image == folder / "dicom"


def test_supports_and_own_results_are_not_scans(config: CohortConfig, tmp_path: Path) -> None:
    inside = replace(config, source=tmp_path, output=tmp_path / "out")
    (tmp_path / "out" / "results").mkdir(parents=True)
    make_scan(0)[0].write(tmp_path / "out" / "results" / "old.nii")
    assert [case.name for case in plan(inside)] == ["scans_s000", "scans_s001", "scans_s002"]


def test_a_pattern_chooses(config: CohortConfig) -> None:
    assert [case.name for case in plan(replace(config, pattern="*1.nii"))] == ["s001"]
    with pytest.raises(ConfigError, match="no scan named"):
        plan(replace(config, pattern="*.mha"))


def test_files_of_one_name_are_told_apart_by_their_type(config: CohortConfig) -> None:
    make_scan(0)[0].write(config.source / "s000.nrrd")
    assert [case.name for case in plan(config)][:2] == ["s000", "s000_nrrd"]


def test_a_csv_names_cases_and_series(config: CohortConfig) -> None:
    cases = listed(config, "\ufeffName; Image ;series;remark\nfirst; s000.nii;;x\n;s001.nii;7;\n")
    assert [(c.name, c.image.name, c.series, c.line, c.problem) for c in cases] == [
        ("first", "s000.nii", "", 2, ""),
        ("s001", "s001.nii", "7", 3, ""),
    ]


def test_bad_rows_keep_their_line_and_do_not_stop_the_others(config: CohortConfig) -> None:
    cases = listed(config, "image,name\ns000.nii,a\n,b\nmissing.nii,\ns001.nii,A\n")
    assert [case.name for case in cases] == ["a", "line-3", "missing", "A-line-5"]
    assert [bool(case.problem) for case in cases] == [False, True, True, True]
    assert "Line 3 of list.csv has no image" in cases[1].problem
    assert "Line 4" in cases[2].problem and "does not exist" in cases[2].problem
    assert "line 2" in cases[3].problem


@pytest.mark.parametrize("text", ["", "scan,name\na.nii,b\n"])
def test_a_csv_without_images_is_refused(config: CohortConfig, text: str) -> None:
    with pytest.raises(ConfigError, match="no column 'image'"):
        listed(config, text)


def test_a_csv_in_another_encoding_is_refused(config: CohortConfig) -> None:
    with pytest.raises(ConfigError, match="UTF-8"):
        listed(config, "image\nBäuche.nii\n", "latin-1")


def test_a_missing_list_is_refused(config: CohortConfig) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        plan(replace(config, source=config.source / "nothing"))


def test_shards_are_the_whole_list_without_overlap(config: CohortConfig) -> None:
    parts = [[case.name for case in plan(replace(config, shard=(i, 2)))] for i in (1, 2)]
    assert sorted(parts[0] + parts[1]) == ["s000", "s001", "s002"] and not set(parts[0]) & set(parts[1])


@pytest.mark.parametrize("shard", [(0, 2), (3, 2)])
def test_impossible_shards_are_refused(config: CohortConfig, shard: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="Shard"):
        replace(config, shard=shard)


def test_names_are_valid_file_names() -> None:
    assert safe_name("../a b/ü:c") == "a_b_ü_c" and safe_name("...") == "scan" and len(safe_name("x" * 500)) == 120
