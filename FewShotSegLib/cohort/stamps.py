"""Whether an input is still the file that it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import VolumeError


@dataclass(frozen=True)
class Stamp:
    """A file, or all files of a DICOM folder.

    `sha256`: of the file; of names and contents for a folder. `quick`: of names, sizes and times of change.
    """

    files: int
    size: int
    quick: str
    sha256: str

    @classmethod
    def of(cls, path: Path, known: Stamp | None = None, *, verify: bool = False) -> Stamp:
        """The stamp of what lies at `path` now; contents are not read again where `known` has the same sizes and times.

        Raises:
            VolumeError: nothing can be read there.
        """
        try:
            files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
            facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
            size, quick = sum(fact[1] for fact in facts), _digest(facts)
            if known is not None and known.quick == quick and not verify:
                return known
            hashes = [sha256_of(p) for p in files]
        except OSError as error:
            raise VolumeError(
                f"{path} cannot be read: {error.strerror}", "a readable file, or a DICOM folder", "check the path"
            ) from error
        contents = hashes[0] if not path.is_dir() else _digest(list(zip([p.name for p in files], hashes, strict=True)))
        return cls(len(files), size, quick, contents)

    @classmethod
    def from_json(cls, record: Mapping[str, Any] | None) -> Stamp | None:
        """As `asdict` wrote it."""
        return None if record is None else cls(**record)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def _digest(facts: object) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()
