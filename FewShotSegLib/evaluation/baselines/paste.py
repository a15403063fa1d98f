"""The floor of every table: paste the drawing, learn nothing."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from FewShotSegLib.evaluation.baselines.base import Baseline, Extent
from FewShotSegLib.strategies.chunks import chunk_of, pick_slices
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume


class Paste(Baseline):
    """Told the organ's extent: each query slice gets a mask of the support, at the same place in the image.

    In another scan it is that of the matching chunk (SSL-ALPNet; alpnet_visa.md, section 7), in the same scan that of the
    nearest drawn slice. Images of another size are matched corner to corner.
    """

    name: ClassVar[str] = "paste"
    description: ClassVar[str] = "the drawing pasted, told the organ's extent; learns nothing"
    protocols: ClassVar[tuple[str, ...]] = ("oracle-z", "same-scan")
    needs_extent: ClassVar[bool] = True

    def masks(self, support: Support, query: Volume, extent: Extent) -> np.ndarray:
        """Each organ pasted on the slices of its extent."""
        pasted = np.zeros((len(support.organs), *query.geometry.shape), bool)
        for index, organ in enumerate(support.organs):
            if organ.name in extent:
                known = support.masks[index] & support.drawn[index][:, None, None]
                for z, teacher in _teachers(known, extent[organ.name], same_scan=query is support.image).items():
                    pasted[index, z] = _fitted(known[teacher], pasted.shape[2:])
        return pasted


def _teachers(known: np.ndarray, extent: tuple[int, int], *, same_scan: bool) -> dict[int, int]:
    """The support slice whose mask each slice of the extent gets."""
    shown = np.flatnonzero(known.any((1, 2)))
    slices = range(extent[0], extent[1] + 1)
    if same_scan:
        return {z: int(shown[np.abs(shown - z).argmin()]) for z in slices}
    chunks = pick_slices(shown.tolist())
    return {z: chunks[chunk_of(z, extent)] for z in slices}


def _fitted(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A mask (y, x) stretched to another shape, nearest neighbour."""
    rows, columns = (((np.arange(n) + 0.5) * size / n).astype(int) for n, size in zip(shape, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]
