"""The small picture of a result, for the review."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from FewShotSegLib.files import atomic_path
from FewShotSegLib.report import film_strip
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.volume import Volume

WIDTH = 720
SLICES = 4
QUALITY = 82


def write_picture(path: Path, volume: Volume, segmentation: Segmentation) -> tuple[str, ...]:
    """Write four slices with contours as a JPEG; a picture that cannot be made is a note, not a failure.

    Raises:
        OutputError: no permission, disk full.
    """
    try:
        sheet = film_strip(volume, segmentation, slices=SLICES)
    except Exception as error:  # whatever is odd about a scan, its result counts
        return (f"There is no picture: {type(error).__name__}: {error}",)
    part = min(1.0, WIDTH / sheet.width)  # an organ on one or two slices makes a short strip
    size = (round(sheet.width * part), round(sheet.height * part))
    with atomic_path(path) as temporary:
        sheet.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(temporary, "JPEG", quality=QUALITY)
    return ()
