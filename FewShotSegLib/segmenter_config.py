"""What a segmentation depends on, besides the scans. Light to import: a panel needs it before, or without, torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT_CHECKPOINT = "carry-abdomen-heart"
ACROSS_CHECKPOINT = "carry-any-contrast"
"""Takes over from the default one when support and query are of different kinds, CT and MR."""


@dataclass(frozen=True)
class SegmenterConfig:
    """Everything a segmentation depends on, besides the scans.

    method, options: name and options of the method (`methods.list_methods()`).
    strategy: "auto" (the method's own), "direct" or "propagate"; for prototype heads.
    checkpoint: name or path of the encoder's weights.
    across: let a checkpoint that was trained for it take over from the default one, with `match`, when support and query are of
        different kinds (see `kinds`).
    place: prototype heads look for an organ only around where `match` sees it, even where its first and last slice are told;
        False: only where nothing is told, as their papers (so does a `faithful` method).
    turns: where a result is unsure, look whether the scan is mirrored or turned against the drawn one, and lay it right (see
        `turns.py`).
    relays: in a list of scans, segment those with an unsure result once more, taught by the surest results of the others as well
        (with `match`; see `relays.py`).
    device: "auto", "cpu", "cuda" or "mps"; batch: slices encoded at once (of more, a CPU's cache holds less).
    every_mm: slices are thinned to about this distance; between them the result is interpolated.
    refine: let borders follow the edges of the image (not with a `faithful` method: those are upsampled as published).
    largest_only: keep the largest pieces of every organ, as many as were drawn (in the same scan: those that the drawing
        touches).
    probabilities: also give them, per voxel.
    """

    method: str = "match"
    options: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = "auto"
    checkpoint: str = DEFAULT_CHECKPOINT
    across: bool = True
    place: bool = True
    turns: bool = True
    relays: bool = True
    device: str = "auto"
    batch: int = 4
    every_mm: float = 5.0
    largest_only: bool = True
    refine: bool = True
    probabilities: bool = False
