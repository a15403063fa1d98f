"""Stomach, duodenum, colon and small bowel, filled with fluid, gas and food."""

from __future__ import annotations

import numpy as np

from FewShotSegLib.phantom.frame import Canvas, Tube, curve
from FewShotSegLib.phantom.organs import SOFT
from FewShotSegLib.phantom.tissues import Tissue
from FewShotSegLib.phantom.torso import Build, Trunk


def paint_stomach(canvas: Canvas, build: Build, trunk: Trunk, rng: np.random.Generator) -> None:
    """A bent bag from under the left dome to the middle, with folds, fluid behind and gas in front."""
    corners = np.array(((56, 8, 84), (66, -14, 66), (58, -40, 40), (26, -54, 18), (-16, -48, 10), (-34, -36, 6)))
    path, radii = curve(corners + rng.normal(0, 6, corners.shape), np.array((32, 34, 28, 20, 14, 10)) * rng.uniform(0.75, 1.1))
    bag = canvas.tube(path, radii, over=SOFT)
    inside = _within_cavity(bag, build, trunk)
    folds = 2.5 + 1.6 * canvas.body.bumps[1][bag.index]
    bag.fill(canvas, Tissue.STOMACH_WALL, where=inside)
    bag.fill(canvas, Tissue.STOMACH_CONTENT, where=inside & (bag.distance < -np.maximum(folds, 1.8)), below=-1.8)
    level = np.quantile(path[:, 1] - radii, 0.1) + rng.uniform(0.0, 0.4) * radii.max()
    bag.fill(canvas, Tissue.GAS, where=inside & (canvas.body.y[bag.index] < level), below=-3.0)


def paint_colon(canvas: Canvas, build: Build, trunk: Trunk, rng: np.random.Generator) -> None:
    """The frame around the small bowel, with bulges, stool and gas."""
    right = ((-78, -22, -150), (-84, -8, -105), (-86, -4, -66), (-76, -22, -40))
    across = ((-52, -56, -34), (-12, -64, -44), (30, -62, -36), (66, -46, -8), (90, -16, 18))
    left = ((96, 10, 4), (96, 18, -50), (92, 14, -100), (84, 4, -150))
    corners = np.array(right + across + left) + rng.normal(0, 5, (13, 3))
    path, radii = curve(corners, np.array((21,) * 4 + (17,) * 5 + (14,) * 4) * rng.uniform(0.85, 1.15))
    along = 3.0 * np.arange(len(path))
    radii = radii * (1 + 0.14 * np.sin(2 * np.pi * along / 31 + rng.uniform(0, 6)))
    colon = canvas.tube(path, radii, over=SOFT)
    inside = _within_cavity(colon, build, trunk)
    colon.fill(canvas, Tissue.BOWEL_WALL, where=inside)
    content = 0.5 + 0.4 * np.sin(along / 47 + rng.uniform(0, 6)) + 0.25 * rng.standard_normal(len(path))
    canvas.content[colon.index] = np.clip(content, 0, 1)[colon.nearest]
    colon.fill(canvas, Tissue.FECES, where=inside, below=-2.2)
    gas = _front_of(canvas, colon, path, radii) > np.clip(1.1 * np.sin(along / 60 + rng.uniform(0, 6)), -0.1, 1.2)[colon.nearest]
    colon.fill(canvas, Tissue.GAS, where=inside & gas, below=-2.6)


def paint_small_bowel(canvas: Canvas, build: Build, trunk: Trunk, rng: np.random.Generator, loops: int = 34) -> None:
    """Duodenum, then loops that wander through the lower abdomen; every loop is filled differently."""
    duodenum = np.array(((-34, -36, 4), (-50, -16, -4), (-48, -2, -34), (-20, -4, -50), (14, -8, -46), (34, -22, -30)))
    paths, radii, contents = [], [], []
    courses = [duodenum + rng.normal(0, 3, duodenum.shape)] + [_loop(rng) for _ in range(loops)]
    for course in courses:
        path, radius = curve(course, rng.uniform(8.5, 13.0), step=4.0)
        paths.append(path)
        radii.append(radius * (1 + 0.12 * np.sin(np.arange(len(path)) / 2.5 + rng.uniform(0, 6))))
        contents.append(np.full(len(path), rng.beta(0.8, 1.0)))
    bowel = canvas.tube(np.concatenate(paths), np.concatenate(radii), over=SOFT)
    inside = _within_cavity(bowel, build, trunk)
    bowel.fill(canvas, Tissue.BOWEL_WALL, where=inside)
    canvas.content[bowel.index] = np.concatenate(contents)[bowel.nearest]
    folds = np.maximum(1.7 + 1.1 * canvas.body.bumps[1][bowel.index], 1.2)
    bowel.fill(canvas, Tissue.BOWEL_CONTENT, where=inside & (bowel.distance < -folds), below=-1.2)


def paint_mesentery(canvas: Canvas, rng: np.random.Generator) -> None:
    """Small vessels that fan out from the root of the mesentery through the fat."""
    root = np.array((4.0, -22.0, -40.0))
    paths, radii = [], []
    for _ in range(40):
        aim = root + rng.normal(0, 1, 3) * (55, 20, 55) - (0, 22, 10)
        path, radius = curve((root, (root + aim) / 2 + rng.normal(0, 8, 3), aim), (2.4, 1.8, 1.2), step=2.0)
        paths.append(path)
        radii.append(radius)
    canvas.tube(np.concatenate(paths), np.concatenate(radii), over=SOFT).fill(canvas, Tissue.VEIN)


def _loop(rng: np.random.Generator) -> np.ndarray:
    """A wandering line in the box of the small bowel, (point, xyz) mm, mostly within a slab of a few slices."""
    low, high = np.array((-74.0, -74.0, -150.0)), np.array((84.0, 6.0, 2.0))
    point = rng.uniform(low, high)
    heading = rng.uniform(0, 2 * np.pi)
    course = [point]
    for _ in range(7):
        heading += rng.normal(0, 0.9)
        step = np.array((np.cos(heading), 0.6 * np.sin(heading), rng.normal(0, 0.45))) * 18
        point = low + (high - low) * _reflect((point + step - low) / (high - low))
        course.append(point)
    return np.array(course)


def _reflect(fraction: np.ndarray) -> np.ndarray:
    """Fold back into 0..1 what left the box."""
    return 1 - np.abs(1 - np.mod(fraction, 2))


def _within_cavity(tube: Tube, build: Build, trunk: Trunk) -> np.ndarray:
    return (trunk.depth[tube.index] > build.wall_mm + 1.5) & (trunk.above_diaphragm[tube.index] < -3)


def _front_of(canvas: Canvas, tube: Tube, path: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """How far in front of the tube's middle a voxel lies, in radii."""
    return (path[tube.nearest, 1] - canvas.body.y[tube.index]) / radii[tube.nearest]
