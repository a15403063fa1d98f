"""Results as DICOM SEG, beside those in `.seg.nrrd`, for the cases that are DICOM series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.manifest import Case
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.dicom_seg import write_dicom_seg
from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import FewShotSegError, OutputError
from FewShotSegLib.files import cannot_write
from FewShotSegLib.image_files import is_dicom
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.segmentation import Segmentation

NONE = "There is no DICOM SEG: "


def with_dicom_seg(record: CaseRecord, case: Case, config: CohortConfig, segmentation: Segmentation | None = None) -> CaseRecord:
    """Write a case's result as DICOM SEG that refers to its series, if that is asked for; one of an earlier result never stays.

    Args:
        record: of the case.
        case: a scan that is no DICOM series has no DICOM SEG.
        config: of the cohort.
        segmentation: its result; read from its file without it.

    Returns:
        The record, not written yet: with the file's SHA-256, or a note that says why a series cannot be referred to.

    Raises:
        OutputError: no permission, disk full.
    """
    places = Places(config.output)
    path, notes = places.dicom_seg(record.name), tuple(note for note in record.notes if not note.startswith(NONE))
    record = replace(record, dicom_seg="", notes=notes)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error.strerror or str(error)) from error
    if not _is_wanted(case, config):
        return record
    try:
        result = segmentation or _result(record, places)
        write_dicom_seg(path, result, case.image, series=case.series or None, settings=_made(record, config))
    except FewShotSegError as error:
        if isinstance(error, OutputError) and isinstance(error.__cause__, OSError):  # the disk's trouble, not the case's
            raise
        return replace(record, notes=(*notes, f"{NONE}{error}"))
    return replace(record, dicom_seg=sha256_of(path))


def lacks_dicom_seg(record: CaseRecord, case: Case, config: CohortConfig) -> bool:
    """Whether a finished case has none yet: it was asked for later, is gone, or could not be made."""
    return _is_wanted(case, config) and not (record.dicom_seg and Places(config.output).dicom_seg(record.name).is_file())


def _is_wanted(case: Case, config: CohortConfig) -> bool:
    return config.dicom_seg and (case.image.is_dir() or is_dicom(case.image))


def _result(record: CaseRecord, places: Places) -> Segmentation:
    """The labels of a finished case, from their file."""
    layers = read_labels(places.result(record.name))
    organs = tuple(segment.organ for segment in layers.segments)
    labels = np.zeros(layers.geometry.shape, np.uint8 if max(o.label for o in organs) < 256 else np.uint16)
    for segment in layers.segments:
        labels[layers.mask(segment)] = segment.organ.label
    nothing = np.full(len(organs), np.nan), np.full((len(organs), len(labels)), np.nan)
    return Segmentation(layers.geometry, organs, labels, *nothing, name=record.name)


def _made(record: CaseRecord, config: CohortConfig) -> dict[str, str]:
    """How the labels came about, for the DICOM file."""
    if record.status == "corrected":
        return {"corrected": "by hand"}
    return {"method": config.segmenter.method, "checkpoint": str(config.segmenter.checkpoint)}
