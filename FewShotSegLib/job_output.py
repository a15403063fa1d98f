"""Where the files of a job go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.files import cannot_write, split_suffix
from FewShotSegLib.image_files import WRITABLE

RESULT = ".seg.nrrd"
RECORD = "run.json"


def targets(output: Path, queries: Sequence[Path]) -> list[Path]:
    """The file of each query's result: `output` itself for one query and a path with a suffix, else a file in this folder.

    Queries of the same name are told apart by the name of their folder.

    Raises:
        ConfigError: a file for several queries, or queries that cannot be told apart.
        OutputError: the place cannot be written to, or has an unknown suffix. Found out before anything is computed.
    """
    suffix = split_suffix(output)[1].lower()
    if suffix and not output.is_dir() and (len(queries) == 1 or suffix in WRITABLE):
        _check_file(output, suffix, len(queries))
        found = [output]
    else:
        found = [output / f"{name}{RESULT}" for name in _names(queries)]
    check_place(found[0])
    return found


def spare(inputs: Sequence[Path], found: Sequence[Path]) -> None:
    """Refuse to write a result over a scan or a drawing: OutputError."""
    taken = {path.resolve() for path in inputs}
    for target in found:
        if target.resolve() in taken:
            raise OutputError(
                f"The result would replace {target}, which is an input of this job",
                "an output of its own",
                "choose another file or folder for the output",
            )


def probability_file(target: Path) -> Path:
    """The probabilities beside a result; Slicer opens a `.seq.nrrd` as a sequence with one named frame per organ."""
    return target.with_name(f"{split_suffix(target)[0]}_probabilities.seq.nrrd")


def record_file(output: Path, report: Path | None, found: Sequence[Path]) -> Path:
    """The record of the run: in the report's folder, else in the folder of the results, else beside the only result."""
    if report is not None:
        return report / RECORD
    if found[0] != output:
        return output / RECORD
    return output.with_name(f"{split_suffix(output)[0]}.{RECORD}")


def scan_name(path: Path) -> str:
    """The name of a scan's file or DICOM folder, without suffix."""
    return path.resolve().name if path.is_dir() else split_suffix(path)[0]


def check_place(path: Path) -> None:
    """Refuse a place for a file of which it is known now, before anything is computed, that it cannot be written: OutputError."""
    folder = path.parent.absolute()
    while not os.path.exists(folder):  # says False where it may not look
        folder = folder.parent
    if not folder.is_dir():
        raise cannot_write(path, f"{folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise cannot_write(path, f"no permission to write to {folder}")


def _names(queries: Sequence[Path]) -> list[str]:
    """A name of its own for each query."""
    plain = [scan_name(query) for query in queries]
    names = [
        f"{query.resolve().parent.name}_{name}" if plain.count(name) > 1 else name
        for query, name in zip(queries, plain, strict=True)
    ]
    for name, query in zip(names, queries, strict=True):
        if names.count(name) > 1:
            raise ConfigError(
                f"Several queries would be written as {name}{RESULT}, {query} among them",
                "queries that differ in their name or in that of their folder",
                "give each scan once, or segment these scans one by one",
            )
    return names


def _check_file(output: Path, suffix: str, queries: int) -> None:
    if queries > 1:
        raise ConfigError(f"One output file, {output}, for {queries} queries", "a folder", "leave out the end of the name")
    if suffix not in WRITABLE:
        raise OutputError(
            f"Cannot write {output}: unknown file type {suffix!r}", f"one of {', '.join(WRITABLE)}", "change the end of the name"
        )
