"""Everything a cohort run depends on, and how it goes to JSON and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.files import write_json
from FewShotSegLib.job import Drawing
from FewShotSegLib.segmenter import SegmenterConfig

FILE = "cohort.json"
SAME_RESULT = ("device", "batch")  # of the segmenter: they say where and how fast, not what


@dataclass(frozen=True)
class CohortConfig:
    """A list of scans, the drawings that teach them, and how.

    Args:
        source: a folder of scans, or a CSV (see `manifest`).
        output: the cohort's folder.
        supports: drawn scans; corrected cases come on top (see `supports`).
        organs: names or label numbers; None for all.
        names: organ names for the values of label maps.
        segmenter: how to segment; its device is that of the only worker, see `devices`.
        devices: one worker, with a model of its own, for each; empty for the segmenter's device alone.
        nearest: so many supports, those most like the scan, teach it; 0 for all of them.
        pattern: which files of a folder are scans, such as "*_image.nii.gz"; "" for all that can be read.
        shard: (i, n): only the i-th of n parts of the list, i from 1.
        readers: scans read ahead of each worker; no more than these and the one in work are in memory.
        dicom_seg: write results of DICOM series as DICOM SEG, too; also those that were done before without.
        pictures: a small picture of each result, for the review.
        verify: hash every input again, also when its size and time are as recorded.
        dry_run: read and write everything, but find nothing: to test files and places before a long run.
    """

    source: Path
    output: Path
    supports: tuple[Drawing, ...]
    organs: tuple[str | int, ...] | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    devices: tuple[str, ...] = ()
    nearest: int = 3
    pattern: str = ""
    shard: tuple[int, int] = (1, 1)
    readers: int = 1
    dicom_seg: bool = False
    pictures: bool = True
    verify: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        number, of = self.shard
        if not 1 <= number <= of:
            raise ConfigError(f"Shard {number}/{of}", "i/n with i from 1 to n", "correct the shard")
        if self.nearest < 0 or self.readers < 1:
            raise ConfigError(f"nearest={self.nearest}, readers={self.readers}", "nearest from 0, readers from 1")
        if not self.supports:
            raise ConfigError("A cohort without a support", "at least one drawn scan")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; paths are absolute."""
        record = asdict(self)
        record["source"], record["output"] = str(self.source.absolute()), str(self.output.absolute())
        for drawing in record["supports"]:
            drawing.update(image=str(drawing["image"].absolute()), labels=str(drawing["labels"].absolute()))
        return json.loads(json.dumps(record))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> CohortConfig:
        """The same configuration again. ConfigError: not written by `to_json` of this version."""
        try:
            fields = dict(record)
            fields["source"], fields["output"] = Path(fields["source"]), Path(fields["output"])
            fields["supports"] = tuple(drawing_from_json(d) for d in fields["supports"])
            fields["organs"] = None if fields["organs"] is None else tuple(fields["organs"])
            fields["names"] = {int(k): v for k, v in fields["names"].items()}
            fields["segmenter"] = SegmenterConfig(**fields["segmenter"])
            fields["devices"], fields["shard"] = tuple(fields["devices"]), tuple(fields["shard"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"This is not the configuration of a cohort ({error!r})", "what this version wrote", "start the run anew"
            ) from error

    def write(self) -> Path:
        """Write it into the cohort's folder, whole or not at all; what concerns one process (its shard) is left out."""
        return write_json(self.output / FILE, replace(self, shard=(1, 1), verify=False).to_json())

    @classmethod
    def read(cls, folder: str | Path) -> CohortConfig:
        """The configuration of the last run in a cohort's folder, which may have been moved.

        Raises:
            ConfigError: no cohort lies there.
        """
        path = Path(folder) / FILE
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{folder} is not the folder of a cohort ({error})", f"a folder with {FILE}", "name the --output of `cohort run`"
            ) from error
        return replace(cls.from_json(record), output=Path(folder))

    def settings(self, checkpoint: str) -> str:
        """A short digest of all that a result depends on besides its scan and the supports; `checkpoint`: its SHA-256."""
        record = self.to_json()
        segmenter = {key: value for key, value in record["segmenter"].items() if key not in (*SAME_RESULT, "checkpoint")}
        kept = {key: record[key] for key in ("organs", "names", "nearest", "dry_run")}
        text = json.dumps([segmenter, kept, checkpoint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def drawing_from_json(record: Mapping[str, Any]) -> Drawing:
    """A drawing as `to_json` wrote it."""
    slices = record["slices"]
    return Drawing(Path(record["image"]), Path(record["labels"]), slices if slices in ("auto", "all") else tuple(slices))
