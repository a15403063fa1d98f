"""Connected pieces of organs: as many are kept as were drawn, the largest ones, or those that the drawing touches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

SPECK = 0.1  # of the largest piece's size: what is smaller is not counted and not kept beside it


def count_pieces(mask: np.ndarray) -> int:
    """Connected pieces of a mask without specks; 0 without any."""
    boxes = ndimage.find_objects(mask.astype(np.uint8))
    if not boxes:
        return 0
    sizes = _sizes(ndimage.label(mask[boxes[0]])[0])
    return int((sizes >= SPECK * sizes.max()).sum())


def largest_pieces(mask: np.ndarray, count: int, weight: np.ndarray | None = None) -> np.ndarray:
    """The `count` largest connected pieces of a mask, without specks; `weight`: how much each voxel counts."""
    labels, found = ndimage.label(mask)
    if found <= 1:
        return np.asarray(mask, bool)
    sizes = _sizes(labels, weight)
    order = np.argsort(-sizes, kind="stable")[:count]
    kept = np.zeros(found + 1, bool)
    kept[1 + order] = sizes[order] >= SPECK * sizes.max()
    return kept[labels]


def _sizes(labels: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    return np.bincount(labels.ravel(), None if weight is None else weight.ravel())[1:]


def keep_largest(index: np.ndarray, counts: Sequence[int]) -> None:
    """Clear, in place, all but the largest pieces of every organ of `index` (z y x); `counts`: how many, organ by organ."""
    for organ, box in enumerate(ndimage.find_objects(index, len(counts)), 1):
        if box is None:
            continue
        part = index[box]
        part[(part == organ) & ~largest_pieces(part == organ, counts[organ - 1])] = 0


def keep_touching(index: np.ndarray, organ: int, seeds: np.ndarray) -> None:
    """Clear, in place, the pieces of `organ` that hold no voxel of `seeds` (z y x) bool."""
    pieces, count = ndimage.label(index == organ)
    if count:
        held = np.zeros(count + 1, bool)
        held[pieces[seeds]] = True
        index[(pieces > 0) & ~held[pieces]] = 0
