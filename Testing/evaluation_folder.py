"""A tiny labelled folder for the tests of the evaluation: bright bricks that stand for organs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from FewShotSegLib.volume import Geometry, Volume

SHAPE = (14, 40, 40)
GEOMETRY = Geometry(SHAPE[::-1], (1.5, 1.5, 6.0), (0, 0, 0), (1, 0, 0, 0, -1, 0, 0, 0, 1))
NAMES = {1: "liver", 2: "spleen"}


def labels_of(case: int) -> np.ndarray:
    """Two bricks that move with the case: label 1 on 8 slices, label 2 on 4."""
    labels = np.zeros(SHAPE, np.uint8)
    shift = case % 3
    labels[2 + shift : 10 + shift, 8:24, 6 + shift : 18 + shift] = 1
    labels[4 + shift : 8 + shift, 10:20, 26:34] = 2
    return labels


def image_of(case: int) -> np.ndarray:
    """The bricks at 200 and 120 on a noisy background around 20."""
    noise = np.random.default_rng(case).normal(20, 4, SHAPE)
    return (noise + np.choose(labels_of(case), [0, 180, 100])).astype(np.int16)


def write_folder(folder: Path, cases: Sequence[str], **description: object) -> Path:
    """A folder with these cases; extra entries go into `dataset.json`."""
    for number, case in enumerate(cases):
        Volume(image_of(number), GEOMETRY).write(folder / f"{case}_image.nii.gz")
        Volume(labels_of(number), GEOMETRY).write(folder / f"{case}_label.nii.gz")
    names = {str(value): name for value, name in NAMES.items()}
    about = {"name": "bricks", "modality": "MR", "labels": names, "cases": list(cases)} | description
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder
