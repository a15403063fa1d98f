"""Prepared scans: preprocessed once, kept as memory-mapped arrays, drawn from by training."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.files import atomic_path

SUPERPIXELS = ".superpixels.npy"
LABELS = ".labels.npy"
REPORT = "prepare.json"
LEVELS = 65534  # of an int16 image


@dataclass(frozen=True, eq=False)
class TrainingScan:
    """One unlabelled scan: `image` (z, y, x), `regions` (z, y, x) uint16 supervoxels, slice spacing in mm.

    image: float16 z-scored, or int16 or uint8 levels; `grey` makes z-scored float32 of all.
    superpixels: (z, y, x) uint16, or None.
    present: (z, labels) bool, which labels of `labels` a slice shows; only to leave slices out (setting 2), and only of scans
    that were prepared beside a label map.
    drawn: (z, y, x) uint16, that label map, or None; only for trainings that are told to use labels.
    """

    name: str
    image: np.ndarray
    regions: np.ndarray
    slice_spacing: float
    scale: float = 1.0
    shift: float = 0.0
    superpixels: np.ndarray | None = None
    labels: tuple[int, ...] = ()
    present: np.ndarray | None = None
    drawn: np.ndarray | None = None

    def grey(self, slices: int | Sequence[int]) -> np.ndarray:
        """Z-scored float32 pixels of one slice (y, x) or several (n, y, x)."""
        values = self.image[slices if isinstance(slices, int) else list(slices)].astype(np.float32)
        return values if self.image.dtype == np.float16 else values * np.float32(self.scale) + np.float32(self.shift)

    def layer(self, kind: Literal["superpixels", "regions"]) -> np.ndarray:
        """Region ids (z, y, x). Raises VolumeError when the scan has no superpixels."""
        if kind == "regions":
            return self.regions
        if self.superpixels is None:
            raise VolumeError(
                f"The prepared scan {self.name} has no superpixels",
                f"the file {self.name}{SUPERPIXELS} beside it",
                "run `fewshotseg-train pseudolabels` on its folder",
            )
        return self.superpixels

    def shows(self, labels: Sequence[int]) -> np.ndarray:
        """Which of these labels each slice shows, (z, labels) bool. Raises VolumeError when that is not known."""
        if not labels:
            return np.zeros((len(self.image), 0), bool)
        if self.present is None:
            raise VolumeError(
                f"Nobody knows which slices of {self.name} show the labels {list(labels)}",
                "a scan that was prepared beside its label map (<case>_label.nii.gz)",
                "prepare it again with the label map, or train without --exclude",
            )
        columns = [self.present[:, self.labels.index(v)] if v in self.labels else np.zeros(len(self.image), bool) for v in labels]
        return np.stack(columns, 1)


def quantised(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Values as int16, with scale and shift that bring their z-scores back to a 65534th of their range."""
    low, span = float(values.min()), float(values.max() - values.min())
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    levels = np.rint((values - low) * (LEVELS / span) - LEVELS // 2).astype(np.int16)
    return levels, span / LEVELS / std, (low + span * (LEVELS // 2) / LEVELS - mean) / std


def save_scan(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays (`image`, `regions`, `slice_spacing`, ...) as an uncompressed .npz, atomically."""
    with atomic_path(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)


def load_scan(path: Path) -> TrainingScan:
    """A prepared scan from its file, memory-mapped; VolumeError when that is missing or damaged."""
    try:
        data = map_arrays(path)
        return TrainingScan(
            path.stem,
            data["image"],
            data["regions"],
            float(data["slice_spacing"]),
            float(data.get("scale", 1.0)),
            float(data.get("shift", 0.0)),
            _beside(path, SUPERPIXELS),
            tuple(int(v) for v in data.get("labels", ())),
            data.get("present"),
            _beside(path, LABELS),
        )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, struct.error) as error:
        raise VolumeError(
            f"{path} is no prepared scan ({error})", "a file of `fewshotseg-train prepare`", "delete it and prepare it again"
        ) from error


def _beside(path: Path, suffix: str) -> np.ndarray | None:
    """The array in the file of a prepared scan that ends in `suffix`, memory-mapped; None without such a file."""
    file = path.with_name(path.stem + suffix)
    return np.load(file, mmap_mode="r") if file.exists() else None


def map_arrays(path: Path) -> dict[str, Any]:
    """The arrays of an uncompressed .npz: large ones are memory-mapped where they lie in the file, text becomes str.

    Raises:
        OSError, ValueError, BadZipFile, struct.error: what a damaged file causes.
    """
    found: dict[str, Any] = {}
    with ZipFile(path) as archive, open(path, "rb") as file:
        for item in archive.infolist():
            name = item.filename.removesuffix(".npy")
            with archive.open(item) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(member)
                header = member.tell()
                if item.compress_type != ZIP_STORED or len(shape) < 3:
                    member.seek(0)
                    found[name] = np.lib.format.read_array(member)
                    continue
            file.seek(item.header_offset + 26)
            extra = sum(struct.unpack("<HH", file.read(4)))
            start = item.header_offset + 30 + extra + header
            found[name] = np.memmap(path, dtype, "r", start, shape, "F" if fortran else "C")
    return found
