"""The drawn scans of a cohort: those it began with, and corrected cases that were added."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FewShotSegLib.cohort.config import CohortConfig, drawing_from_json
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.stamps import Stamp
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.files import write_json
from FewShotSegLib.job import Drawing

ADDED = "supports.json"


@dataclass(frozen=True)
class CohortSupport:
    """A drawn scan. `case`: the corrected case that it is, "" for one of the beginning.

    `affects`: the cases that are done again because of it; None for all.
    """

    id: str
    drawing: Drawing
    case: str = ""
    affects: tuple[str, ...] | None = None
    added: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; labels in the cohort's own folder by their name."""
        slices = self.drawing.slices if isinstance(self.drawing.slices, str) else list(self.drawing.slices)
        drawing = {"image": str(self.drawing.image.absolute()), "labels": self.drawing.labels.name, "slices": slices}
        affects = None if self.affects is None else list(self.affects)
        return {"id": self.id, "drawing": drawing, "case": self.case, "affects": affects, "added": self.added}


def support_id(drawing: Drawing) -> str:
    """What tells a support from others: contents of scan and labels, and which slices count. VolumeError: unreadable."""
    slices = drawing.slices if isinstance(drawing.slices, str) else list(drawing.slices)
    parts = [Stamp.of(path).sha256 for path in (drawing.image, drawing.labels)]
    return hashlib.sha256(repr([*parts, slices]).encode()).hexdigest()[:12]


def all_supports(config: CohortConfig) -> tuple[CohortSupport, ...]:
    """The supports of the beginning, then the added ones. VolumeError: a file of theirs cannot be read."""
    first = [CohortSupport(support_id(drawing), drawing) for drawing in config.supports]
    return (*{support.id: support for support in first}.values(), *read_added(config.output))


def read_added(folder: Path) -> tuple[CohortSupport, ...]:
    """The corrected cases that became supports, oldest first. ConfigError: their list is damaged."""
    path = folder / ADDED
    if not path.exists():
        return ()
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_from_json(record, folder) for record in records)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error!r})", "the list of added supports", "restore it from a backup"
        ) from error


def write_added(folder: Path, supports: Sequence[CohortSupport]) -> None:
    """Write the list of added supports, whole or not at all."""
    write_json(folder / ADDED, [support.to_json() for support in supports])


def is_current(record: CaseRecord, supports: Sequence[CohortSupport]) -> bool:
    """Whether a result is what these supports teach: those used are still there, and no new one affects it."""
    if record.status == "corrected":
        return True
    if not set(record.used) <= {support.id for support in supports}:
        return False
    new = [support for support in supports if support.id not in record.considered]
    return not any(support.affects is None or record.name in support.affects for support in new)


def _from_json(record: dict[str, Any], folder: Path) -> CohortSupport:
    drawing = drawing_from_json(record["drawing"])
    own = Drawing(drawing.image, Places(folder).supports / drawing.labels.name, drawing.slices)
    affects = None if record["affects"] is None else tuple(record["affects"])
    return CohortSupport(record["id"], own, record["case"], affects, record["added"])
