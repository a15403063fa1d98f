"""Prepared scans: preprocessed once, kept as memory-mapped arrays, drawn from by training."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from fewshotseg_training.supervoxels import supervoxels

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


def prepare_scan(source: Path, out: Path, *, min_size: int, every_mm: float = 3.0) -> None:
    """Read one scan, thin its slices to about `every_mm`, segment its supervoxels and write both arrays atomically."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(source), sitk.sitkFloat32), "LPS")
    step = max(1, round(every_mm / image.GetSpacing()[2]))
    array = fit_square(sitk.GetArrayFromImage(image)[::step])
    array = np.minimum(array, np.percentile(array, 99.5))
    spacing = (image.GetSpacing()[2] * step, image.GetSpacing()[1], image.GetSpacing()[0])
    regions = supervoxels(array, spacing, min_size=min_size).astype(np.uint16)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part.npz")
    z_scored = ((array - array.mean()) / array.std()).astype(np.float16)
    with open(part, "wb") as file:
        np.savez(file, image=z_scored, regions=regions, slice_spacing=spacing[0])
    os.replace(part, out)


def prepare_folder(folder: Path, cache: Path, *, min_size: int) -> list[Path]:
    """Prepare every case of a folder laid out as `dataset.json` + `<case>_image.nii.gz`; done ones are kept."""
    done = []
    for case in json.loads((folder / "dataset.json").read_text())["cases"]:
        out = cache / folder.name / f"{case}.npz"
        if not out.exists():
            prepare_scan(folder / f"{case}_image.nii.gz", out, min_size=min_size)
        done.append(out)
    return done


def load_scan(path: Path) -> TrainingScan:
    """A prepared scan from its file."""
    with np.load(path) as data:
        return TrainingScan(path.stem, data["image"], data["regions"], float(data["slice_spacing"]))
