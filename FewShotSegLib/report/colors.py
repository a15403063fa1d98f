"""Colours for contours on a grey image: the organs' own where they can be told apart, others where they cannot."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

from FewShotSegLib.organs import Color, Organ

# Paul Tol's "bright" scheme without its grey, made for readers who see colours differently, and more hues for many organs.
PALETTE: tuple[Color, ...] = (
    (0.93, 0.40, 0.47),
    (0.80, 0.73, 0.27),
    (0.40, 0.80, 0.93),
    (0.13, 0.70, 0.30),
    (0.83, 0.40, 0.85),
    (0.30, 0.52, 1.00),
    (1.00, 0.60, 0.20),
    (0.20, 0.90, 0.75),
    (1.00, 0.95, 0.30),
    (1.00, 0.15, 0.15),
    (0.65, 1.00, 0.20),
    (1.00, 0.25, 0.70),
    (0.55, 0.35, 1.00),
)
APART = 0.42


def contour_colors(organs: Sequence[Organ]) -> list[Color]:
    """A bright colour for each organ: its own, unless an earlier organ's is too close, then one of a palette."""
    used: list[Color] = []
    for organ in organs:
        candidates = (_bright(organ.color), *PALETTE)
        free = [color for color in candidates if all(_distance(color, other) > APART for other in used)]
        used.append(free[0] if free else max(candidates, key=lambda color: min(_distance(color, other) for other in used)))
    return used


def _bright(color: Color) -> Color:
    """The same hue, strong enough to be seen on grey."""
    hue, saturation, value = colorsys.rgb_to_hsv(*color)
    return colorsys.hsv_to_rgb(hue, min(max(saturation, 0.55), 0.85) if saturation > 0.05 else saturation, max(value, 0.95))


def _distance(a: Color, b: Color) -> float:
    return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5)
