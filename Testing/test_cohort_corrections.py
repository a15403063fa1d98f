"""Corrected cases become supports; what they may change, and nothing else, is done again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cohort_folder import GEOMETRY, ORGANS, make_cohort, make_scan, use_bright_engine

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.corrections import LOG, add_support
from FewShotSegLib.cohort.locks import Locks
from FewShotSegLib.cohort.nearest import Descriptor
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.run import Tally, run
from FewShotSegLib.cohort.status import states
from FewShotSegLib.cohort.supports import read_added
from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.segfiles import read_labels, write_segmentation


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CohortConfig:
    """A cohort of four that is done; the expected Dice of its least sure organs is 0.50, 0.55, 0.60, 0.65."""
    use_bright_engine(monkeypatch)
    config = make_cohort(tmp_path, 4)
    run(config)
    return config


def corrected(folder: Path, seed: int = 9, organs: int = 2) -> Path:
    """Labels as a user would correct them."""
    labels = make_scan(seed)[1]
    return write_segmentation(
        GEOMETRY.to_sitk(labels * (labels <= organs)), ORGANS[:organs], folder / f"corrected{seed}.seg.nrrd"
    )


def record(config: CohortConfig, name: str) -> CaseRecord:
    found = CaseRecord.read(Places(config.output).record(name))
    assert found is not None
    return found


def test_a_correction_is_the_result_and_teaches(config: CohortConfig, tmp_path: Path) -> None:
    before = record(config, "s001")
    added = add_support(config.output, "s001", corrected(tmp_path), rerun="all")
    assert added.again == ("s000", "s002", "s003") and read_added(config.output) == (added.support,)
    mine = record(config, "s001")
    assert mine.status == "corrected" and mine.score == 1.0 and mine.used == ()
    layers = read_labels(Places(config.output).result("s001")).on(GEOMETRY)
    assert np.array_equal(layers.mask(layers.segments[0]), make_scan(9)[1] == 1)
    assert CaseRecord.read(Places(config.output).history("s001", 1) / "s001.json") == before
    line = json.loads((config.output / LOG).read_text())
    assert line["case"] == "s001" and line["rerun"] == "all"
    assert run(config) == Tally(done=3, kept=1)
    assert added.support.id in record(config, "s000").considered and record(config, "s001") == mine
    assert run(config) == Tally(kept=4)


@pytest.mark.parametrize(
    ("alike", "below", "again"), [(0.4, 0.58, ("s000",)), (0.4, 0.1, ()), (0.6, 0.1, ("s000", "s002", "s003"))]
)
def test_only_doubtful_cases_and_those_more_like_it_are_done_again(
    config: CohortConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alike: float, below: float, again: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Descriptor, "similarity", lambda self, other: alike)  # with the support before it is 0.5
    assert add_support(config.output, "s001", corrected(tmp_path), below=below).again == again
    assert run(config) == Tally(done=len(again), kept=4 - len(again))


def test_a_support_that_would_be_among_the_nearest(config: CohortConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Descriptor, "similarity", lambda self, other: 0.4)
    added = add_support(config.output, "s001", corrected(tmp_path), rerun="any", below=0.1)
    assert added.again == ("s000", "s002", "s003")  # one of two, and three may teach


def test_a_second_correction_of_a_case_replaces_the_first(config: CohortConfig, tmp_path: Path) -> None:
    add_support(config.output, "s001", corrected(tmp_path, 9), rerun="none")
    second = add_support(config.output, "s001", corrected(tmp_path, 10), rerun="none")
    assert [support.id for support in read_added(config.output)] == [second.support.id]
    with pytest.raises(ConfigError, match="a support already"):
        add_support(config.output, "s001", corrected(tmp_path, 10))


def test_a_result_that_is_right_teaches_as_it_is(config: CohortConfig) -> None:
    result = Places(config.output).result("s001")
    before = read_labels(result).on(GEOMETRY).masks()
    added = add_support(config.output, "s001", rerun="all")
    assert np.array_equal(read_labels(result).on(GEOMETRY).masks(), before) and before.any()
    assert record(config, "s001").status == "corrected" and added.again == ("s000", "s002", "s003")
    assert run(config) == Tally(done=3, kept=1)
    assert added.support.id in record(config, "s000").considered


def test_a_case_without_a_result_cannot_teach_by_it(config: CohortConfig) -> None:
    Places(config.output).result("s001").unlink()
    with pytest.raises(ConfigError, match="s001 has no result"):
        add_support(config.output, "s001")
    assert read_added(config.output) == ()


def test_what_cannot_be_a_support(config: CohortConfig, tmp_path: Path) -> None:
    before = record(config, "s001")
    with pytest.raises(SupportError, match="no voxel of spleen"):
        add_support(config.output, "s001", corrected(tmp_path, organs=1))
    with pytest.raises(ConfigError, match="s001"):
        add_support(config.output, "s01", corrected(tmp_path))
    with pytest.raises(ConfigError, match="Re-run 'some'"):
        add_support(config.output, "s001", corrected(tmp_path), rerun="some")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="not the folder of a cohort"):
        add_support(tmp_path, "s001", corrected(tmp_path))
    with Locks(Places(config.output).locks) as other:
        other.take("s001")
        with pytest.raises(ConfigError, match="is at s001"):
            add_support(config.output, "s001", corrected(tmp_path))
    assert record(config, "s001") == before and read_added(config.output) == ()


def test_a_cohort_may_be_moved_with_its_corrections(config: CohortConfig, tmp_path: Path) -> None:
    add_support(config.output, "s001", corrected(tmp_path), rerun="none")
    moved = tmp_path / "moved"
    shutil.move(config.output, moved)
    assert [state.state for state in states(moved)] == ["done", "corrected", "done", "done"]
    assert run(CohortConfig.read(moved)) == Tally(kept=4)
