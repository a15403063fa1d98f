"""From scores on cells to labels on the scan's own voxels, one block of slices after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.refine import refine
from FewShotSegLib.tones import Tones

BLOCK_VALUES = 1 << 22  # scores on full-resolution pixels held at once; the refinement needs some ten times as much


@dataclass(frozen=True, eq=False)
class VoxelLabels:
    """On the scan's own grid: `index` (z y x) uint8, 0 = background, 1.. = organs in order; probabilities where asked for."""

    index: np.ndarray
    probabilities: np.ndarray | None


def between_slices(scan: EncodedScan, scores: Tensor, wanted: np.ndarray) -> Tensor:
    """Scores (n, v, h, w) of the encoded slices, linearly interpolated at the grid's slices `wanted`."""
    at = np.interp(wanted, scan.slices, np.arange(len(scan.slices)))
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, len(scan.slices) - 1)
    part = torch.from_numpy((at - low).astype(np.float32))[:, None, None, None]
    return scores[low] * (1 - part) + scores[high] * part


@dataclass(frozen=True)
class Borders:
    """How scores become pixels.

    logits: the scores of the organs are margins over background (whose score is 0), so that their sigmoid, and not the score
    itself, is the probability. refined: borders follow the edges of the image (see `refine`), those of `thin` organs within a
    smaller window, and after a competition of all labels where `competing`, in which thin organs have `tones` of their own.
    """

    logits: bool = False
    refined: bool = False
    thin: Sequence[int] = ()
    competing: bool = False
    tones: Tones | None = None


def to_voxels(scan: EncodedScan, scores: Tensor, borders: Borders = Borders(), *, probabilities: bool = False) -> VoxelLabels:
    """Label every voxel of the scan with the highest score (n, v, h, w); channel 0 is background.

    Rows and columns are those of the cells, or a multiple.
    """
    grid, organs = scan.grid, scores.shape[1] - 1
    first = grid.backward_slices(np.zeros((1, *grid.shape[1:]), np.float32), order=1)
    at_once = _at_once(max(first[0].size, grid.shape[1] * grid.shape[2]), organs)
    index = np.empty((grid.shape[0], *first.shape[1:]), np.uint8)
    kept = np.empty((organs, *index.shape), np.float16) if probabilities else None
    for start in range(0, grid.shape[0], at_once):
        wanted = np.arange(start, min(start + at_once, grid.shape[0]))
        fine = grid.backward_slices(_pixels(scan, scores, wanted, borders), order=1)
        index[wanted] = fine.argmax(0)
        if kept is not None:
            # the refinement overshoots
            kept[:, wanted] = 1 / (1 + np.exp(-fine[1:])) if borders.logits else fine[1:].clip(0, 1)
    return VoxelLabels(grid.restore(index), None if kept is None else np.stack([grid.restore(k) for k in kept]))


def to_pixels(scan: EncodedScan, scores: Tensor, borders: Borders = Borders()) -> np.ndarray:
    """Label every pixel of the encoded slices alone, on the grid: uint8 (n, H, W)."""
    parts = -(-len(scan.slices) // _at_once(scan.grid.shape[1] * scan.grid.shape[2], scores.shape[1] - 1))
    some = np.array_split(scan.slices, parts)
    return np.concatenate([_pixels(scan, scores, wanted, borders).argmax(0).astype(np.uint8) for wanted in some])


def _at_once(pixels: int, organs: int) -> int:
    """Slices of so many pixels that are worked on together."""
    return max(1, BLOCK_VALUES // (pixels * (organs + 1)))


def _pixels(scan: EncodedScan, scores: Tensor, wanted: np.ndarray, borders: Borders) -> np.ndarray:
    """Scores on the pixels (v, slices, H, W) of the grid's slices `wanted`."""
    scale = scan.grid.shape[1] // scores.shape[2]
    pixels = F.interpolate(between_slices(scan, scores, wanted), scale_factor=scale, mode="bilinear").transpose(0, 1)
    found = pixels.contiguous().numpy()
    if borders.refined:
        competing = borders.competing and not borders.logits
        refine(found, scan.pixels(wanted), borders.thin, margins=borders.logits, competing=competing, tones=borders.tones)
    return found
