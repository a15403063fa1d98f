"""What a training needs on a machine without network, and what comes back from there: small, and whole.

A pack holds `cache/SET/CASE.npz` (8 bits a voxel, compressed), `weights/NAME` and `runs/NAME/...` (fp16), and the queue itself.
Results hold the finished runs (fp16) and the states of paused ones, so that another machine can go on.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from fewshotseg_training.queue.parts import MIB, read_parts, write_parts
from fewshotseg_training.queue.tasks import Places, Training, is_finished
from fewshotseg_training.scans import REPORT, SUPERPIXELS, load_scan, map_arrays
from FewShotSegLib.checkpoint_tensors import stored
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.files import atomic_path

PACK_LIMIT, RESULT_LIMIT, RESULT_PARTS = 64 * MIB, 16 * MIB, 8
TAR_HEAD, TAR_END = 2048, 20480  # bytes beside the content, at most
QUEUE = "QUEUE.md"
SMALL = ("run.json", "progress.json")
STATE = "state.pt"
Members = list[tuple[str, Path]]


def small_scan(path: Path, out: Path) -> Path:
    """A prepared scan with 256 grey levels, compressed: a quarter to a tenth of its size. The regions stay as they are."""
    scan, arrays = load_scan(path), map_arrays(path)
    grey = scan.grey(range(len(scan.image)))
    low, span = float(grey.min()), float(grey.max() - grey.min()) or 1.0
    kept = {name: value for name, value in arrays.items() if name not in ("image", "key")}
    kept |= {"image": np.rint((grey - low) * (255 / span)).astype(np.uint8), "scale": span / 255, "shift": low}
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **kept)
    return out


def small_weights(path: Path, out: Path) -> Path:
    """Weights as in a checkpoint: fp16 but for norms and biases."""
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: stored(name, tensor, True) for name, tensor in load_file(path).items()}, out)
    return out


def pack(queue: Path, trainings: Sequence[Training], places: Places, folder: Path, limit: int = PACK_LIMIT) -> list[Path]:
    """Write what these trainings need into parts of at most `limit` bytes.

    Raises:
        ConfigError: a set is not prepared, a base is not finished, or the weights are not there.
    """
    _check_there(trainings, places)
    with tempfile.TemporaryDirectory() as made:
        members: Members = [(QUEUE, queue)]
        for name in dict.fromkeys(name for training in trainings for name in training.sets):
            members += _set(places.cache / name, name, Path(made))
        if any(training.wants_weights for training in trainings):
            members.append((f"weights/{places.weights.name}", small_weights(places.weights, Path(made) / "weights")))
        own = {training.name for training in trainings}
        for name in dict.fromkeys(base for training in trainings for base in training.bases if base not in own):
            members += _run(places.runs / name, Path(made))
        for training in trainings:
            members += _state(places.runs / training.name)
        return write_parts(members, folder, "pack", limit)


def of_one_pack(trainings: Sequence[Training], runs: Path) -> list[Training]:
    """The first training that is ready, and all unfinished ones after it that need nothing beside its sets."""
    unfinished = [t for t in trainings if not t.finished(runs)]
    first = next((t for t in unfinished if t.ready(runs)), None)
    if first is None:
        return []
    chosen = [first]
    for training in unfinished:
        names = {t.name for t in chosen}
        known = all(base in names or is_finished(runs / base) for base in training.bases)
        if training.name not in names and known and set(training.sets) <= set(first.sets):
            chosen.append(training)
    return chosen


def _check_there(trainings: Sequence[Training], places: Places) -> None:
    own = {training.name for training in trainings}
    lacking = [f"the set {s}" for t in trainings for s in t.sets if not any((places.cache / s).glob("*.npz"))]
    lacking += [f"the run {b}" for t in trainings for b in t.bases if b not in own and not is_finished(places.runs / b)]
    if any(t.wants_weights for t in trainings) and not places.weights.is_file():
        lacking.append(f"the weights {places.weights}")
    if not trainings or lacking:
        what = ", ".join(dict.fromkeys(lacking)) or "a training that is ready"
        raise ConfigError(f"The pack lacks {what}", "prepared sets, finished bases, weights", "make them first")


def _set(folder: Path, name: str, made: Path) -> Members:
    members: Members = []
    for path in sorted(folder.glob("*.npz")):
        members.append((f"cache/{name}/{path.name}", small_scan(path, made / name / path.name)))
        beside = path.with_name(path.stem + SUPERPIXELS)
        if beside.exists():
            squeezed = made / name / f"{path.stem}.superpixels.npz"
            np.savez_compressed(squeezed, superpixels=np.load(beside, mmap_mode="r"))
            members.append((f"superpixels/{name}/{path.stem}.npz", squeezed))
    if (folder / REPORT).exists():  # the folds depend on it
        members.append((f"cache/{name}/{REPORT}", folder / REPORT))
    return members


def _run(folder: Path, made: Path) -> Members:
    """A finished run: its weights in fp16, and what it was."""
    weights = [small_weights(p, made / "runs" / folder.name / p.name) for p in sorted(folder.glob("*.safetensors"))]
    files = [*weights, *(folder / name for name in SMALL if (folder / name).exists())]
    return [(f"runs/{folder.name}/{path.name}", path) for path in files]


def _state(folder: Path) -> Members:
    """The state of a run that is not finished, with which another machine goes on."""
    found = [folder / name for name in (*SMALL, STATE) if (folder / STATE).exists() and (folder / name).exists()]
    return [(f"runs/{folder.name}/{path.name}", path) for path in found]


@dataclass(frozen=True)
class Results:
    """The parts that come back, and the runs whose states were too large to come along."""

    parts: list[Path]
    left_out: tuple[str, ...] = ()


def write_results(
    trainings: Sequence[Training], places: Places, folder: Path, limit: int = RESULT_LIMIT, parts: int = RESULT_PARTS
) -> Results:
    """Write what the queue's runs gave into at most `parts` files of at most `limit` bytes: finished runs first, then states.

    Raises:
        ConfigError: there is nothing to bring back.
    """
    room, left_out = limit * parts - TAR_END, []
    members: Members = []
    with tempfile.TemporaryDirectory() as made:
        for training in sorted(trainings, key=lambda t: not t.finished(places.runs)):
            run = places.runs / training.name
            own = _run(run, Path(made)) if training.finished(places.runs) else _state(run)
            size = sum(path.stat().st_size + TAR_HEAD for _, path in own)
            if size > room:
                left_out.append(training.name)
                continue
            room -= size
            members += own
        if not members:
            raise ConfigError(f"No run in {places.runs} has anything to bring back", "a finished or paused run", "run the queue")
        return Results(write_parts(members, folder, "results", limit), tuple(left_out))


def unpack(files: Sequence[Path], places: Places, folder: Path) -> list[Path]:
    """Put the parts of a pack, or of results, where they belong: sets, weights and runs; the queue goes into `folder`.

    Raises:
        ConfigError: see `read_parts`; nothing was moved then.
    """
    homes = {"cache": places.cache, "runs": places.runs, "weights": places.weights.parent, "superpixels": places.cache}
    written = []
    places.runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.runs) as made:
        for path in read_parts(files, Path(made)):
            kind, *rest = path.relative_to(made).parts
            target = homes[kind].joinpath(*rest) if kind in homes else folder / kind
            if kind == "superpixels":
                target = target.with_name(target.stem + SUPERPIXELS)
            with atomic_path(target) as part:
                if kind == "superpixels":
                    with np.load(path) as data:
                        np.save(part, data["superpixels"])
                else:
                    shutil.copyfile(path, part)
            written.append(target)
    return written
