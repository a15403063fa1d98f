"""The contact sheet: a scan's slices side by side, with the organs that were found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import find_contours

from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.files import atomic_path
from FewShotSegLib.organs import Color
from FewShotSegLib.report.colors import contour_colors
from FewShotSegLib.report.slices import View, Window, choose_slices, inner_slices, marked_slices, side_letters, slice_name
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.volume import Volume

TILE = 300
GAP = 8
FINER = 2  # contours are drawn this many times larger and then shrunk, for smooth lines
TINT = 0.2
TRUTH_COLOR: Color = (1.0, 1.0, 1.0)
BACKGROUND, INK, FAINT = (14, 16, 20), (238, 240, 244), (150, 158, 170)


def contact_sheet(
    volume: Volume, segmentation: Segmentation, *, truth: np.ndarray | None = None, slices: int = 12, columns: int = 4
) -> Image.Image:
    """Axial slices from head to feet as a radiologist sees them, the patient's right on the left, with organ contours.

    Args:
        volume: the scan, in any orientation.
        segmentation: what was found in it.
        truth: true labels (z, y, x) with the organs' label values; drawn as dashed white contours.
        slices: how many slices at most, spread over the extent of what was found and of the truth.
        columns: slices side by side.

    Raises:
        ValueError: labels, truth or scan differ in shape.
    """
    labels = segmentation.labels
    _same_shape(volume, labels, truth)
    known = labels if truth is None else np.maximum(labels, truth)
    chosen = choose_slices(marked_slices(volume.geometry, known), slices)[::-1]
    window = Window.of(volume)
    view = View.of(volume, known, window, chosen, TILE)
    layers = _layers(view, segmentation, truth)
    tiles = [_tile(grey, layers, i) for i, grey in enumerate(view.image(volume, window))]
    names = [slice_name(volume.geometry, index) for index in chosen]
    return _mount(
        tiles, names, _legend(segmentation, truth), segmentation.name or volume.name, columns, side_letters(volume.geometry)
    )


def film_strip(volume: Volume, segmentation: Segmentation, *, slices: int = 4) -> Image.Image:
    """A few axial slices side by side, from head to feet, with organ contours and without any text: a small picture.

    Args:
        volume: the scan, in any orientation.
        segmentation: what was found in it.
        slices: how many, evenly spread inside the extent of what was found.

    Raises:
        ValueError: labels and scan differ in shape.
    """
    _same_shape(volume, segmentation.labels, None)
    chosen = inner_slices(marked_slices(volume.geometry, segmentation.labels), slices)[::-1]
    window = Window.of(volume)
    view = View.of(volume, segmentation.labels, window, chosen, TILE)
    layers = _layers(view, segmentation, None)
    tiles = [_tile(grey, layers, i) for i, grey in enumerate(view.image(volume, window))]
    strip = Image.new("RGB", (len(tiles) * (tiles[0].width + GAP) - GAP, tiles[0].height), BACKGROUND)
    for i, tile in enumerate(tiles):
        strip.paste(tile, (i * (tile.width + GAP), 0))
    return strip


def write_contact_sheet(
    path: str | Path, volume: Volume, segmentation: Segmentation, *, truth: np.ndarray | None = None, slices: int = 12
) -> Path:
    """Write `contact_sheet` as a PNG file, whole or not at all.

    Raises:
        OutputError: no permission, disk full.
    """
    picture = contact_sheet(volume, segmentation, truth=truth, slices=slices)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")
    return Path(path)


@dataclass(frozen=True, eq=False)
class _Layer:
    """One organ on the shown slices: coverage 0..1 float32 (slice, row, column), its colour, and how it is drawn."""

    coverage: np.ndarray
    color: Color
    dashed: bool


def _layers(view: View, segmentation: Segmentation, truth: np.ndarray | None) -> list[_Layer]:
    layers = []
    for organ, color in zip(segmentation.organs, contour_colors(segmentation.organs), strict=True):
        layers.append(_Layer(view.mask(segmentation.labels == organ.label), color, dashed=False))
    if truth is not None:
        layers += [_Layer(view.mask(truth == organ.label), TRUTH_COLOR, dashed=True) for organ in segmentation.organs]
    return layers


def _tile(grey: np.ndarray, layers: list[_Layer], index: int) -> Image.Image:
    """One slice, grey (row, column), with the layers of the shown slice `index`."""
    picture = np.repeat(grey[..., None], 3, axis=2)
    for layer in layers:
        if not layer.dashed:
            opacity = TINT * layer.coverage[index][..., None]
            picture = (1 - opacity) * picture + opacity * np.array(layer.color, np.float32)
    rows, columns = grey.shape
    tile = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
    tile = tile.resize((columns * FINER, rows * FINER), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(tile)
    for layer in layers:
        _outline(pen, layer, index)
    return tile.resize((columns, rows), Image.Resampling.BOX)


def _outline(pen: ImageDraw.ImageDraw, layer: _Layer, index: int) -> None:
    """Draw the line of half coverage."""
    coverage = layer.coverage[index]
    if not coverage.any():
        return
    for contour in find_contours(np.pad(coverage, 1), 0.5):
        line = (contour[:, ::-1] - 0.5) * FINER
        for part in _dashes(line) if layer.dashed else [line]:
            pen.line([tuple(point) for point in part], fill=_rgb(layer.color), width=FINER if layer.dashed else 2 * FINER - 1)


def _dashes(line: np.ndarray, on: float = 5.0 * FINER, off: float = 4.0 * FINER) -> list[np.ndarray]:
    """The parts of a line (point, xy) that a dashed pen leaves, by length along it."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    drawn = np.mod(length, on + off) < on
    parts = np.split(line, np.flatnonzero(np.diff(drawn.astype(int))) + 1)
    return [part for part, shown in zip(parts, drawn[_starts(parts)], strict=True) if shown and len(part) > 1]


def _starts(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])[:-1]]).astype(int)


def _legend(segmentation: Segmentation, truth: np.ndarray | None) -> list[tuple[str, Color, bool]]:
    """Text, colour and whether dashed, of every entry."""
    volumes = segmentation.volumes_ml()
    entries = []
    for organ, color in zip(segmentation.organs, contour_colors(segmentation.organs), strict=True):
        mask = segmentation.mask(organ)
        text = f"{organ.name}  {volumes[organ.name]:.0f} mL" if mask.any() else f"{organ.name}  not found"
        if truth is not None:
            score = dice(mask, truth == organ.label)
            text += f"  Dice {score:.2f}" if np.isfinite(score) else ""
        entries.append((text, color, False))
    return [*entries, ("truth", TRUTH_COLOR, True)] if truth is not None else entries


def _mount(
    tiles: list[Image.Image],
    names: list[str],
    legend: list[tuple[str, Color, bool]],
    title: str,
    columns: int,
    sides: tuple[str, str],
) -> Image.Image:
    """Title, tiles in rows with their names and the letters of their sides, legend."""
    columns = min(columns, len(tiles))
    width, height = tiles[0].width + GAP, tiles[0].height + GAP + 20
    font, small = ImageFont.load_default(17), ImageFont.load_default(13)
    total = max(columns * width + GAP, 3 * TILE)
    lines = _lines(legend, total - 2 * GAP, font)
    top = 36 if title else GAP
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (total, top + rows * height + len(lines) * 28 + 2 * GAP), BACKGROUND)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, 8), title, INK, font)
    for i, (tile, name) in enumerate(zip(tiles, names, strict=True)):
        x, y = GAP + (i % columns) * width, top + (i // columns) * height
        sheet.paste(tile, (x, y))
        pen.text((x + 4, y + tile.height / 2), sides[0], FAINT, small, anchor="lm")
        pen.text((x + tile.width - 4, y + tile.height / 2), sides[1], FAINT, small, anchor="rm")
        pen.text((x + tile.width / 2, y + tile.height + 3), name, FAINT, small, anchor="ma")
    for i, line in enumerate(lines):
        _write_legend(pen, line, top + rows * height + GAP + i * 28, font)
    return sheet


def _lines(
    legend: list[tuple[str, Color, bool]], width: float, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[list[tuple[float, str, Color, bool]]]:
    """Break the legend into lines; every entry gets its x."""
    lines: list[list[tuple[float, str, Color, bool]]] = [[]]
    x = 0.0
    for text, color, dashed in legend:
        needed = 34 + font.getlength(text) + 26
        if x and x + needed > width:
            lines.append([])
            x = 0.0
        lines[-1].append((x, text, color, dashed))
        x += needed
    return lines


def _write_legend(
    pen: ImageDraw.ImageDraw,
    line: list[tuple[float, str, Color, bool]],
    y: float,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    for x, text, color, dashed in line:
        left, middle = GAP + x, y + 12
        for start, stop in ((0, 6), (10, 16), (20, 26)) if dashed else ((0, 26),):
            pen.line([(left + start, middle), (left + stop, middle)], fill=_rgb(color), width=2 if dashed else 4)
        pen.text((left + 34, middle), text, INK, font, anchor="lm")


def _rgb(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(255 * channel) for channel in color)
    return red, green, blue


def _same_shape(volume: Volume, labels: np.ndarray, truth: np.ndarray | None) -> None:
    for name, array in (("labels", labels), ("truth", truth)):
        if array is not None and array.shape != volume.array.shape:
            raise ValueError(f"the {name} have the shape {array.shape}, the scan has {volume.array.shape}")
