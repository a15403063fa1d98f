"""The solid organs and the large vessels between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from FewShotSegLib.phantom.frame import Canvas, Vector, Window, curve
from FewShotSegLib.phantom.tissues import Tissue
from FewShotSegLib.phantom.torso import Build, Trunk, cavity

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN, AORTA, VERTEBRAE = 1, 2, 3, 4, 5, 6
SOFT = (Tissue.FAT,)
Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Variation:
    """How one organ of one person differs from the reference: shift in mm, size as a factor, turn in degrees."""

    shift: np.ndarray
    size: np.ndarray
    turn: float

    @classmethod
    def random(cls, rng: np.random.Generator, shift: float = 5.0, size: float = 0.08, turn: float = 8.0) -> Variation:
        """Draw a variation with these standard deviations, cut at two of them."""
        draw = np.clip(rng.standard_normal(7), -2, 2)
        factor = rng.uniform(1 - size, 1 + size) * (1 + 0.5 * size * draw[3:6])
        return cls(shift * draw[:3], factor, float(turn * draw[6]))

    def place(self, centre: Vector) -> np.ndarray:
        """The organ's own centre."""
        return np.add(centre, self.shift)

    def scale(self, radii: Vector) -> np.ndarray:
        """The organ's own half axes."""
        return np.multiply(radii, self.size)


def paint_liver(canvas: Canvas, build: Build, trunk: Trunk, rng: np.random.Generator) -> None:
    """Two lobes melted together, cut by the diaphragm, the wall and the slanted lower face; vessels; gallbladder."""
    body = canvas.body
    own, left = Variation.random(rng, 4, 0.07), Variation.random(rng, 8, 0.14)
    window = body.window((-150, -110, -110), (110, 90, 160))
    right_lobe = body.ellipsoid(window, own.place((-58, 0, 40)), own.scale((73, 84, 104)), turn=0.4 * own.turn)
    left_lobe = body.ellipsoid(window, left.place((6, -42, 72)), left.scale((74, 38, 50)), turn=-8 + 0.5 * left.turn, tilt=-12)
    lobes = -np.log(np.exp(-9 * right_lobe) + np.exp(-9 * left_lobe)) / 9
    edge = rng.uniform(-8, 12)
    slope = rng.uniform(0.75, 0.95)
    hollow = 22 * np.exp(-(((body.y[window] - 5) / 38) ** 2)) - 12
    lower_face = 1 + (edge + slope * body.x[window] + hollow - body.z[window]) / 60
    shape = (
        np.log(np.exp(14 * lobes) + np.exp(14 * lower_face)) / 14 + 0.035 * body.bumps[0][window] + 0.012 * body.bumps[1][window]
    )
    canvas.paint(window, (shape < 1) & cavity(trunk, build, window, 0.5), Tissue.LIVER, over=SOFT, label=LIVER)
    _paint_gallbladder(canvas, own, edge, slope, rng)
    _paint_liver_vessels(canvas, own, rng)


def _paint_gallbladder(canvas: Canvas, own: Variation, edge: float, slope: float, rng: np.random.Generator) -> None:
    x = -42 + own.shift[0] + rng.uniform(-8, 8)
    size = rng.uniform(0.75, 1.25)
    centre = (x, -42 + own.shift[1], edge + slope * x - 4)
    window = canvas.body.window(np.subtract(centre, 45), np.add(centre, 45))
    bag = canvas.body.ellipsoid(window, centre, (14 * size, 22 * size, 17 * size), turn=20) + 0.05 * canvas.body.bumps[0][window]
    soft = (Tissue.FAT, Tissue.LIVER)
    canvas.paint(window, bag < 1.08, Tissue.BOWEL_WALL, over=soft)
    canvas.paint(window, bag < 1.0, Tissue.GALLBLADDER, over=(Tissue.BOWEL_WALL,))


def _paint_liver_vessels(canvas: Canvas, own: Variation, rng: np.random.Generator) -> None:
    """Portal branches from the hilum and hepatic veins towards the inferior vena cava."""
    hilum, outlet = np.add((-32, -22, 26), own.shift), np.add((-24, 6, 92), own.shift)
    portal_aims = ((-80, -25, 45), (-85, 30, 40), (-70, 5, -5), (-80, -45, 10), (5, -50, 60), (-45, -55, 55))
    vein_aims = ((-95, 15, 55), (-60, -50, 50), (15, -50, 75), (-85, -15, 25))
    trunks = [(hilum, np.add(aim, own.shift), 5.0) for aim in portal_aims] + [
        (outlet, np.add(aim, own.shift), 4.6) for aim in vein_aims
    ]
    paths, radii = [], []
    for start, aim, radius in trunks:
        for path, thickness in _branches(start, aim + rng.normal(0, 8, 3), radius, rng):
            paths.append(path)
            radii.append(thickness)
    vessels = canvas.tube(np.concatenate(paths), np.concatenate(radii), over=(Tissue.LIVER,))
    vessels.fill(canvas, Tissue.LIVER_VESSEL)


def _branches(start: np.ndarray, end: np.ndarray, radius: float, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """A vessel from start to end that tapers, curves and sends side branches into thinner ones of its kind."""
    run = end - start
    length = float(np.linalg.norm(run))
    bend = (start + end) / 2 + rng.normal(0, 0.2 * length, 3)
    t = np.linspace(0, 1, max(2, int(length / 1.5)))[:, None]
    path = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    found = [(path, radius * (1 - 0.5 * t[:, 0]))]
    if radius > 1.6:
        for at in rng.uniform(0.25, 0.95, 4):
            origin = path[int(at * (len(path) - 1))]
            side = run / length + rng.normal(0, 1, 3) * (0.8, 0.8, 0.45)
            found += _branches(origin, origin + side / np.linalg.norm(side) * 0.55 * length, 0.58 * radius, rng)
    return found


def paint_spleen(canvas: Canvas, build: Build, trunk: Trunk, rng: np.random.Generator) -> None:
    """A lens against the wall on the left and behind, hollow towards the stomach."""
    own = Variation.random(rng, 6, 0.16, 10)
    centre = own.place((86, 36, 62))
    window = canvas.body.window(np.subtract(centre, 90), np.add(centre, 90))
    lens = canvas.body.ellipsoid(window, centre, own.scale((35, 57, 57)), turn=38 + own.turn, tilt=-10)
    hollow = canvas.body.ellipsoid(window, np.subtract(centre, (38, 30, 0)), (34, 38, 60), turn=20)
    shape = np.maximum(lens, 2.0 - hollow) + 0.05 * canvas.body.bumps[0][window] + 0.015 * canvas.body.bumps[1][window]
    canvas.paint(window, (shape < 1) & cavity(trunk, build, window, 0.5), Tissue.SPLEEN, over=SOFT, label=SPLEEN)


def paint_kidney(canvas: Canvas, build: Build, trunk: Trunk, rng: np.random.Generator, *, right: bool) -> None:
    """A bean in its own fat: cortex, pyramids and sinus."""
    body, side = canvas.body, -1 if right else 1
    own = Variation.random(rng, 5, 0.06, 8)
    centre = own.place((side * 66, 38, -18 if right else -6))
    radii = own.scale((32, 26, 55))
    window = body.window(np.subtract(centre, 100), np.add(centre, 100))
    turn, tilt = side * 35 + own.turn, side * (-12)
    bean = body.ellipsoid(window, centre, radii, turn, tilt) + 0.035 * body.bumps[0][window] + 0.012 * body.bumps[1][window]
    room = cavity(trunk, build, window)
    canvas.paint(
        window,
        (bean + 0.06 * body.bumps[0][window] < 1.09) & room,
        Tissue.FAT,
        over=(Tissue.LIVER, Tissue.SPLEEN, Tissue.LIVER_VESSEL),
    )
    label = RIGHT_KIDNEY if right else LEFT_KIDNEY
    canvas.paint(window, (bean < 1) & room, Tissue.KIDNEY_CORTEX, over=(Tissue.FAT, Tissue.MUSCLE), label=label)
    pyramids = (bean < 0.78) & (np.cos(_around(canvas, window, centre)) + 0.7 * body.bumps[1][window] > -0.1)
    canvas.paint(window, pyramids, Tissue.KIDNEY_MEDULLA, over=(Tissue.KIDNEY_CORTEX,), label=label)
    _paint_renal_sinus(canvas, window, np.add(centre, (-side * 17, -12, 0)), turn, full=rng.uniform(0.45, 0.85))


def _paint_renal_sinus(canvas: Canvas, window: Window, gate: np.ndarray, turn: float, full: float) -> None:
    """Fat that opens to the middle and the front, around a pelvis that is `full` of urine, 0 to 1."""
    body = canvas.body
    sinus = body.ellipsoid(window, gate, (18, 6, 22), turn) + 0.22 * body.bumps[1][window]
    parenchyma = (Tissue.KIDNEY_CORTEX, Tissue.KIDNEY_MEDULLA)
    canvas.paint(window, sinus < 1, Tissue.FAT, over=parenchyma)
    canvas.paint(window, (sinus < full) & (body.ellipsoid(window, gate, (15, 5, 14), turn) < 1), Tissue.RENAL_PELVIS, over=SOFT)


def _around(canvas: Canvas, window: Window, centre: Vector) -> np.ndarray:
    """An angle that runs through a full circle from one pyramid to the next, around the kidney and along it."""
    x, y, z = (c[window] - o for c, o in zip((canvas.body.x, canvas.body.y, canvas.body.z), centre, strict=True))
    return 6 * np.arctan2(y, x) + np.pi * z / 9


def paint_pancreas(canvas: Canvas, rng: np.random.Generator) -> None:
    """A lobulated band from the duodenum to the spleen."""
    corners = np.array(((-36, -18, -14), (-22, -26, 0), (2, -30, 8), (32, -14, 20), (66, 12, 36))) + rng.normal(0, 5, (5, 3))
    path, radii = curve(corners, (15, 12, 9, 10, 8))
    gland = canvas.tube(path, radii * rng.uniform(0.9, 1.15), reach=4, over=SOFT)
    lumps = 2.2 * canvas.body.bumps[1][gland.index]
    gland.fill(canvas, Tissue.PANCREAS, where=gland.distance + lumps < 0, below=np.inf)


def paint_great_vessels(canvas: Canvas, rng: np.random.Generator) -> None:
    """Aorta and inferior vena cava beside the spine, their branches to kidneys, spleen and gut, and the portal vein."""
    bend = rng.normal(0, 3, 8)
    path, radii = curve(
        ((10 + bend[0], 16, -150), (11 + bend[1], 10, -60), (10 + bend[2], 12, 30), (12 + bend[3], 22, 150)),
        rng.uniform(8.5, 11.5),
    )
    aorta = canvas.tube(path, radii)
    aorta.fill(canvas, Tissue.AORTA_WALL, label=AORTA)
    aorta.fill(canvas, Tissue.AORTA, below=-2.0, label=AORTA)
    path, radii = curve(
        ((-18 + bend[4], 16, -150), (-20 + bend[5], 9, -40), (-23 + bend[6], 8, 40), (-22 + bend[7], 2, 130)), (11, 10, 12, 11)
    )
    canvas.tube(path, radii, over=(Tissue.FAT, Tissue.LIVER, Tissue.LIVER_VESSEL, Tissue.MUSCLE)).fill(
        canvas, Tissue.VEIN, label=0
    )
    soft = (Tissue.FAT, Tissue.MUSCLE, Tissue.PANCREAS)
    shift = rng.normal(0, 3, 3)
    for corners, thickness, tissue in _side_vessels():
        path, radii = curve(np.add(corners, shift), thickness, step=1.5)
        canvas.tube(path, radii, over=soft).fill(canvas, tissue)


def _side_vessels() -> tuple[tuple[tuple[Triple, ...], float, Tissue], ...]:
    return (
        (((11, 0, -2), (0, -4, -4), (-20, 0, -6)), 4.2, Tissue.VEIN),
        (((11, 0, -2), (32, 10, -4), (52, 28, -6)), 4.2, Tissue.VEIN),
        (((-22, 10, -14), (-36, 18, -16), (-52, 28, -18)), 4.2, Tissue.VEIN),
        (((10, 12, -8), (30, 20, -8), (52, 32, -8)), 2.6, Tissue.ARTERY),
        (((10, 14, -16), (-24, 22, -16), (-52, 32, -18)), 2.6, Tissue.ARTERY),
        (((10, 4, 10), (8, -14, -4), (4, -24, -60)), 3.6, Tissue.ARTERY),
        (((-6, -20, 2), (-6, -26, -30), (-8, -28, -80)), 5.0, Tissue.VEIN),
        (((-6, -20, 2), (-16, -20, 14), (-32, -22, 26)), 6.0, Tissue.VEIN),
        (((-6, -20, 2), (20, -12, 16), (48, 8, 30), (74, 22, 44)), 4.2, Tissue.VEIN),
        (((10, 6, 24), (4, -12, 30), (-24, -18, 28)), 3.0, Tissue.ARTERY),
    )
