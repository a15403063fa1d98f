"""What became of a case: the JSON beside its result, and the warnings that belong into it."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from FewShotSegLib.cohort.stamps import Stamp
from FewShotSegLib.files import write_json

LIBRARY = "FewShotSegLib"
Status = Literal["done", "failed", "corrected", "busy"]


@dataclass(frozen=True)
class OrganRecord:
    """One organ of a result.

    `confidence`: the method's own, NaN when the organ was not found. `expected_dice`: predicted without the truth, calibrated on
    other scans; NaN where nothing is known.
    """

    name: str
    label: int
    ml: float
    confidence: float = math.nan
    expected_dice: float = math.nan

    @property
    def score(self) -> float:
        """What cases are ranked by, 0..1: the expected Dice, else the confidence; 0 for an organ that was not found."""
        if self.ml == 0:
            return 0.0
        return self.confidence if math.isnan(self.expected_dice) else self.expected_dice


@dataclass(frozen=True)
class CaseRecord:
    """One case of a cohort.

    Args:
        name, image: of the case.
        status: "done", "failed", "corrected" by hand, or "busy": another run is at it (never written).
        input: of the scan.
        settings: digest of all that the result depends on besides scan and supports.
        considered, used: ids of the supports there were, and of those that taught this case, the most alike first.
        similarity: of each support that was considered, by id.
        organs: what was found.
        features: what the expected Dice was predicted from, by organ.
        result: SHA-256 of the result's file. dicom_seg: of the same as DICOM SEG, "" where there is none.
        notes: warnings. error: found, expected, action; of a failed case.
        seconds: by stage; finished: time of day in UTC; host: where.
        made_with: configuration, checkpoint, versions.
        fresh: whether this run made it, or found it done; not written.
    """

    name: str
    image: str
    status: Status
    input: Stamp | None = None
    settings: str = ""
    considered: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    similarity: Mapping[str, float] = field(default_factory=dict)
    organs: tuple[OrganRecord, ...] = ()
    features: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    result: str = ""
    dicom_seg: str = ""
    notes: tuple[str, ...] = ()
    error: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    finished: str = ""
    host: str = ""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    fresh: bool = True

    @property
    def score(self) -> float:
        """That of the least sure organ; NaN for a case that is not done. Corrected ones are sure."""
        if self.status == "corrected":
            return 1.0
        known = [organ.score for organ in self.organs if not math.isnan(organ.score)]
        return min(known) if self.status == "done" and known else math.nan

    def write(self, path: Path) -> None:
        """Write it, whole or not at all. OutputError: no permission, disk full."""
        record = {key: value for key, value in asdict(self).items() if key != "fresh"}
        write_json(path, _without_nan(record))

    @classmethod
    def read(cls, path: Path) -> CaseRecord | None:
        """The record at `path`; None where there is none, or one that cannot be read: the case is then done again."""
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            known = {key: record[key] for key in (f.name for f in fields(cls)) if key in record}
            known["input"] = Stamp.from_json(known.get("input"))
            known["organs"] = tuple(OrganRecord(**_with_nan(organ)) for organ in known["organs"])
            known["features"] = {name: _with_nan(values) for name, values in known["features"].items()}
            for key in ("considered", "used", "notes"):
                known[key] = tuple(known[key])
            return cls(**known, fresh=False)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


@contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """Yield a list that gathers what the library warns of in this thread, such as which of several series was taken."""
    here, heard = threading.get_ident(), list[str]()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == here:
                heard.append(record.getMessage())

    listener, logger = Listener(logging.WARNING), logging.getLogger(LIBRARY)
    logger.addHandler(listener)
    try:
        yield heard
    finally:
        logger.removeHandler(listener)


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in values.items()}
