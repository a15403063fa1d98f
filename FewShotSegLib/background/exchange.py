"""Jobs and results in files, between an application and its worker process: .npy arrays (no pickle) and one JSON file.

Arrays that are one object in a job are one file and become one object again: a scan that is its own support stays that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from FewShotSegLib.background.events import Job
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.organs import Organ
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

JOB, RESULT = "job.json", "result{}.json"
ARRAYS = ("labels", "confidence", "slice_confidence", "probabilities")


def write_job(job: Job, folder: Path) -> None:
    """Put a job into an empty folder."""
    names: dict[int, str] = {}

    def store(array: np.ndarray) -> str:
        if id(array) not in names:
            names[id(array)] = f"array{len(names)}.npy"
            np.save(folder / names[id(array)], array, allow_pickle=False)
        return names[id(array)]

    def told(support: Support) -> dict[str, Any]:
        arrays = {"masks": store(support.masks), "drawn": store(support.drawn)}
        return {"image": _volume(support.image, store), "organs": [asdict(organ) for organ in support.organs], **arrays}

    supports = [told(support) for support in job.supports]
    content = {"supports": supports, "queries": [_volume(q, store) for q in job.queries], "config": asdict(job.config)}
    (folder / JOB).write_text(json.dumps(content), encoding="utf-8")


def read_job(folder: Path) -> Job:
    """The job in a folder."""
    content = json.loads((folder / JOB).read_text(encoding="utf-8"))
    arrays: dict[str, np.ndarray] = {}

    def load(name: str) -> np.ndarray:
        if name not in arrays:
            arrays[name] = np.load(folder / name, allow_pickle=False)
        return arrays[name]

    volumes: dict[str, Volume] = {}
    supports = tuple(
        Support(
            _read_volume(s["image"], load, volumes),
            load(s["masks"]),
            tuple(Organ(o["name"], o["label"], tuple(o["color"]), o["terminology"]) for o in s["organs"]),
            load(s["drawn"]),
        )
        for s in content["supports"]
    )
    return Job(supports, tuple(_read_volume(q, load, volumes) for q in content["queries"]), SegmenterConfig(**content["config"]))


def write_result(index: int, result: Segmentation, folder: Path) -> None:
    """Put the result of query `index` beside its job."""
    for name in ARRAYS:
        if getattr(result, name) is not None:
            np.save(folder / f"{name}{index}.npy", getattr(result, name), allow_pickle=False)
    content = {"notes": result.notes, "seconds": result.seconds}
    (folder / RESULT.format(index)).write_text(json.dumps(content), encoding="utf-8")


def read_result(index: int, job: Job, folder: Path) -> Segmentation:
    """The result of query `index`, whose files are then removed."""
    files = {name: folder / f"{name}{index}.npy" for name in ARRAYS}
    arrays = {name: np.load(file, allow_pickle=False) for name, file in files.items() if file.exists()}
    content = json.loads((folder / RESULT.format(index)).read_text(encoding="utf-8"))
    for file in files.values():
        file.unlink(missing_ok=True)
    query = job.queries[index]
    told = {"name": query.name, "notes": tuple(content["notes"]), "seconds": content["seconds"]}
    return Segmentation(query.geometry, job.supports[0].organs, **arrays, **told)


def _volume(volume: Volume, store: Callable[[np.ndarray], str]) -> dict[str, Any]:
    return {
        "array": store(volume.array),
        "geometry": asdict(volume.geometry),
        "name": volume.name,
        "modality": volume.modality,
    }


def _read_volume(told: dict[str, Any], load: Callable[[str], np.ndarray], known: dict[str, Volume]) -> Volume:
    key = json.dumps(told, sort_keys=True)
    if key not in known:
        known[key] = Volume(load(told["array"]), Geometry(**told["geometry"]), told["name"], told["modality"])
    return known[key]
