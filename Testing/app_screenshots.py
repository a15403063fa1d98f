"""Pictures of the web page for the README: `python Testing/app_screenshots.py FOLDER`.

Made with a real browser at 1280 x 800 in dark and light: the page as it opens, an organ painted with the mouse, a run, its
results, a correction. The patients are invented, the segmentation is a real one by the default checkpoint.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app_browser import Visit, browsing, serving
from PIL import Image

COLORS = 200
SLICE_OF_36 = 19
STROKES = ((0.36, 0.30, 0.50), (0.42, 0.22, 0.48), (0.48, 0.20, 0.46), (0.54, 0.22, 0.44))
"""Strokes through the liver of patient A: row, and first and last column, as parts of the slice."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write app-start, app-draw, app-running, app-results and app-results-light.png."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--small", action="store_true", help="a smaller sample case: quicker, coarser")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    size = ["--small-sample"] if options.small else []
    with tempfile.TemporaryDirectory() as temporary, browsing() as browser, serving(Path(temporary), *size) as served:
        page = Visit(browser, served)
        take(page, options.folder / "app-start.png")
        page.page.click("#sample")
        page.until("get('queries').length === 1 && !get('loading')")
        page.until("!get('message_open')", 60)
        draw(page, options.folder)
        run(page, options.folder)
        page.close()


def take(page: Visit, path: Path) -> None:
    """A small PNG: colours that the eye does not miss are left out."""
    page.page.wait_for_timeout(2500)
    image = Image.open(io.BytesIO(page.page.screenshot())).convert("RGB")
    image.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path} ({path.stat().st_size // 1000} kB)")


def draw(page: Visit, folder: Path) -> None:
    """Paint a liver with the mouse, and take everything back again."""
    slices = int(page.state("place_Red").split("/")[1])
    page.page.click("#clear")
    page.until("get('organs').length === 0")
    page.go_to(SLICE_OF_36 * slices // 36)
    page.page.click("#add")
    page.until("get('tool') === 'paint'")
    page.page.keyboard.press("]")
    page.page.keyboard.press("]")
    for row, first, last in STROKES:
        page.stroke([page.place(1000 * row, 1000 * column, (1000, 1000)) for column in (first, last)])
    page.until("get('organs')[0].drawn !== 'not drawn yet'")
    take(page, folder / "app-draw.png")


def run(page: Visit, folder: Path) -> None:
    """The sample case once more, Apply, and the result."""
    page.page.click("text=Sample case")
    page.until("get('organs').length === 4 && !get('loading')")
    page.until("!get('message_open')", 60)
    page.page.click("#apply")
    page.until("get('progress') > 30 || !get('busy')")
    take(page, folder / "app-running.png")
    page.until("get('results').length === 1 && !get('busy')")
    take(page, folder / "app-results.png")
    page.page.keyboard.press("d")
    page.until("get('theme') === 'light'")
    take(page, folder / "app-results-light.png")


if __name__ == "__main__":
    main()
