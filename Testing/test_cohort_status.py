"""How far a cohort is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cohort_folder import GEOMETRY, ORGANS, make_cohort, make_scan, use_bright_engine

from FewShotSegLib.cohort.corrections import add_support
from FewShotSegLib.cohort.locks import Locks
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.run import run
from FewShotSegLib.cohort.status import states
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.segfiles import write_segmentation


def test_every_state_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bright_engine(monkeypatch)
    config = make_cohort(tmp_path, 6)
    (config.source / "s002.nii").write_bytes(b"no scan")
    config.write()
    assert {state.state for state in states(config.output)} == {"waiting"}
    run(config)
    corrected = write_segmentation(GEOMETRY.to_sitk(make_scan(9)[1]), ORGANS, tmp_path / "corrected.seg.nrrd")
    add_support(config.output, "s001", corrected, rerun="none")
    Places(config.output).result("s003").unlink()
    path = Places(config.output).record("s004")
    record = CaseRecord.read(path)
    assert record is not None
    replace(record, settings="before", finished="2020-01-01T00:00:00+00:00").write(path)  # the last run's settings count
    with Locks(Places(config.output).locks) as other:
        other.take("s005")
        found = {state.case.name: state for state in states(config.output)}
    assert [state.state for state in found.values()] == ["done", "corrected", "failed", "waiting", "waiting", "running"]
    assert "s002.nii" in found["s002"].reason and "result is missing" in found["s003"].reason
    assert "other settings" in found["s004"].reason and "process" in found["s005"].reason


def test_a_new_support_lets_cases_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bright_engine(monkeypatch)
    config = make_cohort(tmp_path, 3)
    run(config)
    corrected = write_segmentation(GEOMETRY.to_sitk(make_scan(9)[1]), ORGANS, tmp_path / "corrected.seg.nrrd")
    add_support(config.output, "s001", corrected, rerun="all")
    waiting = [state for state in states(config.output) if state.state == "waiting"]
    assert [state.case.name for state in waiting] == ["s000", "s002"] and "new support" in waiting[0].reason


def test_no_cohort_and_a_list_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not the folder of a cohort"):
        states(tmp_path)
    config = make_cohort(tmp_path, 1)
    replace(config, source=tmp_path / "gone").write()
    with pytest.raises(ConfigError, match="does not exist"):
        states(config.output)
