"""Small cohorts for tests: tiny scans, and an engine that takes what is bright for the organ."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from FewShotSegLib.cohort import case as case_module
from FewShotSegLib.cohort.case import Worker
from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.engine import Found
from FewShotSegLib.cohort.locks import Locks
from FewShotSegLib.cohort.nearest import Descriptor
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.quality import Prediction
from FewShotSegLib.cohort.run import run
from FewShotSegLib.errors import Cancelled
from FewShotSegLib.job import Drawing
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import write_segmentation
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.volume import Geometry, Volume

ORGANS = (Organ("liver", 1), Organ("spleen", 2))
SHAPE = (4, 12, 12)
GEOMETRY = Geometry.of(sitk.GetImageFromArray(np.zeros(SHAPE, np.float32)))


def make_scan(seed: int) -> tuple[Volume, np.ndarray]:
    """A scan with a bright liver, a dim spleen, and their labels (z, y, x)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:6, 2 : 6 + seed % 3] = 1
    labels[1:3, 8:10, 8:11] = 2
    values = np.array([0.0, 200.0, 100.0])[labels] + rng.normal(0, 5, SHAPE)
    return Volume(values.astype(np.float32), GEOMETRY, modality="MR"), labels


def make_cohort(folder: Path, scans: int, **options: Any) -> CohortConfig:
    """A folder of scans s000.nii ... and a drawn one beside it; the configuration of a cohort on them."""
    (folder / "scans").mkdir(parents=True)
    for number in range(scans):
        make_scan(number)[0].write(folder / "scans" / f"s{number:03d}.nii")
    volume, labels = make_scan(1000)
    volume.write(folder / "drawn.nii")
    write_segmentation(GEOMETRY.to_sitk(labels), ORGANS, folder / "drawn.seg.nrrd")
    return CohortConfig(folder / "scans", folder / "out", (Drawing(folder / "drawn.nii", folder / "drawn.seg.nrrd"),), **options)


class BrightEngine:
    """Finds what is bright. `names` are the scans that it saw, `before` is called with each."""

    checkpoint = "bright"

    def __init__(self, supports: tuple[str, ...], before: Callable[[Volume], None] = lambda volume: None) -> None:
        self.supports, self.before, self.names = supports, before, list[str]()

    def segment(self, volume: Volume, cancel: Callable[[], bool]) -> Found:
        """Labels by thresholds; expected Dice from the last digit of the scan's name."""
        self.names.append(volume.name)
        self.before(volume)
        if cancel():
            raise Cancelled()
        labels = (np.where(volume.array > 150, 1, 0) + np.where((volume.array > 50) & (volume.array <= 150), 2, 0)).astype(
            np.uint8
        )
        sure = np.array([0.9, 0.8])
        done = Segmentation(volume.geometry, ORGANS, labels, sure, np.full((2, len(labels)), 0.8), name=volume.name, seconds=0.0)
        expected = {"liver": 0.9, "spleen": 0.5 + 0.05 * int(volume.name[-1], 36) % 0.5}
        similarity = dict.fromkeys(self.supports, 0.5)
        descriptor = Descriptor(np.full((2, 3, 4, 4), 0.5, np.float16), 5.0)
        return Found(done, self.supports, similarity, Prediction({"liver": {"best": 0.8}, "spleen": {}}, expected), descriptor)

    def made_with(self) -> dict[str, Any]:
        """Nothing worth to know."""
        return {"config": "bright"}


def use_bright_engine(monkeypatch: Any, before: Callable[[Volume], None] = lambda volume: None) -> list[BrightEngine]:
    """Let `open_worker` make bright engines; the returned list gathers them."""
    made: list[BrightEngine] = []

    def create(config: CohortConfig, supports: Any, device: str = "") -> BrightEngine:
        made.append(BrightEngine(tuple(s.id for s in supports), before))
        return made[-1]

    monkeypatch.setattr(case_module, "create_engine", create)
    return made


def run_in_process(config: dict[str, Any], seconds: float) -> None:
    """A run for a process of its own, `seconds` per scan."""
    engine = BrightEngine((), lambda volume: time.sleep(seconds))
    case_module.create_engine = lambda config, supports, device="": engine  # type: ignore[assignment]
    run(CohortConfig.from_json(config))


def open_bright(config: CohortConfig, cancelled: Callable[[], bool] = lambda: False) -> Worker:
    """As `open_worker`, with a bright engine that takes 0.2 s per scan and tells its process."""
    engine = BrightEngine((), lambda volume: time.sleep(0.2))
    engine.made_with = lambda: {"process": os.getpid()}  # type: ignore[method-assign]
    places = Places(config.output)
    return Worker(config, engine, (), config.settings("bright"), Locks(places.locks, config.settings("bright")), cancelled)


def open_deadly(config: CohortConfig, cancelled: Callable[[], bool] = lambda: False) -> Worker:
    """A worker whose process dies of scan s002."""
    worker = open_bright(config, cancelled)
    worker.engine.before = lambda volume: os._exit(1) if volume.name == "s002" else None  # type: ignore[attr-defined]
    return worker
