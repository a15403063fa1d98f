"""The protocol of ADNet's papers (EP1) and of its heirs: folds, support slices, chunks of the query's slices.

adnet_qnet_rpt_pami_qamp.md sections 1.2 and 9. It knows which query slices show the organ, which no clinician does, and serves
comparison with published figures only. EP2, the other protocol, is one support slice (`shots=1`) for all slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.protocol import FOLDS

Scan = TypeVar("Scan")


def overlapping_folds(scans: Sequence[Scan], folds: int = FOLDS) -> list[list[Scan]]:
    """The test scans of every fold, in the order of `scans`: neighbouring folds share one, and the last has the first scan.

    The shared scan was meant to be the support of the one and a query of the other; with the papers' ascending order, ADNet
    (last scan of the list) and its heirs (third scan) keep that promise in some folds only.
    """
    if not 1 <= folds <= len(scans):
        raise ConfigError(f"{len(scans)} scans, {folds} folds", "at least one scan for each fold", "use fewer folds")
    size = len(scans) // folds
    parts = [set(range(i * size, (i + 1) * size + 1)) for i in range(folds - 1)]
    parts.append({*range((folds - 1) * size, len(scans)), 0})
    return [[scans[i] for i in sorted(part)] for part in parts]


def support_positions(count: int, shots: int) -> list[int]:
    """Which of `count` slices that show the organ teach: the middle of each of `shots` equal parts."""
    return [int((2 * i + 1) / (2 * shots) * count) for i in range(shots)]


def chunk_bounds(count: int, chunks: int) -> list[int]:
    """Where each of the chunks of `count` slices begins, and the end of the last."""
    return np.linspace(0, count, chunks + 1).astype(int).tolist()


def taught_by(count: int, chunks: int) -> list[int]:
    """Number of the chunk, and thereby of the support slice, of each of `count` query slices that show the organ."""
    bounds = chunk_bounds(count, chunks)
    return [chunk for chunk in range(chunks) for _ in range(bounds[chunk], bounds[chunk + 1])]
