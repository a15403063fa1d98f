"""What the evaluation draws: supports made from the labels of a dataset, whole or on a few slices of each organ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from FewShotSegLib.support import Organ, Support
from FewShotSegLib.volume import Volume

SliceRule = Literal["spread", "ends"]


def drawn_slices(present: Sequence[int], count: int, rule: SliceRule = "spread") -> list[int]:
    """Which `count` of the organ's slices somebody draws; fewer when the organ has fewer.

    "spread" takes the middles of `count` equal parts (1/2; 1/6, 1/2, 5/6; ...), as a user who does not look for the ends.
    "ends" takes the first, the last and slices evenly between them (the middle alone for one): what fill-between-slices
    needs, and the rule behind the published figures of both Slicer effects (baselines.md).
    """
    if rule == "spread" or count == 1:
        return sorted({present[int((2 * i + 1) / (2 * count) * len(present))] for i in range(count)})
    return sorted({present[round(i * (len(present) - 1) / (count - 1))] for i in range(count)})


def organ_slices(labels: np.ndarray, organ: Organ) -> list[int]:
    """Slices of labels (z, y, x) that show the organ."""
    return np.flatnonzero((labels == organ.label).any((1, 2))).tolist()


def draw(
    image: Volume, labels: np.ndarray, organs: Sequence[Organ], count: int | None = None, rule: SliceRule = "spread"
) -> Support | None:
    """A support from labels (z, y, x), without the organs that the scan does not have; None when it has none of them.

    With `count` None the whole scan is drawn; otherwise each organ on so many of its own slices, unknown elsewhere.
    """
    shown = {organ: organ_slices(labels, organ) for organ in organs}
    present = tuple(organ for organ, slices in shown.items() if slices)
    if not present:
        return None
    masks = np.stack([labels == organ.label for organ in present])
    if count is None:
        return Support.create(image, masks, present, slices="all")
    drawn = np.zeros(masks.shape[:2], bool)
    for row, organ in zip(drawn, present, strict=True):
        row[drawn_slices(shown[organ], count, rule)] = True
    return Support(image, masks & drawn[:, :, None, None], present, drawn)
