"""The scans below a folder: those that a `dataset.json` lists, or every NIfTI, NRRD, MHA file and DICOM series."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.files import split_suffix
from FewShotSegLib.volume import Volume

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
DRAWINGS = ("_label", "_labels", "_seg", "_mask", "_segmentation")
SCANS = ("CT", "MR")


@dataclass(frozen=True)
class FoundScan:
    """A scan to prepare: a file, or one `series` (UID) of a DICOM folder. `label`: its label map, where there is one."""

    name: str
    path: Path
    files: tuple[Path, ...]
    series: str = ""
    modality: str = ""
    label: Path | None = None

    def read(self) -> Volume:
        """The voxels. Raises VolumeError when they cannot be read."""
        volume = Volume.read(self.path, series=self.series or None)
        return replace(volume, modality=self.modality or volume.modality)


def find_scans(folder: Path) -> list[FoundScan]:
    """All scans below a folder, by name. Raises VolumeError when there is none, or `dataset.json` cannot be used."""
    listed = folder / "dataset.json"
    found = _listed(folder) if listed.exists() else [*_image_files(folder), *_series(folder)]
    if not found:
        raise VolumeError(
            f"{folder} holds no scan",
            "NIfTI, NRRD or MHA files, or DICOM series, in it or below",
            "give the folder that holds the scans",
        )
    names: dict[str, int] = {}
    for i, scan in enumerate(found):
        names[scan.name] = names.get(scan.name, 0) + 1
        if names[scan.name] > 1:  # two files that differ only in their suffix, or two series of one folder
            found[i] = replace(scan, name=f"{scan.name}-{names[scan.name]}")
    return sorted(found, key=lambda scan: scan.name)


def _listed(folder: Path) -> list[FoundScan]:
    """The cases of `dataset.json`, each `<case>_image.nii.gz`, perhaps with `<case>_label.nii.gz`."""
    path = folder / "dataset.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        modality, cases = str(described.get("modality", "")), [str(case) for case in described["cases"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VolumeError(f"{path} cannot be used ({error!r})", "a JSON object that lists the scans as `cases`") from error
    found = []
    for case in cases:
        image, label = folder / f"{case}_image.nii.gz", folder / f"{case}_label.nii.gz"
        found.append(FoundScan(case, image, (image,), modality=modality, label=label if label.exists() else None))
    return found


def _image_files(folder: Path) -> Iterator[FoundScan]:
    """Every image file that is not a drawing."""
    for path in sorted(folder.rglob("*")):
        stem, suffix = split_suffix(path)
        if suffix.lower() not in SUFFIXES or not path.is_file() or stem.lower().endswith(DRAWINGS):
            continue
        stem = stem.removesuffix("_image")
        label = path.with_name(f"{stem}_label{suffix}")
        name = "_".join((*path.relative_to(folder).parent.parts, stem))
        yield FoundScan(name, path, (path,), label=label if label.exists() else None)


def _series(folder: Path) -> Iterator[FoundScan]:
    """Every CT or MR series of every folder, by the headers of its files."""
    for place in sorted({path.parent for path in folder.rglob("*") if path.is_file()}):
        series: dict[tuple[str, str], list[Path]] = {}
        for path in sorted(p for p in place.iterdir() if p.is_file() and split_suffix(p)[1].lower() not in SUFFIXES):
            header = _header(path)
            if header is not None:
                series.setdefault(header, []).append(path)
        for (uid, modality), files in sorted(series.items()):
            name = "_".join(place.relative_to(folder).parts) or place.resolve().name
            yield FoundScan(name, place, tuple(files), uid, modality)


def _header(path: Path) -> tuple[str, str] | None:
    """Series UID and modality of a CT or MR file; None for anything else."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Modality"])
    except (InvalidDicomError, OSError, EOFError):
        return None
    modality = str(header.get("Modality", ""))
    return (str(header.get("SeriesInstanceUID", "")), modality) if modality in SCANS else None
