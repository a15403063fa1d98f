"""Runs of a cohort: what is done, what is done again, what fails, and what is in memory."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cohort_folder import make_cohort, make_scan, use_bright_engine

from FewShotSegLib.cohort import case as case_module
from FewShotSegLib.cohort.case import open_worker, run_case
from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.locks import Locks
from FewShotSegLib.cohort.manifest import plan
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.run import Tally, run
from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import Cancelled, ConfigError, OutputError, VolumeError
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.volume import Volume


@pytest.fixture
def config(tmp_path: Path) -> CohortConfig:
    return make_cohort(tmp_path, 4)


def record(config: CohortConfig, name: str) -> CaseRecord:
    found = CaseRecord.read(Places(config.output).record(name))
    assert found is not None
    return found


def test_every_case_has_its_result_and_its_record(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bright_engine(monkeypatch)
    heard: list[tuple[str, int]] = []
    assert run(config, lambda r, tally: heard.append((r.name, tally.done))) == Tally(done=4)
    assert sorted(name for name, _ in heard) == ["s000", "s001", "s002", "s003"] and [n for _, n in heard] == [1, 2, 3, 4]
    places, found = Places(config.output), record(config, "s002")
    assert found.status == "done" and found.result == sha256_of(places.result("s002"))
    assert found.input is not None and found.input.sha256 == sha256_of(config.source / "s002.nii")
    assert [(o.name, o.expected_dice) for o in found.organs] == [("liver", 0.9), ("spleen", 0.6)] and found.score == 0.6
    assert len(found.considered) == 1 and found.used == found.considered
    assert found.made_with == {"config": "bright"} and set(found.seconds) == {"read", "segment", "write"} and found.finished
    assert places.picture("s002").stat().st_size > 1000 and places.descriptor("s002").exists()
    assert list(places.locks.iterdir()) == [] and CohortConfig.read(config.output) == config


def test_done_cases_are_not_done_again(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = use_bright_engine(monkeypatch)
    run(config)
    assert run(config) == Tally(kept=4) and engines[1].names == []


def test_a_copied_scan_is_known_by_its_contents(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bright_engine(monkeypatch)
    run(config)
    os.utime(config.source / "s000.nii", (1, 1))
    assert run(config) == Tally(kept=4)


def test_a_change_that_keeps_size_and_time_is_found_by_verify(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bright_engine(monkeypatch)
    run(config)
    path = config.source / "s000.nii"
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(config) == Tally(kept=4)
    assert run(replace(config, verify=True)) == Tally(done=1, kept=3)


def change_scan(config: CohortConfig) -> CohortConfig:
    make_scan(77)[0].write(config.source / "s001.nii")
    return config


def remove_result(config: CohortConfig) -> CohortConfig:
    Places(config.output).result("s001").unlink()
    return config


def damage_record(config: CohortConfig) -> CohortConfig:
    Places(config.output).record("s001").write_text('{"name": "s00')
    return config


@pytest.mark.parametrize("change", [change_scan, remove_result, damage_record])
def test_only_what_changed_is_done_again(
    config: CohortConfig, monkeypatch: pytest.MonkeyPatch, change: Callable[[CohortConfig], CohortConfig]
) -> None:
    engines = use_bright_engine(monkeypatch)
    run(config)
    assert run(change(config)) == Tally(done=1, kept=3) and engines[1].names == ["s001"]


def test_other_settings_and_other_supports_do_all_again_and_keep_the_history(
    config: CohortConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_bright_engine(monkeypatch)
    run(config)
    first = sha256_of(Places(config.output).record("s000"))
    assert run(replace(config, segmenter=SegmenterConfig(every_mm=9.0))) == Tally(done=4)
    old = Places(config.output).history("s000", 1)
    assert sha256_of(old / "s000.json") == first and (old / "s000.seg.nrrd").exists()
    make_scan(5)[0].write(config.supports[0].image)
    assert run(replace(config, segmenter=SegmenterConfig(every_mm=9.0))) == Tally(done=4)


def test_what_fails_is_recorded_and_stops_nothing(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def strange(volume: Volume) -> None:
        if volume.name == "s003":
            raise VolumeError("a strange scan", "another one")
        if volume.name == "s002":
            raise ZeroDivisionError("nobody thought of that")

    use_bright_engine(monkeypatch, strange)
    whole = (config.source / "s001.nii").read_bytes()
    (config.source / "s001.nii").write_bytes(whole[:500])  # cut off: a corrupt file in the middle
    assert run(config) == Tally(done=1, failed=3)
    reasons = {name: record(config, name).error["found"] for name in ("s001", "s002", "s003")}
    assert "cut off" in reasons["s001"] and reasons["s002"] == "ZeroDivisionError: nobody thought of that"
    assert reasons["s003"] == "a strange scan" and "cohort_folder.py" in record(config, "s002").error["action"]
    assert not Places(config.output).result("s001").exists()
    use_bright_engine(monkeypatch)
    (config.source / "s001.nii").write_bytes(whole)
    assert run(config) == Tally(done=3, kept=1)
    assert record(config, "s001").status == "done"


def test_a_row_that_cannot_be_used_fails_with_its_line(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bright_engine(monkeypatch)
    (config.source / "list.csv").write_text("image\ns000.nii\nmissing.nii\ns001.nii\n")
    assert run(replace(config, source=config.source / "list.csv")) == Tally(done=2, failed=1)
    assert "Line 3 of list.csv" in record(config, "missing").error["found"]


def test_a_disk_that_is_full_ends_the_run(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bright_engine(monkeypatch)
    wrote: list[str] = []

    def full(self: CaseRecord, path: Path) -> None:
        wrote.append(path.name)
        raise OutputError("Cannot write: No space left on device")

    monkeypatch.setattr(CaseRecord, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        run(config)
    assert len(wrote) == 1 and list(Places(config.output).locks.iterdir()) == []


def test_cancelled_between_and_inside_cases(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()
    engines = use_bright_engine(monkeypatch, lambda volume: asked.set() if volume.name == "s002" else None)
    with pytest.raises(Cancelled):
        run(config, cancelled=asked.is_set)
    assert "s003" not in engines[0].names and not Places(config.output).result("s002").exists()
    assert list(Places(config.output).locks.iterdir()) == []
    asked.clear()
    use_bright_engine(monkeypatch)
    assert run(config) == Tally(done=2, kept=2)


def test_a_case_that_another_run_is_at_is_left_to_it(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    use_bright_engine(monkeypatch)
    settings = open_worker(config).settings
    with Locks(Places(config.output).locks, settings) as other:
        other.take("s001")
        assert run(config) == Tally(done=3, busy=1)
    with Locks(Places(config.output).locks, "other settings") as other:
        other.take("s001")
        with pytest.raises(ConfigError, match="one set of supports"):
            run(config)


def test_a_case_that_was_taken_over_is_not_written(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = Places(config.output).locks / "s000.lock"

    def slept(volume: Volume) -> None:
        lock.write_text(lock.read_text().replace(worker.locks.me.token, "another"))

    use_bright_engine(monkeypatch, slept)
    worker = open_worker(config)
    found = run_case(plan(config)[0], worker)
    assert found.status == "busy" and not Places(config.output).result("s000").exists() and lock.exists()


@pytest.mark.parametrize(("readers", "devices"), [(1, ()), (3, ()), (2, ("cpu", "cpu"))])
def test_so_many_scans_are_in_memory_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readers: int, devices: tuple[str, ...]
) -> None:
    config = make_cohort(tmp_path, 12, readers=readers, devices=devices)
    guard, alive, most = threading.Lock(), [0], [0]
    read = Volume.read

    def counted(path: Path, **options: object) -> Volume:
        with guard:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        return read(path, **options)  # type: ignore[arg-type]

    def in_work(volume: Volume) -> None:
        deadline = time.monotonic() + 60  # readers get ahead, and every worker gets a scan, on a busy machine too
        while (most[0] < min(2, readers) or not all(engine.names for engine in engines)) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02)
        with guard:
            alive[0] -= 1

    engines = use_bright_engine(monkeypatch, in_work)
    monkeypatch.setattr(case_module.Volume, "read", counted)
    assert run(config) == Tally(done=12)
    assert most[0] <= (readers + 1) * max(1, len(devices)) and most[0] >= min(2, readers)
    assert len(engines) == max(1, len(devices)) and all(engine.names for engine in engines)


def test_an_unusable_device_ends_the_run_before_anything(config: CohortConfig) -> None:
    with pytest.raises(ConfigError, match="not available"):
        run(replace(config, devices=("cpu", "quantum")))


def test_records_are_plain_json_without_nan(config: CohortConfig) -> None:
    assert run(replace(config, dry_run=True)) == Tally(done=4)
    text = Places(config.output).record("s000").read_text()
    assert "NaN" not in text and json.loads(text)["organs"][0]["confidence"] is None
    assert record(config, "s000").score == 0.0  # nothing found
