from __future__ import annotations

import math

import pytest

from FewShotSegLib import progress
from FewShotSegLib.errors import Cancelled
from FewShotSegLib.progress import Progress, Reporter

WEIGHTS = {"first": 1.0, "second": 3.0}


@pytest.fixture()
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_stages_count_by_their_weight(clock: list[float]) -> None:
    heard: list[Progress] = []
    report = Reporter(WEIGHTS, heard.append)
    for stage, part in (("first", 0.0), ("first", 0.5), ("first", 1.0), ("second", 0.5), ("second", 1.0)):
        report.step(stage, part)
    assert [p.fraction for p in heard] == [0.0, 0.125, 0.25, 0.625, 1.0]
    assert [p.stage for p in heard] == ["first"] * 3 + ["second"] * 2


def test_the_time_left_follows_the_pace(clock: list[float]) -> None:
    heard: list[Progress] = []
    report = Reporter(WEIGHTS, heard.append)
    report.step("first", 0.0)
    clock[0] += 5
    report.step("first", 1.0)
    clock[0] += 15
    report.step("second", 1.0)
    assert math.isnan(heard[0].seconds_left)
    assert [p.seconds_left for p in heard[1:]] == [15.0, 0.0]


def test_progress_never_goes_back_and_never_beyond_the_end(clock: list[float]) -> None:
    heard: list[Progress] = []
    report = Reporter(WEIGHTS, heard.append)
    for stage, part in (("second", 0.5), ("first", 0.3), ("second", 2.0)):
        report.step(stage, part)
    assert [p.fraction for p in heard] == [0.625, 0.625, 1.0]


def test_a_stage_without_work_takes_no_share(clock: list[float]) -> None:
    heard: list[Progress] = []
    report = Reporter({"kept": 0.0, "work": 1.0}, heard.append)
    report.step("kept", 1.0)
    report.step("work", 0.5)
    assert [p.fraction for p in heard] == [0.0, 0.5]


def test_cancelling_is_heard_at_the_next_step() -> None:
    heard: list[Progress] = []
    wanted = [False, True]
    report = Reporter(WEIGHTS, heard.append, lambda: wanted.pop(0))
    report.step("first", 0.1)
    with pytest.raises(Cancelled):
        report.step("first", 0.2)
    assert len(heard) == 1


def test_nobody_needs_to_listen() -> None:
    Reporter(WEIGHTS).step("first", 1.0)
