"""Pairs of slices of two different scans, whose labels are carried: for trainings that are told to use labels.

What looks alike within a scan may not between two patients: only somebody who drew both knows that a small bright spleen and a
large dark one are the same organ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewshotseg_training.scans import TrainingScan
from FewShotSegLib.errors import VolumeError


def with_labels(
    sets: Sequence[Sequence[TrainingScan]], files: Sequence[Sequence[str]], wanted: Sequence[str]
) -> list[list[TrainingScan]]:
    """The scans that keep their labels, of each data set in which two share one; `wanted`: names of sets, all without any.

    Raises:
        VolumeError: no such set, or a wanted one that is not there.
    """
    names = [Path(found[0]).parent.name if found else "" for found in files]
    kept = {
        name: [scan for scan in scans if scan.drawn is not None and scan.labels]
        for name, scans in zip(names, sets, strict=True)
        if not wanted or name in wanted
    }
    usable = [scans for scans in kept.values() if _share_a_label(scans)]
    strange = [name for name in wanted if not _share_a_label(kept.get(name, []))]
    if strange or not usable:
        raise VolumeError(
            f"No two scans that share a label in {', '.join(strange or names)}",
            "scans that were prepared beside their label maps with --keep-labels",
            "prepare them so, or train without --labelled",
        )
    return usable


def _share_a_label(scans: Sequence[TrainingScan]) -> bool:
    return any(count > 1 for count in Counter(label for scan in scans for label in scan.labels).values())


def draw_labelled_pair(sets: Sequence[Sequence[TrainingScan]], rng: np.random.Generator) -> tuple[Tensor, ...]:
    """A slice of each of two scans of one data set, on about the same height of an organ of both: image, ids, image, ids.

    Ids are labels; 0 is all that nobody drew.
    """
    while True:
        scans = sets[int(rng.integers(len(sets)))]
        first, second = (scans[int(i)] for i in rng.choice(len(scans), 2, replace=False))
        shared = sorted(set(first.labels) & set(second.labels))
        if not shared:
            continue
        label, height = shared[int(rng.integers(len(shared)))], rng.random()
        pair = [(scan, _slice_at(scan, label, height)) for scan in (first, second)]
        return tuple(torch.from_numpy(a) for scan, z in pair for a in (scan.grey(z), _labels(scan, z)))


def _slice_at(scan: TrainingScan, label: int, height: float) -> int:
    """The slice that shows the label so far (0..1) from its first to its last one."""
    shown = np.flatnonzero(scan.shows([label])[:, 0])
    return int(shown[min(int(height * len(shown)), len(shown) - 1)])


def _labels(scan: TrainingScan, z: int) -> np.ndarray:
    assert scan.drawn is not None
    return np.asarray(scan.drawn[z], np.int64)
