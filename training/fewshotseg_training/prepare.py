"""From a folder of scans to a cache that training reads: preprocessed, cut into pseudo-labels, keyed by content and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np

from fewshotseg_training.body import scale_to_255
from fewshotseg_training.find_scans import FoundScan, find_scans
from fewshotseg_training.preprocess import SIZE, general, paper
from fewshotseg_training.scans import LABELS, REPORT, SUPERPIXELS, map_arrays, quantised, save_scan
from fewshotseg_training.superpixels import superpixels
from fewshotseg_training.supervoxels import supervoxels
from FewShotSegLib.errors import FewShotSegError, VolumeError
from FewShotSegLib.files import atomic_path
from FewShotSegLib.volume import Volume

VERSION = 2  # of the files; raise it when the same settings give other voxels


@dataclass(frozen=True)
class PrepareConfig:
    """How scans are prepared.

    min_size: smallest supervoxel, in voxels (papers: 5000 abdomen, 1000 heart). order: of supervoxel edges of equal cost, see
    `felzenszwalb_3d`. superpixels, superpixel_size: also 2D superpixels, of at least so many pixels.
    keep_labels: keep label maps that lie beside the scans, for trainings that are told to use them.
    preset: `general` thins the slices to about `every_mm` and shows them as use does; `paper` is the papers' way.
    """

    min_size: int = 5000
    every_mm: float = 3.0
    size: int = SIZE
    preset: Literal["general", "paper"] = "general"
    order: Literal["stable", "numpy-introsort"] = "stable"
    superpixels: bool = False
    superpixel_size: int = 400
    keep_labels: bool = False


@dataclass(frozen=True)
class Prepared:
    """What is ready, and which scans could not be used and why, by their name."""

    done: list[Path]
    failed: dict[str, str] = field(default_factory=dict)


OnScan = Callable[[str, int, int], None]
"""(name of a scan that is through, how many are, of how many)."""


def prepare_folder(
    folder: Path, cache: Path, config: PrepareConfig | None = None, *, workers: int = 1, on_scan: OnScan | None = None
) -> Prepared:
    """Prepare all scans below a folder into `cache/<folder's name>`; what is ready already is kept.

    A broken scan is recorded, with the reason, in the result and in `prepare.json` beside the prepared ones.

    Raises:
        VolumeError: the folder holds no scan, or its `dataset.json` cannot be used.
    """
    config = config or PrepareConfig()
    scans = find_scans(folder)
    out = cache / folder.resolve().name
    done, failed = {}, {}
    for n, (name, problem) in enumerate(_prepare_all(scans, out, config, workers), 1):
        if problem:
            failed[name] = problem
        else:
            done[name] = out / f"{name}.npz"
        if on_scan is not None:
            on_scan(name, n, len(scans))
    with atomic_path(out / REPORT) as part:
        said = {"config": asdict(config), "done": sorted(done), "failed": dict(sorted(failed.items()))}
        part.write_text(json.dumps(said, indent=1), encoding="utf-8")
    return Prepared([done[name] for name in sorted(done)], dict(sorted(failed.items())))


def _prepare_all(scans: Sequence[FoundScan], out: Path, config: PrepareConfig, workers: int) -> Iterator[tuple[str, str]]:
    """Name and problem ("" = none) of each scan as it gets ready."""
    if workers <= 1:
        for scan in scans:
            yield scan.name, prepare_safely(scan, out / f"{scan.name}.npz", config)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(prepare_safely, scan, out / f"{scan.name}.npz", config): scan.name for scan in scans}
        for job in as_completed(jobs):
            try:
                yield jobs[job], job.result()
            except BrokenProcessPool:
                yield jobs[job], "a worker process was killed, perhaps out of memory; run again with fewer --workers"


def prepare_safely(scan: FoundScan, out: Path, config: PrepareConfig) -> str:
    """Prepare one scan unless its file is up to date; returns what was wrong with the scan, "" when nothing."""
    try:
        key = scan_key(scan, config)
        if not up_to_date(out, key, config, labelled=scan.label is not None):
            prepare_scan(scan, out, config, key=key)
        return ""
    except (FewShotSegError, OSError, RuntimeError, ValueError, MemoryError) as error:
        return str(error) or type(error).__name__


def scan_key(scan: FoundScan, config: PrepareConfig) -> str:
    """SHA-256 of the scan's files, its label map's, and the settings that change what is stored."""
    settings = {k: v for k, v in asdict(config).items() if not k.startswith("superpixel") and k != "keep_labels"}
    digest = hashlib.sha256(json.dumps([VERSION, settings, scan.modality, scan.series], sort_keys=True).encode())
    for path in [*scan.files, *([scan.label] if scan.label else [])]:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else file.read())
    return digest.hexdigest()


def up_to_date(out: Path, key: str, config: PrepareConfig, *, labelled: bool = False) -> bool:
    """Whether a prepared file is there and made of this scan in this way; a file without a key (version 1) is kept.

    `labelled`: the scan has a label map.
    """
    beside = [SUPERPIXELS] * config.superpixels + [LABELS] * (config.keep_labels and labelled)
    if not all(file.exists() for file in (out, *(out.with_name(out.stem + suffix) for suffix in beside))):
        return False
    try:
        return map_arrays(out).get("key", key) == key
    except Exception:  # noqa: BLE001 - whatever is wrong with it, it is made again
        return False


def prepare_scan(scan: FoundScan, out: Path, config: PrepareConfig, *, key: str = "") -> None:
    """Read one scan, preprocess it, segment its pseudo-labels and write all atomically.

    Raises:
        VolumeError: a file that cannot be read, or voxels that cannot be used.
    """
    volume = scan.read()
    labels = _label_map(scan, volume)
    if config.preset == "paper":
        slices = paper(volume, labels, config.size)
    else:
        slices = general(volume, labels, config.every_mm, config.size)
    regions = supervoxels(slices.values, slices.spacing, min_size=config.min_size, order=config.order)
    image, scale, shift = quantised(slices.values)
    arrays = {"image": image, "regions": regions.astype(np.uint16), "slice_spacing": slices.spacing[0], "key": np.array(key)}
    arrays |= {"scale": scale, "shift": shift, "spacing": np.array(slices.spacing)}
    if slices.labels is not None:
        values = [int(v) for v in np.unique(slices.labels) if v]
        shown = [(slices.labels == v).any((1, 2)) for v in values]
        arrays |= {"labels": np.array(values, int), "present": np.stack(shown, 1) if shown else np.zeros((len(image), 0), bool)}
        if config.keep_labels:
            _save_beside(out, LABELS, slices.labels.astype(np.uint16))
    if config.superpixels:
        save_superpixels(out, slices.values, config.superpixel_size)
    save_scan(out, arrays)


def save_superpixels(scan: Path, values: np.ndarray, min_size: int) -> Path:
    """Segment grey values (z, y, x) into 2D superpixels and write them beside the prepared scan."""
    return _save_beside(scan, SUPERPIXELS, superpixels(scale_to_255(values), min_size=min_size).astype(np.uint16))


def _save_beside(scan: Path, suffix: str, values: np.ndarray) -> Path:
    path = scan.with_name(scan.stem + suffix)
    with atomic_path(path) as part, open(part, "wb") as file:
        np.save(file, values)
    return path


def _label_map(scan: FoundScan, volume: Volume) -> np.ndarray | None:
    if scan.label is None:
        return None
    labels = Volume.read(scan.label)
    if labels.geometry.shape != volume.geometry.shape:
        raise VolumeError(
            f"The label map {scan.label.name} has the shape {labels.geometry.shape}",
            f"that of its scan, {volume.geometry.shape}",
            "correct or remove the label map",
        )
    return labels.array
