"""Corrected cases become supports, and what they may change is done again."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.dicom import with_dicom_seg
from FewShotSegLib.cohort.history import keep_history
from FewShotSegLib.cohort.locks import Locks
from FewShotSegLib.cohort.manifest import Case, plan
from FewShotSegLib.cohort.nearest import Descriptor
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord, OrganRecord
from FewShotSegLib.cohort.stamps import Stamp
from FewShotSegLib.cohort.supports import CohortSupport, read_added, support_id, write_added
from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.files import atomic_path
from FewShotSegLib.job import Drawing
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import read_labels, write_segmentation
from FewShotSegLib.volume import Volume

Rerun = Literal["likely", "any", "all", "none"]
DOUBTFUL = 0.8
LOG = "history.jsonl"


@dataclass(frozen=True)
class Added:
    """A corrected case that became a support, and the cases that are to be done again."""

    case: str
    support: CohortSupport
    again: tuple[str, ...]


def add_support(
    folder: str | Path, case: str, corrected: Path | None = None, *, rerun: Rerun = "likely", below: float = DOUBTFUL
) -> Added:
    """Make a corrected case an additional support, or one whose result needs no correction.

    What it may change is only marked: `run.run` does it again.
    The case's result becomes the corrected labels; the result before, and its record, go to the history.

    Args:
        folder: of the cohort.
        case: its name.
        corrected: its corrected labels, of all organs: `.seg.nrrd` or a label map, on any grid. None: its result is right.
        rerun: "likely": cases whose least sure organ is below `below`, and those to which the corrected case is more alike than
            any support before. "any": also those among whose nearest supports it would be. "all", "none". Cases that are not
            done yet are always taught by it.
        below: see `rerun`; 0..1.

    Raises:
        ConfigError: no cohort, no such case, or another run is at it.
        VolumeError, SupportError: labels that cannot be read, do not fit the scan, or lack an organ.
        OutputError: nothing can be written.
    """
    if rerun not in get_args(Rerun):
        raise ConfigError(f"Re-run {rerun!r}", f"one of {', '.join(get_args(Rerun))}")
    config = CohortConfig.read(folder)
    places, cases = Places(config.output), plan(config)
    chosen = _find(cases, case)
    with Locks(places.locks) as locks:
        holder = locks.take(chosen.name)
        if holder is not None:
            raise ConfigError(f"{holder.described} is at {chosen.name}", "a case at which nobody is", "wait until it is done")
        return _add(config, chosen, cases, corrected or _result(places, chosen), rerun, below)


def _add(config: CohortConfig, chosen: Case, cases: Sequence[Case], corrected: Path, rerun: Rerun, below: float) -> Added:
    places = Places(config.output)
    volume = replace(Volume.read(chosen.image, series=chosen.series or None), name=chosen.name)
    organs = _organs(config, places, cases)
    labels = _labels(corrected, volume, organs, config)
    path = _write_labels(labels, volume, organs, places.supports / f"{chosen.name}.seg.nrrd")
    drawing = Drawing(chosen.image, path, "all")
    support = CohortSupport(
        support_id(drawing), drawing, chosen.name, (), datetime.now(timezone.utc).isoformat(timespec="seconds")
    )
    before = read_added(config.output)
    if support.id in {known.id for known in before}:
        raise ConfigError(
            f"{chosen.name} with these labels is a support already", "new corrections", "correct it further, or go on"
        )
    again = _affected(config, chosen, cases, rerun, below)
    support = replace(support, affects=again)
    _record(chosen, labels, volume, organs, config)
    others = [known for known in before if known.case != chosen.name]
    write_added(config.output, [*others, support])
    _log(config.output / LOG, support, corrected, rerun, below)
    return Added(chosen.name, support, again)


def _result(places: Places, case: Case) -> Path:
    """The file of the case's own result."""
    path = places.result(case.name)
    if not path.exists():
        raise ConfigError(f"{case.name} has no result yet", "a case with a result, or a file with its labels", "run it first")
    return path


def _find(cases: Sequence[Case], name: str) -> Case:
    for case in cases:
        if case.name == name and not case.problem:
            return case
    near = difflib.get_close_matches(name, [case.name for case in cases], 3, 0.3)
    raise ConfigError(f"There is no case {name!r}", f"such as {', '.join(near)}" if near else "a name that `status` shows")


def _organs(config: CohortConfig, places: Places, cases: Sequence[Case]) -> tuple[Organ, ...]:
    """What the supports of the cohort show, as the results have it."""
    for case in cases:
        record = CaseRecord.read(places.record(case.name))
        if record is not None and record.organs:
            return tuple(Organ(organ.name, organ.label) for organ in record.organs)
    raise ConfigError(f"Nothing is done yet in {config.output}", "a cohort with results to correct", "run it first")


def _labels(corrected: Path, volume: Volume, organs: Sequence[Organ], config: CohortConfig) -> np.ndarray:
    """Corrected labels (z, y, x) on the scan's grid, with the organs' label values; matched by name, else by value."""
    layers = read_labels(corrected, dict(config.names) or None).on(volume.geometry)
    labels = np.zeros(volume.geometry.shape, np.uint8 if max(o.label for o in organs) < 256 else np.uint16)
    missing = []
    for organ in organs:
        named = [s for s in layers.segments if s.organ.name.casefold() == organ.name.casefold()]
        found = named or [s for s in layers.segments if s.organ.label == organ.label]
        mask = layers.mask(found[0]) if found else np.zeros(1, bool)
        if mask.any():
            labels[mask] = organ.label
        else:
            missing.append(organ.name)
    if missing:
        raise SupportError(
            f"{corrected} has no voxel of {', '.join(missing)} in the scan",
            "all organs of the cohort: a support teaches all of them",
            "draw what is missing; a patient who lacks an organ cannot be a support",
        )
    return labels


def _write_labels(labels: np.ndarray, volume: Volume, organs: tuple[Organ, ...], path: Path) -> Path:
    return write_segmentation(volume.geometry.to_sitk(labels), organs, path)


def _affected(config: CohortConfig, chosen: Case, cases: Sequence[Case], rerun: Rerun, below: float) -> tuple[str, ...]:
    """Names of the cases that are done again; those without a result are among them, in case a run without it does them."""
    places = Places(config.output)
    new = Descriptor.read(places.descriptor(chosen.name))
    names = []
    for case in cases:
        record = CaseRecord.read(places.record(case.name))
        if case.name == chosen.name or (record is not None and record.status == "corrected"):
            continue
        if record is None or record.status != "done" or _is_affected(record, new, places, config, rerun, below):
            names.append(case.name)
    return tuple(names)


def _is_affected(
    record: CaseRecord, new: Descriptor | None, places: Places, config: CohortConfig, rerun: Rerun, below: float
) -> bool:
    if rerun in ("all", "none"):
        return rerun == "all"
    if not record.score >= below:
        return True
    mine = Descriptor.read(places.descriptor(record.name))
    if new is None or mine is None:  # nothing is known of how alike they are
        return True
    known = sorted(record.similarity.values(), reverse=True)
    place = config.nearest if rerun == "any" else 1
    return place == 0 or len(known) < place or mine.similarity(new) > known[place - 1]


def _record(case: Case, labels: np.ndarray, volume: Volume, organs: tuple[Organ, ...], config: CohortConfig) -> None:
    """The corrected labels as the case's result."""
    places = Places(config.output)
    keep_history(places, case.name)
    before = CaseRecord.read(places.record(case.name))
    _write_labels(labels, volume, organs, places.result(case.name))
    volumes = [float(np.count_nonzero(labels == organ.label) * volume.geometry.voxel_ml) for organ in organs]
    known = before or CaseRecord(case.name, str(case.image.absolute()), "corrected")
    record = replace(
        known,
        status="corrected",
        input=Stamp.of(case.image, known.input),
        used=(),
        organs=tuple(OrganRecord(o.name, o.label, ml) for o, ml in zip(organs, volumes, strict=True)),
        features={},
        result=sha256_of(places.result(case.name)),
        notes=(),
        error={},
        finished=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    with_dicom_seg(record, case, config).write(places.record(case.name))


def _log(path: Path, support: CohortSupport, corrected: Path, rerun: Rerun, below: float) -> None:
    """One line more in the history."""
    line = {**support.to_json(), "from": str(corrected.absolute()), "rerun": rerun, "below": below}
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    with atomic_path(path) as temporary:
        temporary.write_text(text + json.dumps(line) + "\n", encoding="utf-8")
