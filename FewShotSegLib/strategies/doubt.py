"""Whether an organ goes on to where it was carried within a scan: labels that run from slice to slice do not stop by themselves.

Two reasons to doubt it beyond the outermost drawn slices: slices that were spread over an organ tell how far it reaches; and a
cell that is more like what was drawn beside the organ than like the organ was labelled for its place alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from FewShotSegLib.drawings import EncodedSupport

SPREAD = 3  # drawn slices from which their spread tells something
SPAN, SPAN_OF_SCAN = 0.6, 0.25  # what they span at least: of the organ's width, and of the scan
BEYOND, DOUBT = (0.5, 1.0), 0.6  # gaps beyond the outermost one: from where to where an organ is doubted; trust left there
MINE, OUTSIDE = 0.5, 0.9  # fractions of the organ, and of background, from which a drawn cell stands for them
SEEN = 0.02  # fraction from which a cell is asked what it resembles


def trust_beyond(support: EncodedSupport, members: list[int], slices: np.ndarray) -> Tensor:
    """How far to trust that an organ goes on: (n, members), 1 between its drawn `slices` (indices) and near them.

    Who spreads some slices over an organ draws the next one before it ends: it hardly goes on for more than half a gap beyond
    the outermost ones. Nothing is doubted when they lie close together, for the organ's width or in the scan.
    """
    z, drawn = support.scan.z_mm, np.sort(support.scan.z_mm[slices])
    trust = torch.ones(len(z), len(members))
    span = drawn[-1] - drawn[0] if len(drawn) else 0.0
    if len(drawn) < SPREAD or span < SPAN_OF_SCAN * (z[-1] - z[0]):
        return trust
    beyond = np.maximum(0, np.maximum(drawn[0] - z, z - drawn[-1])) / (span / (len(drawn) - 1))
    for number, organ in enumerate(members):
        pixels = support.masks[organ][torch.from_numpy(slices)].float().sum((1, 2)).amax()
        width = 2 * support.scan.grid.pixel_mm * (float(pixels) / np.pi) ** 0.5
        if span >= SPAN * width:
            trust[:, number] = torch.from_numpy(np.interp(beyond, BEYOND, (1, DOUBT)))
    return trust


class Resemblance:
    """What the cells of a scan resemble: what was drawn of each organ, or what was drawn beside all of them.

    Args:
        features: unit features (n, c, h, w) of the scan.
        far: (n, n), how much less a drawing on another slice tells, in logits.
        drawn: fractions (v, h, w) of background and organs, by the index of their slice.
        others: area fraction (h, w) of what is known to be background, by the index of its slice.
        temperature: of the similarity.
        thin: numbers of organs that are not judged, as hardly a cell is theirs alone.
    """

    def __init__(
        self,
        features: Tensor,
        far: Tensor,
        drawn: Mapping[int, Tensor],
        others: Mapping[int, Tensor],
        temperature: float,
        thin: Sequence[int] = (),
    ) -> None:
        self.features, self.temperature = features, temperature
        beside = {i: values[0] > OUTSIDE for i, values in drawn.items()}
        beside |= {i: part > OUTSIDE for i, part in others.items() if i not in drawn}
        self._beside = _Drawn(features, far, beside)
        organs = [organ for organ in range(len(next(iter(drawn.values()))) - 1) if organ not in thin]
        mine = {organ: _Drawn(features, far, {i: v[1 + organ] >= MINE for i, v in drawn.items()}) for organ in organs}
        self._organs = {organ: cells for organ, cells in mine.items() if len(cells) and len(self._beside)}

    def trust(self, i: int, values: Tensor) -> Tensor:
        """What of the organs' fractions on slice `i`, in `values` (v, h, w), is to be believed: (v - 1, h, w), 0 to 1."""
        trust = torch.ones_like(values[1:])
        for organ, mine in self._organs.items():
            asked = values[1 + organ] > SEEN
            if asked.any():
                cells = self.temperature * _cells(self.features[i], asked)
                trust[organ][asked] = (mine.nearest(i, cells) - self._beside.nearest(i, cells)).sigmoid()
        return trust


class _Drawn:
    """Cells that stand for something on drawn slices: `where` (h, w) by the index of a slice."""

    def __init__(self, features: Tensor, far: Tensor, where: Mapping[int, Tensor]) -> None:
        self.cells = torch.cat([_cells(features[i], chosen) for i, chosen in where.items()])
        self.far = torch.cat([far[:, i, None].expand(-1, int(chosen.sum())) for i, chosen in where.items()], 1)

    def __len__(self) -> int:
        return len(self.cells)

    def nearest(self, i: int, cells: Tensor) -> Tensor:
        """The highest logit (k,) that `cells` (k, c) of slice i have with any of them."""
        return torch.addmm(-self.far[i], cells, self.cells.T).amax(1)


def _cells(features: Tensor, where: Tensor) -> Tensor:
    """Those of the features (c, h, w) that lie `where` (h, w): (k, c) float32."""
    return features.permute(1, 2, 0)[where].float()
