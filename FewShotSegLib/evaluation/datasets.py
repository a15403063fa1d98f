"""Labelled scans in a folder: `dataset.json` beside `<case>_image.nii.gz` and `<case>_label.nii.gz`.

`dataset.json` holds `name`, `modality` ("MR" or "CT"), `cases`, and `labels` (number to organ name; a free text is allowed
where the numbers have no names). An optional `scored` lists the labels that count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from FewShotSegLib.errors import ConfigError, VolumeError
from FewShotSegLib.support import Organ
from FewShotSegLib.volume import Volume

ABDOMINAL_FOUR = ("liver", "right kidney", "left kidney", "spleen")


@dataclass(frozen=True)
class Dataset:
    """A folder of labelled scans.

    Args:
        folder: where the files lie.
        name, modality: as declared.
        labels: number to organ name; empty when the folder names none.
        cases: all case ids, in the order of `dataset.json` (the folds depend on it).
        organs: the organs that are scored.
    """

    folder: Path
    name: str
    modality: str
    labels: dict[int, str]
    cases: tuple[str, ...]
    organs: tuple[Organ, ...]

    @classmethod
    def open(cls, folder: str | Path, organs: Sequence[str | int] | None = None) -> Dataset:
        """Read the description of a folder, no voxels.

        Args:
            folder: with `dataset.json` in it.
            organs: names or numbers of the organs to score. By default the `scored` labels of `dataset.json`; without
                them, liver, kidneys and spleen where a folder has these and more (what the papers score of an abdominal
                CT); otherwise every label.

        Raises:
            VolumeError: no readable description.
            ConfigError: an organ that the folder does not have, or nothing that says which labels to score.
        """
        folder = Path(folder)
        described = _description(folder)
        labels = described["labels"]
        named = {int(value): str(name) for value, name in labels.items()} if isinstance(labels, dict) else {}
        chosen = organs if organs is not None else described.get("scored") or _default_organs(named)
        if not chosen:
            raise ConfigError(
                f"{folder} does not name its labels ({labels!r})",
                "the organs to score",
                "name them by number, for example --organ 5",
            )
        scored = tuple(_organ(choice, named, folder) for choice in chosen)
        cases = tuple(str(case) for case in described["cases"])
        return cls(folder, str(described["name"]), str(described["modality"]), named, cases, scored)

    @property
    def labelled(self) -> tuple[str, ...]:
        """The cases that have a label file."""
        return tuple(case for case in self.cases if self.label_path(case).exists())

    def image_path(self, case: str) -> Path:
        """File of the scan."""
        return self.folder / f"{case}_image.nii.gz"

    def label_path(self, case: str) -> Path:
        """File of the labels, which need not exist."""
        return self.folder / f"{case}_label.nii.gz"

    def load(self, case: str) -> tuple[Volume, np.ndarray]:
        """One scan, named after its case and with the declared modality, and its labels, integers (z, y, x).

        Raises:
            ConfigError: no such case.
            VolumeError: a file is missing or unreadable, or image and labels lie on different grids.
        """
        if case not in self.cases:
            raise ConfigError(f"No case {case!r} in {self.folder}", f"one of {', '.join(self.cases)}")
        image = replace(Volume.read(self.image_path(case)), name=case, modality=self.modality)
        labels = Volume.read(self.label_path(case))
        if not labels.geometry.same_as(image.geometry):
            raise VolumeError(
                f"The labels of case {case} in {self.folder} lie on another grid than its image",
                "one grid for both",
                "resample the labels to the image",
            )
        return image, np.rint(labels.array).astype(np.int32)


def renumbered(labels: np.ndarray, named: Mapping[int, str], organs: Sequence[Organ]) -> np.ndarray:
    """Labels (z, y, x) of a data set that has these names, with the numbers that `organs` of the same names have; others 0."""
    numbers = {name.lower(): value for value, name in named.items()}
    result = np.zeros_like(labels)
    for organ in organs:
        if organ.name.lower() in numbers:
            result[labels == numbers[organ.name.lower()]] = organ.label
    return result


def _description(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    try:
        described = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise VolumeError(
            f"{path} cannot be read ({error})", "a folder of labelled scans with dataset.json in it", "check the path"
        ) from error
    missing = [key for key in ("name", "modality", "labels", "cases") if not isinstance(described, dict) or key not in described]
    if missing:
        raise VolumeError(f"{path} lacks {', '.join(missing)}", "name, modality, labels and cases", "complete the file")
    return described


def _default_organs(named: dict[int, str]) -> list[int]:
    """Labels to score by default: the papers' four where a folder has them among others, otherwise all."""
    numbers = {name.lower(): value for value, name in named.items()}
    if len(named) > len(ABDOMINAL_FOUR) and all(name in numbers for name in ABDOMINAL_FOUR):
        return [numbers[name] for name in ABDOMINAL_FOUR]
    return sorted(named)


def _organ(choice: str | int, named: dict[int, str], folder: Path) -> Organ:
    """The organ with this name or number; a number needs no name."""
    text = str(choice).strip()
    if text.isdigit() and int(text) > 0 and (not named or int(text) in named):
        return Organ(named.get(int(text), f"label {text}"), int(text))
    for value, name in named.items():
        if name.lower() == text.lower():
            return Organ(name, value)
    known = ", ".join(f"{value} {name}" for value, name in named.items()) or "label numbers, it names none"
    raise ConfigError(f"No organ {choice!r} in {folder}", f"one of {known}")
