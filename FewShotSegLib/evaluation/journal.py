"""What an evaluation has measured so far, scan by scan, so that one that was stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from FewShotSegLib.evaluation.config import EvaluateConfig
from FewShotSegLib.evaluation.result import Record, to_json
from FewShotSegLib.evaluation.scoring import Pair
from FewShotSegLib.files import atomic_path


@dataclass(frozen=True)
class Measured:
    """One scan that is through. `model`: SHA-256 of the checkpoint, "" where there is none; `told`: its extents were told."""

    pair: Pair
    model: str
    told: bool
    records: tuple[Record, ...]
    notes: tuple[str, ...]


class Journal:
    """The scans of one evaluation that are through, in a file beside its result; written whole after each scan.

    A file of another configuration, or one that cannot be read, counts as none. Without a place for the result nothing is kept.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        self.path = None if config.json is None else Path(config.json).with_suffix(".partial.json")
        self._config = without_place(config)
        self._scans = self._read()

    def find(self, pair: Pair, model: str) -> Measured | None:
        """What is known of this scan, measured with this very model."""
        return next((scan for scan in self._scans if (scan.pair, scan.model) == (pair, model)), None)

    def add(self, scan: Measured) -> None:
        """Keep a scan. Raises OutputError when the place cannot be written to."""
        self._scans.append(scan)
        if self.path is not None:
            with atomic_path(self.path) as temporary:
                temporary.write_text(
                    to_json({"config": self._config, "scans": [asdict(s) for s in self._scans]}), encoding="utf-8"
                )

    def close(self) -> None:
        """The result is written: the file has done its work."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> list[Measured]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8")) if self.path is not None else {}
            return [_measured(scan) for scan in found["scans"]] if same_options(found["config"], self._config) else []
        except (OSError, ValueError, KeyError, TypeError):
            return []


def without_place(config: EvaluateConfig) -> dict[str, Any]:
    """The options that change what is measured, as a JSON object."""
    return {name: value for name, value in config.to_json().items() if name != "json"}


def same_options(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two configurations, one of them read from JSON, measure the same; an option that it lacks has its default."""
    usual = without_place(EvaluateConfig("."))
    return {**usual, **{k: v for k, v in found.items() if k != "json"}} == json.loads(json.dumps(wanted))


def _measured(scan: dict[str, Any]) -> Measured:
    records: Sequence[dict[str, Any]] = scan["records"]
    return Measured(
        Pair(**scan["pair"]), scan["model"], scan["told"], tuple(map(Record.from_json, records)), tuple(scan["notes"])
    )
