"""A whole invented patient from one seed, and a folder of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.files import atomic_path
from FewShotSegLib.organs import Organ
from FewShotSegLib.phantom import gut, organs, torso
from FewShotSegLib.phantom.fields import smooth_field
from FewShotSegLib.phantom.frame import Body, Canvas
from FewShotSegLib.phantom.scanner import scan
from FewShotSegLib.phantom.tissues import LOOKS
from FewShotSegLib.volume import Geometry, Volume

Modality = Literal["MR", "CT"]
Triple = tuple[float, float, float]
FIELD_OF_VIEW_MM = (320.0, 320.0, 277.2)
ORGANS = (
    Organ("liver", organs.LIVER),
    Organ("right kidney", organs.RIGHT_KIDNEY),
    Organ("left kidney", organs.LEFT_KIDNEY),
    Organ("spleen", organs.SPLEEN),
)
EXTRAS = (Organ("aorta", organs.AORTA),)


@dataclass(frozen=True, eq=False)
class Phantom:
    """An invented patient: the scan, the true labels uint8 (z, y, x) on its grid, and what they mean."""

    volume: Volume
    labels: np.ndarray
    organs: tuple[Organ, ...]


def make_patient(
    seed: int,
    modality: Modality = "MR",
    shape: tuple[int, int, int] = (36, 256, 256),
    spacing: Triple | None = None,
    *,
    extras: bool = False,
) -> Phantom:
    """An invented abdomen, drawn from formulas: no patient's data went into it.

    Two seeds are two people: habitus, pose, shape, place and size of every organ, brightness and texture differ. One seed
    is one person on every grid and with both modalities. Equal arguments give equal voxels, whatever the number of threads.

    Args:
        seed: which person, 0 or more.
        modality: "MR" (fat-suppressed T2-weighted) or "CT" (portal venous phase).
        shape: voxels (z, y, x).
        spacing: (x, y, z) mm; by default the shape covers 320 x 320 x 277 mm, 1.25 x 1.25 x 7.7 mm for the default shape.
        extras: label the aorta too, as 5.

    Raises:
        ConfigError: a negative seed, an unknown modality, or a shape that is not three positive numbers.
    """
    _check(seed, modality, shape)
    geometry = _geometry(shape, spacing)
    axes = tuple(
        start + mm * np.arange(n) for n, mm, start in zip(shape, geometry.spacing[::-1], geometry.origin[::-1], strict=True)
    )
    canvas = _paint(np.random.default_rng([seed, 0]), axes)
    array = scan(canvas, modality, axes, geometry.spacing, np.random.default_rng([seed, 1, ord(modality[0])]))
    shown = ORGANS + EXTRAS if extras else ORGANS
    labels = np.where(np.isin(canvas.labels, [organ.label for organ in shown]), canvas.labels, 0).astype(np.uint8)
    return Phantom(Volume(array, geometry, name=f"phantom {seed} {modality}", modality=modality), labels, shown)


def _geometry(shape: tuple[int, int, int], spacing: Triple | None) -> Geometry:
    """A grid in patient axes around the origin."""
    size = shape[::-1]
    x, y, z = (mm / n for mm, n in zip(FIELD_OF_VIEW_MM, size, strict=True))
    spacing = spacing or (x, y, z)
    i, j, k = (-(n - 1) / 2 * mm for n, mm in zip(size, spacing, strict=True))
    return Geometry(size, spacing, (i, j, k))


def _paint(rng: np.random.Generator, axes: tuple[np.ndarray, ...]) -> Canvas:
    """Draw one person on a grid; each painter has its own generator, so that changing one leaves the others' draws alone."""
    streams = iter(rng.spawn(12))
    canvas = Canvas.blank(_pose(next(streams), axes))
    build = torso.Build.random(next(streams))
    trunk = torso.paint_trunk(canvas, build)
    organs.paint_liver(canvas, build, trunk, next(streams))
    organs.paint_spleen(canvas, build, trunk, next(streams))
    organs.paint_kidney(canvas, build, trunk, next(streams), right=True)
    organs.paint_kidney(canvas, build, trunk, next(streams), right=False)
    gut.paint_stomach(canvas, build, trunk, next(streams))
    organs.paint_pancreas(canvas, next(streams))
    organs.paint_great_vessels(canvas, next(streams))
    gut.paint_colon(canvas, build, trunk, next(streams))
    gut.paint_small_bowel(canvas, build, trunk, next(streams))
    gut.paint_mesentery(canvas, next(streams))
    return canvas


def _pose(rng: np.random.Generator, axes: tuple[np.ndarray, ...]) -> Body:
    """How this person lies in the scanner: shifted, turned, stretched and smoothly bent against the reference body."""
    z, y, x = np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij", sparse=True)
    shift = rng.uniform((-8, -8, -16), (8, 8, 16)).astype(np.float32)
    stretch = rng.uniform((0.96, 0.96, 0.93), (1.08, 1.08, 1.08)).astype(np.float32)
    roll, pitch = np.radians(rng.uniform((-5, -2), (5, 2))).astype(np.float32)
    x, y, z = (x - shift[0]) / stretch[0], (y - shift[1]) / stretch[1], (z - shift[2]) / stretch[2]
    bend = [smooth_field(rng, axes, 90.0) * np.float32(4.5) for _ in range(3)]
    turned_x = np.cos(roll) * x + np.sin(roll) * y + bend[0]
    turned_y = np.cos(roll) * y - np.sin(roll) * x + np.sin(pitch) * z + bend[1]
    bumps = smooth_field(rng, axes, 34.0), smooth_field(rng, axes, 11.0)
    return Body(turned_x, turned_y, z + bend[2], bumps)


def save_case(folder: str | Path, seed: int, *, case: str | None = None, **options: Any) -> Path:
    """Write `<case>_image.nii.gz` and `<case>_label.nii.gz` and enter the case in the folder's `dataset.json`.

    Args:
        folder: made when missing; may hold other cases of the same modality.
        seed: which person.
        case: file name stem, by default the seed with at least two digits.
        options: further arguments of `make_patient`.

    Returns:
        The folder.

    Raises:
        OutputError: the folder holds cases of another modality or other organs, or is damaged or not writable.
    """
    folder, case = Path(folder), case or f"{seed:02d}"
    phantom = make_patient(seed, **options)
    labels = {str(organ.label): organ.name for organ in phantom.organs}
    dataset = _dataset(folder, phantom.volume.modality, labels)
    phantom.volume.write(folder / f"{case}_image.nii.gz")
    Volume(phantom.labels, phantom.volume.geometry).write(folder / f"{case}_label.nii.gz")
    dataset["cases"] = sorted({*dataset["cases"], case})
    with atomic_path(folder / "dataset.json") as path:
        path.write_text(json.dumps(dataset, indent=1) + "\n", encoding="utf-8")
    return folder


def _dataset(folder: Path, modality: str, labels: dict[str, str]) -> dict:
    """The folder's `dataset.json`, or a new one."""
    path = folder / "dataset.json"
    new = {"name": folder.name, "modality": modality, "labels": labels, "cases": []}
    if not path.exists():
        return new
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{path} is not JSON: {error}", "the description of a data folder", "write to a new folder") from error
    if (found.get("modality"), found.get("labels")) != (modality, labels):
        raise OutputError(
            f"{folder} holds cases of modality {found.get('modality')} with the labels {found.get('labels')}",
            f"modality {modality} with the labels {labels}",
            "write the new cases to a folder of their own",
        )
    return found


def _check(seed: int, modality: str, shape: tuple[int, ...]) -> None:
    if seed < 0:
        raise ConfigError(f"Phantom seed {seed}", "0 or more")
    if modality not in LOOKS:
        raise ConfigError(f"Phantom modality {modality!r}", f"one of {', '.join(LOOKS)}")
    if len(shape) != 3 or min(shape) < 1:
        raise ConfigError(f"Phantom shape {shape}", "three positive numbers (z, y, x)")
