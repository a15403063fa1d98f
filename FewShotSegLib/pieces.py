"""Connected pieces of organs: as many are kept as were drawn, the largest ones, or those that the drawing touches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    return _largest(labels, _sizes(labels, weight), count)


def _largest(labels: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    order = np.argsort(-sizes, kind="stable")[:count]
    kept = np.zeros(len(sizes) + 1, bool)
    kept[1 + order] = sizes[order] >= SPECK * sizes.max()
    return kept[labels]


def _sizes(labels: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    return np.bincount(labels.ravel(), None if weight is None else weight.ravel())[1:]


Weigh = Callable[[int, np.ndarray], np.ndarray]
"""Number of an organ, and its pieces (z y x) numbered from 1, 0 elsewhere -> how much each counts."""


def keep_largest(index: np.ndarray, counts: Sequence[int], weigh: Weigh | None = None) -> None:
    """Clear, in place, all but the largest pieces of every organ of `index` (z y x), or those that `weigh` says count most.

    `counts`: how many are kept, organ by organ. Where `weigh` finds nothing in any piece, their sizes count.
    """
    for organ, box in enumerate(ndimage.find_objects(index, len(counts)), 1):
        if box is None:
            continue
        part = index[box]
        labels, found = ndimage.label(part == organ)
        if found <= 1:
            continue
        sizes = _sizes(labels)
        if weigh is not None:
            whole = np.zeros(index.shape, np.int32)
            whole[box] = labels
            weights = weigh(organ - 1, whole)
            sizes = weights if weights.any() else sizes
        part[(part == organ) & ~_largest(labels, sizes, counts[organ - 1])] = 0


def keep_touching(index: np.ndarray, organ: int, seeds: np.ndarray) -> None:
    """Clear, in place, the pieces of `organ` that hold no voxel of `seeds` (z y x) bool."""
    pieces, count = ndimage.label(index == organ)
    if count:
        held = np.zeros(count + 1, bool)
        held[pieces[seeds]] = True
        index[(pieces > 0) & ~held[pieces]] = 0
