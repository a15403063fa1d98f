"""Pseudo-labels of scans that are prepared already: superpixels added, or supervoxels of another size."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewshotseg_training.prepare import save_superpixels
from fewshotseg_training.scans import SUPERPIXELS, load_scan, map_arrays, save_scan
from fewshotseg_training.supervoxels import Order, supervoxels
from FewShotSegLib.errors import VolumeError


@dataclass(frozen=True)
class PseudoConfig:
    """superpixel_size: least pixels of a superpixel. min_size: of a supervoxel, in voxels; 0 keeps the present ones."""

    superpixel_size: int = 400
    min_size: int = 0
    order: Order = "stable"
    again: bool = False


def label_scan(path: Path, config: PseudoConfig) -> Path:
    """Write a prepared scan's superpixels, unless they are there, and new supervoxels where wanted; returns `path`.

    Raises:
        VolumeError: no prepared scan, or, for supervoxels, one of the first version, which does not know its spacing.
    """
    scan = load_scan(path)
    values = np.stack([scan.grey(z) for z in range(len(scan.image))])
    if config.again or not path.with_name(path.stem + SUPERPIXELS).exists():
        save_superpixels(path, values, config.superpixel_size)
    if config.min_size:
        arrays = {name: np.array(value) for name, value in map_arrays(path).items()}
        if "spacing" not in arrays:
            raise VolumeError(f"{path} does not know the size of its pixels", "a file of this version", "prepare it again")
        spacing = tuple(float(mm) for mm in arrays["spacing"])
        found = supervoxels(values, (spacing[0], spacing[1], spacing[2]), min_size=config.min_size, order=config.order)
        save_scan(path, {**arrays, "regions": found.astype(np.uint16)})
    return path


def label_folder(folder: Path, config: PseudoConfig | None = None, *, workers: int = 1) -> list[Path]:
    """`label_scan` for every prepared scan of a folder, `workers` at once. Raises VolumeError when it holds none.

    Threads are enough: the compiled core lets the others run.
    """
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise VolumeError(f"{folder} holds no prepared scan", "a folder of `fewshotseg-train prepare`", "prepare scans first")
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return list(pool.map(lambda path: label_scan(path, config or PseudoConfig()), files))
