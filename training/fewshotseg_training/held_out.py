"""Which prepared scans a training must not see, so that it can be tested on them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fewshotseg_training.scans import REPORT
from FewShotSegLib.errors import ConfigError

Files = tuple[str, ...]
FOLDS = 5


def without(folders: Sequence[Path], leave_out: str) -> tuple[Files, ...]:
    """The prepared scans of every folder, less those left out as SET:ID,ID;SET:ID.

    Raises ConfigError for a scan to leave out that is not there: a slip of the pen must not put a tested scan into training.
    """
    held = {name: set(ids.split(",")) for name, _, ids in (part.partition(":") for part in leave_out.split(";")) if name}
    files = {folder: sorted(folder.glob("*.npz")) for folder in folders}
    known = {(folder.name, file.stem) for folder, found in files.items() for file in found}
    strange = [f"{name}:{case}" for name, cases in held.items() for case in sorted(cases) if (name, case) not in known]
    if strange:
        raise ConfigError(f"--leave-out names scans that are not there: {', '.join(strange)}", "SET:ID,ID;SET:ID", "correct it")
    return tuple(tuple(str(f) for f in found if f.stem not in held.get(folder.name, ())) for folder, found in files.items())


def training_part(files: Files, fold: int) -> Files:
    """The scans of one data set's folder that the papers' fold does not test, neither as query nor as support.

    The folds are those of `evaluation.protocol.circular_folds` (not imported: a machine that only trains may lack its packages):
    of all scans by their ids, as integers where they are; scans that could not be prepared count, too. Raises ConfigError for
    a fold that does not exist.
    """
    if not 0 <= fold < FOLDS:
        raise ConfigError(f"--fold {fold}", f"0 to {FOLDS - 1}", "correct it")
    names: set[str] = set()
    for folder in {Path(file).parent for file in files}:
        names |= {path.stem for path in folder.glob("*.npz")}
        with suppress(OSError, ValueError, KeyError, TypeError):
            said = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            names |= {*said["done"], *said["failed"]}
    every = sorted(names, key=lambda name: (0, int(name), name) if name.isdigit() else (1, 0, name))
    start, stop = (i * len(every) // FOLDS for i in (fold, fold + 1))
    tested = {*every[start:stop], every[stop % len(every)]}
    return tuple(file for file in files if Path(file).stem not in tested)
