"""Prepared scans: preprocessed once, kept as arrays, drawn from by training."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from fewshotseg_training.supervoxels import supervoxels
from FewShotSegLib.encoding import thinned
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.grid import CT_WINDOW, DEFAULT_PIXELS, MR_PERCENTILE, AxialGrid
from FewShotSegLib.volume import Volume

SIZE = 256


@dataclass(frozen=True)
class TrainingScan:
    """One unlabelled scan: `image` (z, y, x) float16 z-scored, `regions` (z, y, x) uint16, slice spacing in mm."""

    name: str
    image: np.ndarray
    regions: np.ndarray
    slice_spacing: float


def fit_square(array: np.ndarray, size: int = SIZE) -> np.ndarray:
    """Centre-crop or pad (with the minimum) the last two axes to `size`."""
    out = np.full((len(array), size, size), array.min(), array.dtype)
    cut = [max(0, (n - size) // 2) for n in array.shape[1:]]
    array = array[:, cut[0] : cut[0] + size, cut[1] : cut[1] + size]
    pad = [(size - n) // 2 for n in array.shape[1:]]
    out[:, pad[0] : pad[0] + array.shape[1], pad[1] : pad[1] + array.shape[2]] = array
    return out


def training_slices(volume: Volume, every_mm: float, size: int) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Axial slices about `every_mm` apart, `size` pixels along the longer side, clipped as at use; spacing (z, y, x) in mm.

    Raises:
        VolumeError: NaN or infinite voxels, or all alike.
    """
    whole = AxialGrid.of(volume.geometry)
    grid = AxialGrid.of(volume.geometry, pixel_mm=whole.pixel_mm * DEFAULT_PIXELS / size)
    slices = thinned(grid.shape[0], grid.slice_mm, every_mm)
    values = fit_square(grid.forward_slices(volume.array, slices, order=1, fill=float(volume.array.min())), size)
    array = values.clip(*CT_WINDOW) if volume.is_ct else np.minimum(values, np.percentile(values, MR_PERCENTILE))
    if not np.isfinite(values).all() or array.min() == array.max():
        raise VolumeError(
            f"The voxels of {volume.name} are NaN, infinite, or all alike",
            "a scan with contrast",
            "repair the scan, or take it out of dataset.json",
        )
    step = int(slices[1] - slices[0]) if len(slices) > 1 else 1
    return array, (grid.slice_mm * step, grid.pixel_mm, grid.pixel_mm)


def prepare_scan(source: Path, out: Path, *, min_size: int, every_mm: float = 3.0, size: int = SIZE, modality: str = "") -> None:
    """Read one scan, thin its slices to about `every_mm`, segment its supervoxels and write both arrays atomically.

    Raises:
        VolumeError: a file that cannot be read, or voxels that cannot be used.
    """
    volume = Volume.read(source)
    array, spacing = training_slices(replace(volume, modality=modality or volume.modality), every_mm, size)
    regions = supervoxels(array, spacing, min_size=min_size).astype(np.uint16)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    z_scored = ((array - array.mean()) / array.std()).astype(np.float16)
    with open(part, "wb") as file:
        np.savez(file, image=z_scored, regions=regions, slice_spacing=spacing[0])
    os.replace(part, out)


def prepare_folder(folder: Path, cache: Path, *, min_size: int, size: int = SIZE) -> list[Path]:
    """Prepare every case of a folder laid out as `dataset.json` + `<case>_image.nii.gz`; done ones are kept.

    Raises:
        VolumeError: no readable `dataset.json`, or a broken scan; what is done by then stays.
    """
    modality, cases = _described(folder)
    done = []
    for case in cases:
        out = cache / folder.resolve().name / f"{case}.npz"
        if not out.exists():
            prepare_scan(folder / f"{case}_image.nii.gz", out, min_size=min_size, size=size, modality=modality)
        done.append(out)
    return done


def _described(folder: Path) -> tuple[str, list[str]]:
    """Modality ("" when not declared) and cases of a folder of scans, which need no labels."""
    path = folder / "dataset.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        return str(described.get("modality", "")), [str(case) for case in described["cases"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VolumeError(f"{path} cannot be used ({error!r})", "a JSON object that lists the scans as `cases`") from error


def load_scan(path: Path) -> TrainingScan:
    """A prepared scan from its file; VolumeError when that is missing or damaged."""
    try:
        with np.load(path) as data:
            return TrainingScan(path.stem, data["image"], data["regions"], float(data["slice_spacing"]))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise VolumeError(
            f"{path} is no prepared scan ({error})", "a file of `fewshotseg-train prepare`", "delete it and prepare it again"
        ) from error
