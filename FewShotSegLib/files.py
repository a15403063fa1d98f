"""Writing files so that a reader sees either the old one or the whole new one, never half of it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from FewShotSegLib.errors import OutputError

DOUBLE_SUFFIXES = (".nii.gz", ".seg.nrrd")


def split_suffix(path: str | Path) -> tuple[str, str]:
    """File name without folder as (stem, suffix); `.nii.gz` and `.seg.nrrd` count as one suffix."""
    path = Path(path)
    for suffix in DOUBLE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], path.name[-len(suffix) :]
    return path.stem, path.suffix


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; move it to `path` when the block succeeds.

    Missing folders are created. Whatever ends the block early, Ctrl-C included, the temporary file is removed and a
    file already at `path` stays as it was.

    Raises:
        OutputError: the operating system refuses (no permission, disk full, `path` is a folder), or nothing was written.
    """
    path = Path(path)
    stem, suffix = split_suffix(path)
    temporary = path.with_name(f".{stem}-{secrets.token_hex(4)}{suffix}")
    try:
        _prepare(path)
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error
    finally:
        _remove(temporary)


def cannot_write(path: str | Path, reason: str) -> OutputError:
    """The error for a file that could not be written, whatever the cause."""
    return OutputError(
        f"Cannot write {path}: {reason}",
        "a folder that may be written to, on a disk with enough free space",
        "choose another place, or free some space, and run again; no half-written file was left",
    )


def _prepare(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder")


def _flush_to_disk(path: Path) -> None:
    """Wait until the file is on the disk: a full disk may only be noticed here."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    """Remove a file that may not exist, in a folder that may not exist either."""
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def write_json(path: str | Path, record: Mapping[str, Any] | Sequence[Any]) -> Path:
    """Write a record as indented JSON, whole or not at all; paths become text.

    Raises:
        OutputError: no permission, disk full.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, default=str, allow_nan=False) + "\n", encoding="utf-8")
    return Path(path)
