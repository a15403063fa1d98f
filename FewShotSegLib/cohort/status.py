"""How far a cohort is: what is done, failed and why, waiting, and running where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.locks import running
from FewShotSegLib.cohort.manifest import Case, plan
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.supports import CohortSupport, read_added
from FewShotSegLib.errors import FewShotSegError

State = Literal["done", "corrected", "failed", "running", "waiting"]
STATES: tuple[State, ...] = ("done", "corrected", "failed", "running", "waiting")


@dataclass(frozen=True)
class CaseState:
    """One case: `reason` says why it failed, where it runs, or why it waits although there is a result."""

    case: Case
    state: State
    record: CaseRecord | None = None
    reason: str = ""


def states(folder: str | Path) -> list[CaseState]:
    """The state of every case, in the order of the list.

    Whether scans changed since is not looked at: `run` does that.

    Raises:
        ConfigError: no cohort lies there, or its list of scans is gone.
    """
    config = CohortConfig.read(folder)
    places = Places(config.output)
    cases = plan(config)
    records = {case.name: CaseRecord.read(places.record(case.name)) for case in cases}
    settings = _latest_settings(record for record in records.values() if record)
    held, added = running(places.locks), read_added(config.output)
    found = []
    for case in cases:
        record = records[case.name]
        if case.name in held:
            found.append(CaseState(case, "running", record, held[case.name].described))
        else:
            found.append(_state(case, record, settings, added, places))
    return found


def _state(case: Case, record: CaseRecord | None, settings: str, added: tuple[CohortSupport, ...], places: Places) -> CaseState:
    if record is None or record.status == "busy":
        return CaseState(case, "waiting")
    if record.status == "failed":
        return CaseState(case, "failed", record, _reason(record))
    if not places.result(case.name).is_file():
        return CaseState(case, "waiting", record, "its result is missing")
    if record.status == "corrected":
        return CaseState(case, "corrected", record)
    if record.settings != settings:
        return CaseState(case, "waiting", record, "its result was made with other settings")
    if any(s.id not in record.considered and (s.affects is None or case.name in s.affects) for s in added):
        return CaseState(case, "waiting", record, "a new support may change it")
    return CaseState(case, "done", record)


def _latest_settings(records: Iterable[CaseRecord]) -> str:
    """Those of the last finished run: other results will be made anew."""
    done = [record for record in records if record.status in ("done", "failed") and record.settings]
    return max(done, key=lambda record: record.finished).settings if done else ""


def _reason(record: CaseRecord) -> str:
    return str(FewShotSegError(record.error.get("found", ""), record.error.get("expected", ""))).strip()
