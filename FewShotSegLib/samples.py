"""Slicer's public sample scans, and a simple drawing to begin with on each.

Addresses and SHA-256 digests are those of the Sample Data module of 3D Slicer, where a file's name is its digest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from FewShotSegLib.download import DownloadProgress, default_cache_dir, fetch, sha256_of
from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.grid import axial_order
from FewShotSegLib.organs import Organ
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

SLICER_DATA = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
SLICES_TRIED = 48
SMOOTHING_MM = 1.5
BRIDGE_MM = 4.0
SMALLEST_MM2 = 200.0

Range = tuple[float, float]


@dataclass(frozen=True)
class SeedDrawing:
    """A rule that draws one organ on one slice. A stand-in for a person's drawing, not a ground truth: it is as wrong as a
    threshold is, and no Dice against it means anything.

    Of the voxels of a brightness range within a box, thin bridges are cut and the largest piece is kept, its holes filled; the
    slice where this piece is largest is drawn.

    Attributes:
        organ: name of what is drawn.
        brightness: lowest and highest voxel value; None for everything brighter than Otsu's threshold between dark and bright.
        spread: when given, instead of the whole range only values this close to the most frequent one in it.
        right_left, front_back, feet_head: the box as fractions of the scan.
    """

    organ: str
    brightness: Range | None
    right_left: Range = (0.0, 1.0)
    front_back: Range = (0.0, 1.0)
    feet_head: Range = (0.0, 1.0)
    spread: float | None = None

    def draw(self, volume: Volume) -> Support:
        """Draw on one of the scan's own slices.

        Raises:
            SupportError: no piece of at least 2 cm² is in the range, on any slice.
        """
        box = self._box(volume)
        low, high = self._range(volume, box)
        rows = [k for k in range(len(box)) if box[k].any()]
        candidates = ((k, _piece(volume, k, low, high, box[k])) for k in rows[:: max(1, len(rows) // SLICES_TRIED)])
        k, mask = _largest(candidates)
        if mask.sum() * volume.spacing[0] * volume.spacing[1] < SMALLEST_MM2:
            raise SupportError(
                f"Nothing in {volume.name or 'the scan'} looks like {self.organ}", f"voxel values from {low:g} to {high:g}"
            )
        masks = np.zeros((1, *volume.array.shape), bool)
        masks[0, k] = mask
        return Support.create(volume, masks, (Organ(self.organ, 1),), slices=[k])

    def _range(self, volume: Volume, box: np.ndarray) -> Range:
        """The brightness range for this scan."""
        step = max(1, len(box) // SLICES_TRIED)
        if self.brightness is None:
            return float(threshold_otsu(volume.array[::step])), np.inf
        low, high = self.brightness
        if self.spread is None:
            return low, high
        smooth = np.stack([_smooth(volume, k) for k in range(0, len(box), step)])[box[::step]]
        count, edges = np.histogram(smooth, bins=64, range=self.brightness)
        peak = edges[ndimage.gaussian_filter1d(count.astype(float), 2.0).argmax()] + (edges[1] - edges[0]) / 2
        return peak - self.spread, peak + self.spread

    def _box(self, volume: Volume) -> np.ndarray:
        """The box as bool (z, y, x) on the scan's grid."""
        box = np.zeros(volume.array.shape, bool)
        axes, flipped = axial_order(volume.geometry)
        axial = box.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flipped)]
        ranges = (self.feet_head, self.front_back, self.right_left)
        axial[tuple(slice(round(a * n), round(b * n)) for (a, b), n in zip(ranges, axial.shape, strict=True))] = True
        return box


@dataclass(frozen=True)
class SampleScan:
    """A scan that can be downloaded.

    Attributes:
        name: as in Slicer's Sample Data module.
        url, sha256: where it is, and what it must be.
        file: name of the file; the address does not end with one.
        modality: "MR" or "CT".
        about: what it shows, and whose it is.
        drawing: how the first slice is drawn.
    """

    name: str
    url: str
    sha256: str
    file: str
    modality: str
    about: str
    drawing: SeedDrawing

    def fetch(self, *, cache_dir: str | Path | None = None, progress: DownloadProgress | None = None) -> Path:
        """The scan's file in the cache, downloaded when it is not there yet.

        Raises:
            DownloadError: no network, or the file is not what it must be.
            OutputError: the cache cannot be written to.
        """
        folder = Path(cache_dir or default_cache_dir())
        named = folder / self.sha256[:16] / self.file
        if not (named.is_file() and sha256_of(named) == self.sha256):
            os.replace(fetch(self.url, self.sha256, cache_dir=folder, progress=progress), named)
        return named

    def read(self, *, cache_dir: str | Path | None = None, progress: DownloadProgress | None = None) -> Volume:
        """The scan, downloaded when it is not in the cache yet; errors as in `fetch`."""
        found = Volume.read(self.fetch(cache_dir=cache_dir, progress=progress))
        return Volume(found.array, found.geometry, name=self.name, modality=self.modality)


def list_samples() -> list[SampleScan]:
    """All sample scans."""
    return list(_SAMPLES)


def find_sample(name: str) -> SampleScan:
    """The sample scan of this name, in any case.

    Raises:
        ConfigError: there is none.
    """
    for sample in _SAMPLES:
        if sample.name.casefold() == name.casefold():
            return sample
    raise ConfigError(f"Sample scan {name!r}", f"one of {', '.join(sample.name for sample in _SAMPLES)}")


def _slicer(name: str, sha256: str, file: str, modality: str, about: str, drawing: SeedDrawing) -> SampleScan:
    return SampleScan(name, SLICER_DATA + sha256, sha256, file, modality, about, drawing)


# The liver's box and spread were chosen on the 22 abdominal CTs of sabs_ct, where the drawn slice has a Dice of 0.90 in the mean
# and 0.57 in the worst case.
_SAMPLES = (
    _slicer(
        "MRHead",
        "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93",
        "MR-head.nrrd",
        "MR",
        "T1-weighted MR of a head; given to the 3D Slicer project by the person shown, to be used without restriction",
        SeedDrawing("head", None),
    ),
    _slicer(
        "CTChest",
        "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e",
        "CT-chest.nrrd",
        "CT",
        "CT of a chest; sample data of the 3D Slicer project",
        SeedDrawing("right lung", (-980.0, -500.0), (0.08, 0.5), (0.1, 0.9)),
    ),
    _slicer(
        "CTLiver",
        "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e",
        "CTLiver.nrrd",
        "CT",
        "Contrast-enhanced CT of an abdomen; Medical Segmentation Decathlon, Task03, liver_100, CC BY-SA 4.0",
        SeedDrawing("liver", (50.0, 200.0), (0.08, 0.55), (0.1, 0.8), (0.4, 1.0), spread=30.0),
    ),
)


def _piece(volume: Volume, k: int, low: float, high: float, box: np.ndarray) -> np.ndarray:
    """The largest piece of slice `k` within a brightness range and a box, bool (y, x)."""
    spacing = volume.spacing[1::-1]
    smooth = _smooth(volume, k)
    inside = ndimage.distance_transform_edt((smooth >= low) & (smooth <= high) & box, sampling=spacing) > BRIDGE_MM
    pieces, count = ndimage.label(inside)
    if not count:
        return np.zeros_like(inside)
    core = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    return ndimage.binary_fill_holes(ndimage.distance_transform_edt(~core, sampling=spacing) <= BRIDGE_MM)


def _smooth(volume: Volume, k: int) -> np.ndarray:
    """Slice `k` with less noise, float32 (y, x)."""
    return ndimage.gaussian_filter(volume.array[k].astype(np.float32), [SMOOTHING_MM / mm for mm in volume.spacing[1::-1]])


def _largest(candidates: Iterable[tuple[int, np.ndarray]]) -> tuple[int, np.ndarray]:
    return max(candidates, key=lambda candidate: int(candidate[1].sum()))
