"""Earlier results of a case are kept when it is done again or corrected."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from glob import escape
from pathlib import Path

from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.files import cannot_write, split_suffix


def keep_history(places: Places, name: str) -> None:
    """Put a result that is about to be replaced, and its record, into the history; they stay where they are, too."""
    result, record = places.result(name), places.record(name)
    known = CaseRecord.read(record)
    if known is None or known.status not in ("done", "corrected") or not result.is_file():
        return
    number = 1
    while (folder := places.history(name, number)).exists():
        number += 1
    _copy(result, folder / result.name)
    _copy(record, folder / record.name)


def sweep(places: Places, name: str) -> None:
    """Remove the temporary files of a case whose process died while it wrote (see `files.atomic_path`)."""
    for file in (places.result(name), places.record(name), places.dicom_seg(name), places.picture(name), places.descriptor(name)):
        stem, suffix = split_suffix(file)
        for left in file.parent.glob(f".{escape(stem)}-????????{suffix}"):
            with suppress(OSError):
                left.unlink()


def _copy(source: Path, target: Path) -> None:
    """A second name for a file that is only ever replaced as a whole; a copy where there are no hard links."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
    except OSError as error:
        with suppress(OSError):
            target.unlink()
        raise cannot_write(target, error.strerror or str(error)) from error
