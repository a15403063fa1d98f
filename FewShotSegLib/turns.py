"""Scans that lie differently from the drawn one: a prone patient, or a file whose axes are wrong.

Features know left from right and front from back, so that nothing is found in such a scan. Of the eight ways in which a slice
can lie, the right one is that in which its cells find the most similar cells in the support; slices of half the size, a few of
them, are enough to tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.encoders import STRIDE
from FewShotSegLib.encoding import BODY_LEVEL, EncodedScan, cell_fractions
from FewShotSegLib.grid import axial_order
from FewShotSegLib.volume import Volume

if TYPE_CHECKING:
    from FewShotSegLib.devices import FeatureRunner

UNSURE = 0.7  # mean confidence of the organs below which it is asked whether the scan lies differently
CLEARLY = 0.005  # mean similarity by which another way must be better than the scan's own
ASKING, ANSWERING = 6, 12  # slices of the query and of the support
MIDDLE = (0.15, 0.85)  # part of a scan they are taken from


@dataclass(frozen=True)
class Turn:
    """How a scan is laid before it is segmented: first rows and columns exchanged (`swapped`), then reversed.

    In terms of axial slices: rows run towards posterior, columns towards the patient's left.
    """

    swapped: bool = False
    rows: bool = False
    columns: bool = False

    @property
    def note(self) -> str:
        """What the user of a result has to know."""
        return (
            f"Support and scan do not lie alike: to be segmented, the scan was laid {NAMES[self]}. Check how the patient lay, "
            "and what the file says of it: left and right may be exchanged."
        )

    def of_slices(self, pixels: Tensor) -> Tensor:
        """Slices (n, h, w) turned."""
        turned = pixels.transpose(1, 2) if self.swapped else pixels
        return turned.flip([axis for axis, reverse in ((1, self.rows), (2, self.columns)) if reverse])

    def of(self, volume: Volume) -> Volume:
        """The same voxels, said to lie in the patient as they do after the turn."""
        if self == AS_IT_IS:
            return volume
        exchanged = np.eye(3)[[1, 0, 2]] if self.swapped else np.eye(3)
        matrix = np.diag([-1.0 if self.columns else 1.0, -1.0 if self.rows else 1.0, 1.0]) @ exchanged
        direction = matrix @ np.reshape(volume.geometry.direction, (3, 3))
        origin = matrix @ np.array(volume.geometry.origin)
        geometry = replace(volume.geometry, direction=tuple(direction.ravel().tolist()), origin=tuple(origin.tolist()))
        return replace(volume, geometry=geometry)


AS_IT_IS = Turn()
NAMES = {
    AS_IT_IS: "as it is",
    Turn(columns=True): "mirrored left to right",
    Turn(rows=True): "mirrored front to back",
    Turn(rows=True, columns=True): "turned by 180 degrees",
    Turn(swapped=True, rows=True): "turned by 90 degrees",
    Turn(swapped=True, columns=True): "turned by 270 degrees",
    Turn(swapped=True): "with rows and columns exchanged",
    Turn(swapped=True, rows=True, columns=True): "with rows and columns exchanged and reversed",
}
"""All eight, with the first for a scan that lies like the drawn one."""


def can_be_turned(scan: EncodedScan) -> bool:
    """Whether a scan's slices are axial; others lie as their own directions say, whatever a turn would be called."""
    axes, _ = axial_order(scan.grid.native)
    towards_superior = np.abs(scan.grid.native.axes[::-1, ::-1][0])
    return bool(towards_superior[axes[0]] == towards_superior.max())


def find_turn(query: EncodedScan, support: EncodedScan, runner: FeatureRunner) -> Turn:
    """The way to lay the query so that it lies like the support; `AS_IT_IS` unless another one is clearly better."""
    known, pixels = _cells(_some(support, ANSWERING), runner), _some(query, ASKING)
    alike = {turn: _likeness(_cells(turn.of_slices(pixels), runner), known) for turn in NAMES}
    best = max(alike, key=lambda turn: alike[turn])
    return best if alike[best] > alike[AS_IT_IS] + CLEARLY else AS_IT_IS


def _some(scan: EncodedScan, count: int) -> Tensor:
    """Some slices (n, H/2, W/2) from the middle of a scan, at half the resolution."""
    low, high = (part * (scan.grid.shape[0] - 1) for part in MIDDLE)
    slices = np.unique(np.linspace(low, high, count).round().astype(int))
    return F.avg_pool2d(torch.from_numpy(scan.pixels(slices))[:, None], 2)[:, 0]


def _cells(pixels: Tensor, runner: FeatureRunner) -> Tensor:
    """Unit features (k, c) of the cells that show some of the body."""
    height, width = (side // STRIDE * STRIDE for side in pixels.shape[1:])
    pixels = pixels[:, :height, :width].contiguous()
    features = torch.cat(list(runner(pixels))).permute(0, 2, 3, 1)
    body = cell_fractions(pixels > BODY_LEVEL) > 0.1
    return features[body].float() if body.any() else features.flatten(0, 2).float()


def _likeness(asking: Tensor, answering: Tensor) -> float:
    """Mean similarity (k, c), (m, c) of the asking cells with the answering cell that each is most like."""
    return float((asking @ answering.T).amax(1).mean())
