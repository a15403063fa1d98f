"""Where the files of a job go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.files import cannot_write, split_suffix
from FewShotSegLib.image_files import WRITABLE, is_dicom

if TYPE_CHECKING:
    from FewShotSegLib.segmentation import Segmentation

DICOM_SEG = ".dcm"
FORMATS = {"seg.nrrd": ".seg.nrrd", "nii.gz": ".nii.gz", "nrrd": ".nrrd", "mha": ".mha", "dicom-seg": DICOM_SEG}
"""Suffix of the results in a folder, by the name of the format."""
RECORD = "run.json"


def targets(output: Path, queries: Sequence[Path], result_format: str = "seg.nrrd") -> list[Path]:
    """The file of each query's result: `output` itself for one query and a path with a suffix, else a file in this folder.

    Queries of the same name are told apart by the name of their folder. `result_format`: of `FORMATS`, for results in a folder.

    Raises:
        ConfigError: a file for several queries, queries that cannot be told apart, an unknown format, DICOM SEG for a scan
            that is no DICOM.
        OutputError: the place cannot be written to, or has an unknown suffix. Found out before anything is computed.
    """
    suffix = split_suffix(output)[1].lower()
    if result_format not in FORMATS:
        raise ConfigError(f"There is no result format {result_format!r}", f"one of {', '.join(FORMATS)}")
    if suffix and not output.is_dir() and (len(queries) == 1 or suffix in (*WRITABLE, DICOM_SEG)):
        _check_file(output, suffix, len(queries))
        found = [output]
    else:
        found = [output / f"{name}{FORMATS[result_format]}" for name in _names(queries, FORMATS[result_format])]
    if found[0].suffix.lower() == DICOM_SEG:
        _check_dicom(queries)
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


def write_result(done: Segmentation, target: Path, query: Path, series: str | None, settings: Mapping[str, str]) -> Path:
    """Write a result as its suffix says; a DICOM SEG refers to the query's series and carries the settings.

    Raises:
        OutputError: see `Segmentation.write` and `write_dicom_seg`.
    """
    if target.suffix.lower() != DICOM_SEG:
        return done.write(target)
    from FewShotSegLib.dicom_seg import write_dicom_seg

    return write_dicom_seg(target, done, query, series=series, settings=settings)


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


def _names(queries: Sequence[Path], suffix: str) -> list[str]:
    """A name of its own for each query."""
    plain = [scan_name(query) for query in queries]
    names = [
        f"{query.resolve().parent.name}_{name}" if plain.count(name) > 1 else name
        for query, name in zip(queries, plain, strict=True)
    ]
    for name, query in zip(names, queries, strict=True):
        if names.count(name) > 1:
            raise ConfigError(
                f"Several queries would be written as {name}{suffix}, {query} among them",
                "queries that differ in their name or in that of their folder",
                "give each scan once, or segment these scans one by one",
            )
    return names


def _check_file(output: Path, suffix: str, queries: int) -> None:
    if queries > 1:
        raise ConfigError(f"One output file, {output}, for {queries} queries", "a folder", "leave out the end of the name")
    if suffix not in (*WRITABLE, DICOM_SEG):
        raise OutputError(
            f"Cannot write {output}: unknown file type {suffix!r}",
            f"one of {', '.join((*WRITABLE, DICOM_SEG))}",
            "change the end of the name",
        )


def _check_dicom(queries: Sequence[Path]) -> None:
    """Refuse DICOM SEG before anything is computed: where a query is no DICOM, or highdicom is not installed."""
    from FewShotSegLib.dicom_seg import import_highdicom

    import_highdicom()
    for query in queries:
        if query.is_file() and not is_dicom(query):
            raise ConfigError(
                f"DICOM SEG is asked for, and {query} is no DICOM series",
                "DICOM folders as queries: a DICOM SEG refers to the images of a series",
                "choose another format for this scan",
            )
