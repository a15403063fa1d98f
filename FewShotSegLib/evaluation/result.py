"""What an evaluation found: one record per scan, organ and support, and the summary of them."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from FewShotSegLib.evaluation.metrics import Mean, failures, mean_interval
from FewShotSegLib.files import atomic_path

EXTENTS_TOLD = "The organs' extents were told."
PLACE_SAID = "Within them, `match` said where to look."
"""Sentences of a result's protocol: what a method knew about the query."""


@dataclass(frozen=True)
class Record:
    """One organ of one scan, taught by one support.

    Args:
        fold: number of the fold, None without folds.
        support, case: case ids, the same in same-scan use.
        organ: its name.
        dice, nsd: 0..1, on the slices that the protocol scores; NaN when neither truth nor result has the organ there.
        hd95: mm, on the same slices.
        dice_told: Dice of the same result within the organ's true extent: what telling the extent would be worth.
        confidence: what the method said of its own result, NaN if nothing.
        seconds: for the whole scan with all its organs, reading excluded.
    """

    fold: int | None
    support: str
    case: str
    organ: str
    dice: float
    nsd: float
    hd95: float
    dice_told: float
    confidence: float
    seconds: float

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Record:
        """The record that was written as a JSON object, where null stands for numbers that do not exist."""
        known: dict[str, Any] = {k: math.nan if v is None and k != "fold" else v for k, v in found.items()}
        return cls(**known)

    @property
    def key(self) -> str:
        """What makes two results comparable: the same organ of the same scan taught by the same support."""
        return f"{self.support}>{self.case}:{self.organ}"


@dataclass(frozen=True)
class Summary:
    """Means of some records; intervals are over cases (each counted once), `dice_by_support` over the choice of support."""

    dice: Mean
    dice_by_support: Mean
    nsd: Mean
    hd95: Mean
    dice_told: Mean
    failures: int
    records: int

    @classmethod
    def of(cls, records: Sequence[Record]) -> Summary:
        """Summary of records of one organ, or of all organs: then each scan counts with the mean of its organs."""
        cases = [record.case for record in records]
        scored = [r.dice for r in records if not math.isnan(r.dice)]
        return cls(
            dice=mean_interval([r.dice for r in records], cases, highest=1),
            dice_by_support=mean_interval([r.dice for r in records], [r.support for r in records], highest=1),
            nsd=mean_interval([r.nsd for r in records], cases, highest=1),
            hd95=mean_interval([r.hd95 for r in records], cases),
            dice_told=mean_interval([r.dice_told for r in records], cases, highest=1),
            failures=failures(scored),
            records=len(scored),
        )


@dataclass(frozen=True)
class EvaluationResult:
    """A whole evaluation.

    Args:
        dataset, method: names.
        protocol: in words, with everything that was given.
        config: the options as a JSON object.
        records: in the order of evaluation.
        notes: what was left out, and what a reader must know.
        machine: threads, library versions, device.
    """

    dataset: str
    method: str
    protocol: str
    config: dict[str, Any]
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    machine: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> EvaluationResult:
        """The result that `to_json` wrote, parsed; KeyError or TypeError when it is something else."""
        return cls(
            dataset=found["dataset"],
            method=found["method"],
            protocol=found["protocol"],
            config=found["config"],
            records=tuple(Record.from_json(record) for record in found["records"]),
            notes=tuple(found["notes"]),
            machine=found["machine"],
        )

    @property
    def organs(self) -> tuple[str, ...]:
        """Names in the order of their first record."""
        return tuple(dict.fromkeys(record.organ for record in self.records))

    def summary(self, organ: str | None = None) -> Summary:
        """Over the records of one organ, or of all."""
        return Summary.of([r for r in self.records if organ in (None, r.organ)])

    @property
    def mean_dice(self) -> float:
        """Percent: the mean over scans of the mean over their organs (alpnet_visa.md, section 7), repeated scans averaged."""
        return 100 * self.summary().dice.mean

    @property
    def seconds_per_scan(self) -> float:
        """Mean over all runs (a scan segmented from two supports is two runs)."""
        runs = {(r.fold, r.support, r.case): r.seconds for r in self.records}
        return float(np.mean(list(runs.values()))) if runs else float("nan")

    def to_json(self) -> str:
        """Indented JSON, numbers that do not exist as null; `mean_dice` (percent) stands at the top level."""
        everything = {
            "mean_dice": self.mean_dice,
            "dataset": self.dataset,
            "method": self.method,
            "protocol": self.protocol,
            "seconds_per_scan": self.seconds_per_scan,
            "summary": {"all organs": asdict(self.summary())} | {organ: asdict(self.summary(organ)) for organ in self.organs},
            "notes": list(self.notes),
            "config": self.config,
            "machine": self.machine,
            "records": [asdict(record) for record in self.records],
        }
        return to_json(everything)

    def write(self, path: str | Path) -> Path:
        """Write the JSON atomically; OutputError when the place cannot be written to."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")
        return Path(path)


def say_json(value: Any, path: Path | None) -> None:
    """Print `to_json`, and write it where a path is given. Raises OutputError: no permission, disk full."""
    text = to_json(value)
    print(text, end="")
    if path is not None:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def to_json(value: Any) -> str:
    """Indented JSON; NaN and infinity, which JSON lacks, as null."""
    return json.dumps(_finite(value), indent=1) + "\n"


def machine_facts() -> dict[str, Any]:
    """What times depend on; `load` is the mean number of busy processes over the last minute."""
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
