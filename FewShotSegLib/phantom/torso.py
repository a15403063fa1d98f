"""The trunk: skin, fat, muscle wall, ribs, spine, lungs, diaphragm and heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from FewShotSegLib.phantom.frame import Body, Canvas, Window
from FewShotSegLib.phantom.tissues import Tissue

WHOLE: Window = (slice(None), slice(None), slice(None))
RIB_PERIOD_MM = 27.0
VERTEBRA_MM = 33.0


@dataclass(frozen=True)
class Build:
    """One person's trunk.

    Attributes:
        fat_mm: thickness of the fat under the skin at the flank.
        wall_mm: thickness of the muscle wall.
        half_width_mm, half_depth_mm: half axes of the trunk within the fat.
        right_dome_mm, left_dome_mm: height of the diaphragm above the middle of the scan.
        vertebra_mm: height of one vertebra's middle.
        rib_mm: shift of the ribs along the body.
    """

    fat_mm: float
    wall_mm: float
    half_width_mm: float
    half_depth_mm: float
    right_dome_mm: float
    left_dome_mm: float
    vertebra_mm: float
    rib_mm: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Build:
        """Draw a person."""
        width = rng.uniform(122, 134)
        return cls(
            fat_mm=min(rng.gamma(4.0, 3.0) + 5.0, 24.0),
            wall_mm=rng.uniform(10, 14),
            half_width_mm=width,
            half_depth_mm=width * rng.uniform(0.65, 0.73),
            right_dome_mm=rng.uniform(122, 138),
            left_dome_mm=rng.uniform(108, 124),
            vertebra_mm=rng.uniform(0, VERTEBRA_MM),
            rib_mm=rng.uniform(0, RIB_PERIOD_MM),
        )


@dataclass(frozen=True, eq=False)
class Trunk:
    """Fields over the whole scan, float32 (z, y, x) mm: depth below the outer surface of the muscle wall (negative in the
    fat outside), and height above the diaphragm.
    """

    depth: np.ndarray
    above_diaphragm: np.ndarray


def paint_trunk(canvas: Canvas, build: Build) -> Trunk:
    """Paint everything that holds the organs; organs are painted over it afterwards."""
    body = canvas.body
    trunk = Trunk(_depth(body, build), _above_diaphragm(body, build))
    _paint_shell(canvas, build, trunk)
    _paint_ribs(canvas, build, trunk)
    _paint_back(canvas, build)
    _paint_spine(canvas, build)
    _paint_chest(canvas, build, trunk)
    return trunk


def cavity(trunk: Trunk, build: Build, window: Window, gap_mm: float = 0.0) -> np.ndarray:
    """Voxels of a window inside the abdominal cavity: below the diaphragm and within the wall, by `gap_mm` at least."""
    return (trunk.depth[window] > build.wall_mm + gap_mm) & (trunk.above_diaphragm[window] < -3.0 - gap_mm)


def _depth(body: Body, build: Build) -> np.ndarray:
    """Depth below a superellipse: narrower at the waist, hollow along the spine, flatter in front."""
    waist = 1 - 0.06 * np.exp(-(((body.z + 75) / 45) ** 2)) - 0.10 * np.clip((body.z - 90) / 60, 0, 1) ** 2
    groove = 1 - 0.06 * np.exp(-((body.x / 20) ** 2)) * (body.y > 0)
    across = np.abs(body.x) / (build.half_width_mm * waist)
    along = np.abs(body.y) / (build.half_depth_mm * groove * np.where(body.y < 0, waist * 0.97, 1.0))
    radius = np.maximum((across**2.4 + along**2.4) ** np.float32(1 / 2.4), 1e-3)
    return (np.hypot(body.x, body.y) * (1 / radius - 1) + 0.8 * body.bumps[0]).astype(np.float32)


def _above_diaphragm(body: Body, build: Build) -> np.ndarray:
    """Height above the two domes, which fall off towards the wall, most of all behind."""
    fall = 48 + 0.9 * np.clip(body.y + 10, 0, 90)
    height = np.full(body.x.shape, -np.inf, np.float32)
    for side, top in ((-1, build.right_dome_mm), (1, build.left_dome_mm)):
        reach = ((body.x - side * 50) / 74) ** 2 + ((body.y + 8) / 82) ** 2
        height = np.maximum(height, top - fall * np.minimum(reach, 1.4) ** 2.2)
    return (body.z - height + 2 * body.bumps[0]).astype(np.float32)


def _paint_shell(canvas: Canvas, build: Build, trunk: Trunk) -> None:
    body, depth = canvas.body, trunk.depth
    angle = np.arctan2(body.y, np.abs(body.x))
    thickness = build.fat_mm * (0.75 + 0.35 * np.sin(angle) - 0.0025 * body.z) + body.bumps[0]
    thickness = np.maximum(thickness, 3.5)
    canvas.paint(WHOLE, depth > -thickness, Tissue.SKIN)
    canvas.paint(WHOLE, depth > 2.2 - thickness, Tissue.FAT)
    canvas.paint(WHOLE, (depth > 0) & (depth < build.wall_mm), Tissue.MUSCLE)
    seam = np.minimum(np.abs(depth - 0.36 * build.wall_mm), np.abs(depth - 0.68 * build.wall_mm)) < 0.7
    canvas.paint(WHOLE, seam & (np.abs(angle) < 0.9) & (body.z < 30), Tissue.FAT)
    vessels = (body.bumps[1] > 2.1) & (depth < -5) & (depth > 5 - thickness)
    canvas.paint(WHOLE, vessels & (np.abs(body.bumps[0]) < 0.35), Tissue.VEIN)


def _paint_ribs(canvas: Canvas, build: Build, trunk: Trunk) -> None:
    """Ribs slope down from the spine to the front and end at the costal margin."""
    body = canvas.body
    from_back = np.arctan2(np.abs(body.x), body.y)
    course = body.z + 62 * (1 - np.cos(from_back)) / 2 + 26 * from_back - build.rib_mm
    between = np.abs(np.mod(course, RIB_PERIOD_MM) - RIB_PERIOD_MM / 2)
    margin = body.z > -40 + 22 * np.clip(from_back - 0.6, 0, 3) ** 1.5
    across = np.abs(trunk.depth - 0.62 * build.wall_mm) / (0.34 * build.wall_mm)
    shape = np.sqrt((between / 6.5) ** 2 + across**2)
    sides = margin & (from_back > 0.28) & (from_back < 2.75)
    cartilage = from_back > 2.35
    canvas.paint(WHOLE, (shape < 1) & sides, Tissue.CORTICAL_BONE)
    canvas.paint(WHOLE, (shape < 0.68) & sides, Tissue.MARROW)
    canvas.paint(WHOLE, (shape < 1) & sides & cartilage, Tissue.DISC)


def _paint_back(canvas: Canvas, build: Build) -> None:
    """Muscles beside the spine, with fat between their bundles."""
    body, back = canvas.body, build.half_depth_mm
    window = body.window((-95, 0, -200), (95, back + 5, 200))
    z = body.z[window]
    for side in (-1, 1):
        erector = body.ellipsoid(window, (side * 33, back - 21, 0), (31, 19, 1e4), turn=side * 8)
        canvas.paint(window, (erector < 1) & (erector > 0.9), Tissue.FAT)
        canvas.paint(window, (erector < 0.92) & (body.bumps[1][window] < 1.5), Tissue.MUSCLE)
        psoas = body.ellipsoid(window, (side * 38, 34, 0), (17, 19, 1e4), turn=-side * 25)
        size = np.clip((25 - z) / 110, 0.0, 1.0) ** 0.6
        canvas.paint(window, psoas < size, Tissue.MUSCLE)
        quadratus = body.ellipsoid(window, (side * 66, 55, 0), (20, 8, 1e4), turn=-side * 22)
        canvas.paint(window, (quadratus < 1) & (z < -10), Tissue.MUSCLE)


def _paint_spine(canvas: Canvas, build: Build) -> None:
    body, back = canvas.body, build.half_depth_mm
    window = body.window((-50, 0, -200), (50, back + 5, 200))
    x, y = body.x[window], body.y[window]
    level = np.abs(np.mod(body.z[window] - build.vertebra_mm, VERTEBRA_MM) - VERTEBRA_MM / 2)
    column = body.ellipsoid(window, (0, 36, 0), (23, 17, 1e4)) - 0.05 * (level < 9)
    canvas.paint(window, column < 1, Tissue.CORTICAL_BONE)
    canvas.paint(window, column < 0.91, Tissue.MARROW)
    disc = level > VERTEBRA_MM / 2 - 5
    canvas.paint(window, (column < 1) & disc, Tissue.DISC)
    arch = body.ellipsoid(window, (0, 58, 0), (17, 14, 1e4))
    wings = (np.abs(y - 58 - 0.12 * np.abs(x)) < 4) & (np.abs(x) < 36) & (level < 6)
    process = (np.abs(x) < 3.2) & (y > 62) & (y < back - 6) & (level < 11)
    bone = ((arch < 1) & (level < 13)) | wings | process
    canvas.paint(window, bone, Tissue.CORTICAL_BONE)
    canvas.paint(window, ((arch < 0.86) & (level < 11)) | (process & (np.abs(x) < 1.8)), Tissue.MARROW)
    canal = body.ellipsoid(window, (0, 58, 0), (9.5, 7.2, 1e4))
    canvas.paint(window, canal < 1.1, Tissue.FAT)
    canvas.paint(window, canal < 0.95, Tissue.CSF)
    cord = body.ellipsoid(window, (0, 58.5, 0), (4.4, 3.6, 1e4))
    canvas.paint(window, cord < np.clip((body.z[window] + 30) / 60, 0.45, 1.0), Tissue.CORD)


def _paint_chest(canvas: Canvas, build: Build, trunk: Trunk) -> None:
    body = canvas.body
    within = trunk.depth > build.wall_mm
    inside = within & np.isin(canvas.tissue, (Tissue.FAT, Tissue.MUSCLE))
    canvas.paint(WHOLE, inside & (trunk.above_diaphragm > -3), Tissue.MUSCLE, over=(Tissue.FAT,))
    middle = np.abs(body.x - 4) < 13 + 0.2 * np.clip(-body.y, 0, 80)
    chest = inside & (trunk.above_diaphragm > 0) & (trunk.depth > build.wall_mm + 1)
    canvas.paint(WHOLE, chest & ~middle, Tissue.LUNG)
    canvas.paint(WHOLE, chest & middle, Tissue.FAT)
    canvas.paint(WHOLE, chest & ~middle & (body.bumps[1] > 1.9), Tissue.AIRWAY_VESSEL)
    _paint_heart(canvas, build, chest)


def _paint_heart(canvas: Canvas, build: Build, chest: np.ndarray) -> None:
    body = canvas.body
    top = build.left_dome_mm
    window = body.window((-60, -90, top - 40), (100, 40, 250))
    heart = body.ellipsoid(window, (20, -30, top + 42), (60, 42, 46), turn=25) + 0.03 * body.bumps[0][window]
    inside = chest[window]
    canvas.paint(window, inside & (heart < 1.08), Tissue.FAT)
    canvas.paint(window, inside & (heart < 1.0), Tissue.HEART)
    for centre, radii in (((38, -28, top + 45), (26, 20, 36)), ((-4, -42, top + 45), (24, 19, 36))):
        chamber = body.ellipsoid(window, centre, radii, turn=25) + 0.1 * body.bumps[1][window]
        canvas.paint(window, inside & (chamber < 1), Tissue.HEART_BLOOD)
