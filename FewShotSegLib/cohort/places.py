"""Which file of a cohort's folder holds what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULT = ".seg.nrrd"


@dataclass(frozen=True)
class Places:
    """The files of a cohort in its `folder`."""

    folder: Path

    @property
    def results(self) -> Path:
        """Results, each with its record beside it."""
        return self.folder / "results"

    @property
    def locks(self) -> Path:
        """Who is at which case."""
        return self.folder / "locks"

    @property
    def supports(self) -> Path:
        """Corrected cases that became supports."""
        return self.folder / "supports"

    def result(self, name: str) -> Path:
        """Labels of a case."""
        return self.results / f"{name}{RESULT}"

    def dicom_seg(self, name: str) -> Path:
        """The same as DICOM SEG, where that is asked for."""
        return self.results / f"{name}.dcm"

    def record(self, name: str) -> Path:
        """How they were made, and how sure they are; or why there are none."""
        return self.results / f"{name}.json"

    def picture(self, name: str) -> Path:
        """A small picture of the result."""
        return self.results / f"{name}.jpg"

    def descriptor(self, name: str) -> Path:
        """What tells which support is like the scan."""
        return self.folder / "descriptors" / f"{name}.npz"

    def history(self, name: str, number: int) -> Path:
        """Folder for an earlier result of a case and its record, numbered from 1."""
        return self.folder / "history" / name / f"{number:03d}"
