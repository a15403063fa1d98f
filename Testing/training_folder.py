"""Tiny scans to train on: two phantoms of 64 x 64 pixels, prepared once for all tests of a module."""

from __future__ import annotations

from pathlib import Path

from fewshotseg_training.prepare import PrepareConfig, prepare_folder
from FewShotSegLib.phantom import save_case

PIXELS = 64


def raw_folder(folder: Path, cases: int = 2) -> Path:
    """Scans as `prepare` reads them."""
    for seed in range(cases):
        save_case(folder, seed, shape=(6, PIXELS, PIXELS))
    return folder


def prepared(folder: Path, cases: int = 2) -> tuple[str, ...]:
    """Prepared scans below `folder`, with superpixels and with what is known of their labels."""
    config = PrepareConfig(min_size=60, size=PIXELS, superpixels=True, superpixel_size=30)
    return tuple(str(p) for p in prepare_folder(raw_folder(folder / "toy", cases), folder / "cache", config).done)
