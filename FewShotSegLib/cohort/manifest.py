"""Which scans a cohort has: a folder, or a CSV file.

A CSV has a header line and the columns

    image    file or DICOM folder, absolute or beside the CSV; needed
    name     name of the case; by default that of the file
    series   which series of a DICOM folder that holds several: UID, number or description

Other columns are ignored; separators may be commas, semicolons or tabs. A row that cannot be used becomes a case with a
`problem`, which is recorded as failed; the others are segmented.

Of a folder, every NIfTI, NRRD and MetaImage file below it is a scan, and every folder with DICOM files; not what lies in the
cohort's own folder, what is hidden, segmentations (`.seg.nrrd`) and the supports' own files.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.files import split_suffix

COLUMNS = ("image", "name", "series")
SCANS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
DICOM_MARK, DICOM_MARK_AT = b"DICM", 128
UNSAFE = re.compile(r"[^\w.+-]+")
LONGEST_NAME = 120


@dataclass(frozen=True)
class Case:
    """One scan of the list.

    Args:
        name: its own within the cohort, and valid as a file name.
        image: file or DICOM folder.
        series: of a folder with several; "" for the only one.
        line: of the CSV, 0 without one.
        problem: why it cannot be segmented, found in the list itself; "" for none.
    """

    name: str
    image: Path
    series: str = ""
    line: int = 0
    problem: str = ""


def plan(config: CohortConfig) -> list[Case]:
    """The cases of this shard, in the order of the list.

    Raises:
        ConfigError: the list cannot be read, has no column `image`, or is empty.
    """
    source = config.source
    if not source.exists():
        raise ConfigError(f"{source} does not exist", "a folder of scans, or a CSV file", "check the path")
    cases = list(_in_folder(config) if source.is_dir() else _in_csv(source))
    if not cases:
        raise ConfigError(
            f"{source} holds no scan" + (f" named {config.pattern}" if config.pattern else ""),
            f"files that end in {', '.join(SCANS)}, or DICOM folders" if source.is_dir() else "at least one row",
            "check the path" + (" and the pattern" if config.pattern else ""),
        )
    number, of = config.shard
    return _with_own_names(cases)[number - 1 :: of]


def safe_name(text: str) -> str:
    """A text as a file name."""
    return UNSAFE.sub("_", text).strip("._")[:LONGEST_NAME] or "scan"


def _in_folder(config: CohortConfig) -> Iterator[Case]:
    own = config.output.resolve()
    taken = {path.resolve() for drawing in config.supports for path in (drawing.image, drawing.labels)}
    for folder, below, files in os.walk(config.source):
        here = Path(folder)
        below[:] = sorted(d for d in below if not d.startswith(".") and (here / d).resolve() != own)
        if config.output != config.source and here.resolve() == own:
            continue
        shown = sorted(f for f in files if not f.startswith(".") and _is_scan(f, config.pattern))
        yield from (_case_of(config.source, here / f) for f in shown if (here / f).resolve() not in taken)
        wanted = not config.pattern or fnmatch(here.name, config.pattern)
        if not shown and wanted and here.resolve() not in taken and _holds_dicom(here, files):
            yield _case_of(config.source, here)


def _is_scan(file: str, pattern: str) -> bool:
    return split_suffix(file)[1].lower() in SCANS and (not pattern or fnmatch(file, pattern))


def _case_of(root: Path, path: Path) -> Case:
    """A case named after its path below the root."""
    below = path.relative_to(root)
    stem = path.name if path.is_dir() else split_suffix(path)[0]
    return Case(safe_name("_".join([*below.parent.parts, stem or root.resolve().name])), path)


def _holds_dicom(folder: Path, files: list[str]) -> bool:
    """Whether the first files of a folder look like DICOM."""
    for name in sorted(files)[:3]:
        try:
            with (folder / name).open("rb") as file:
                if file.read(DICOM_MARK_AT + 4)[DICOM_MARK_AT:] == DICOM_MARK:
                    return True
        except OSError:
            continue
    return False


def _in_csv(path: Path) -> Iterator[Case]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error})", "a CSV file in UTF-8", "save the list again") from error
    lines = text.splitlines()
    header = lines[0] if lines else ""
    separator = max(",;\t", key=header.count)
    rows = csv.DictReader(lines, delimiter=separator, skipinitialspace=True)
    columns = [(column or "").strip().lower() for column in rows.fieldnames or []]
    rows.fieldnames = columns
    if "image" not in columns:
        raise ConfigError(
            f"{path} has no column 'image'; its first line is {header!r}", f"the columns {', '.join(COLUMNS)}", "name the columns"
        )
    for row in rows:
        yield _in_row(path, rows.line_num, {key: (row.get(key) or "").strip() for key in COLUMNS})


def _in_row(path: Path, line: int, row: dict[str, str]) -> Case:
    if not row["image"]:
        return Case(f"line-{line}", path, line=line, problem=f"Line {line} of {path.name} has no image")
    image = path.parent / Path(row["image"]).expanduser()
    name = row["name"] or (image.resolve().name if image.is_dir() else split_suffix(image)[0])
    problem = "" if image.exists() else f"Line {line} of {path.name}: {image} does not exist"
    return Case(safe_name(name), image, row["series"], line, problem)


def _with_own_names(cases: list[Case]) -> list[Case]:
    """Of several cases with one name, those after the first get another one; in a CSV that is a problem."""
    first: dict[str, Case] = {}
    named = []
    for case in cases:
        known = first.get(case.name.lower())  # some file systems do not tell cases apart
        if known is None:
            first[case.name.lower()] = case
        elif case.line:
            problem = (
                case.problem or f"Line {case.line} has the name {case.name!r} of line {known.line}: give it a name of its own"
            )
            case = replace(case, name=f"{case.name}-line-{case.line}", problem=problem)
        else:
            suffix = split_suffix(case.image)[1].strip(".").replace(".", "_")
            case = replace(case, name=f"{case.name}_{suffix}")
            if case.name.lower() in first:
                raise ConfigError(f"{case.image} and {first[case.name.lower()].image} have the same name", "different names")
            first[case.name.lower()] = case
        named.append(case)
    return named
