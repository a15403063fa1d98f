"""The report: one HTML file that needs nothing else, about one scan or many."""

from __future__ import annotations

import base64
import io
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.files import atomic_path
from FewShotSegLib.report.colors import contour_colors
from FewShotSegLib.report.hints import Hint, doubtful_slices, hint, strip
from FewShotSegLib.report.sheet import contact_sheet
from FewShotSegLib.resources import resource_dir
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.volume import Volume

PAGE = "report.html"


@dataclass(frozen=True, eq=False)
class ReportJob:
    """One scan of a report.

    Attributes:
        volume: the scan.
        segmentation: what was found in it.
        truth: true labels (z, y, x) with the organs' label values, where they are known.
        settings: what the reader should know about how it was made, by name: method, strategy, checkpoint, support, output ...
        key: of jobs with the same key, the later takes the place of the earlier; "" is nobody's.
    """

    volume: Volume
    segmentation: Segmentation
    truth: np.ndarray | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""


def write_report(
    folder: str | Path, jobs: Iterable[ReportJob], *, title: str = "Segmentation report", created: datetime | None = None
) -> Path:
    """Write `report.html`, and each scan's contact sheet as a PNG beside it; every file whole or not at all.

    The page holds its pictures and styles and asks the network for nothing. Jobs are taken one by one, so that a generator
    keeps only one scan in memory.

    Returns:
        The page.

    Raises:
        OutputError: no permission, disk full.
    """
    folder = Path(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_dir("report")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    scans = _scans(folder, jobs)
    page = environment.get_template("page.html").render(
        title=title,
        style=Markup((resource_dir("report") / "page.css").read_text(encoding="utf-8")),
        created=(created or datetime.now()).strftime("%Y-%m-%d %H:%M"),
        version=_library_version(),
        scans=scans,
    )
    with atomic_path(folder / PAGE) as path:
        path.write_text(page, encoding="utf-8")
    return folder / PAGE


def _scans(folder: Path, jobs: Iterable[ReportJob]) -> list[dict[str, Any]]:
    """What the template shows of all scans."""
    scans: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    for job in jobs:
        place = places.get(job.key, len(scans))
        scans[place : place + 1] = [_scan(folder, place + 1, job)]
        if job.key:
            places[job.key] = place
    return scans


def _scan(folder: Path, number: int, job: ReportJob) -> dict[str, Any]:
    """What the template shows of one scan; writes its contact sheet."""
    segmentation = job.segmentation
    name = segmentation.name or job.volume.name or f"scan {number}"
    picture = _png(job)
    file = picture_name(number, name)
    with atomic_path(folder / file) as path:
        path.write_bytes(picture)
    organs = list(_organs(job))
    return {
        "name": name,
        "anchor": f"scan-{number}",
        "organs": organs,
        "to_check": [organ["name"] for organ in organs if organ["hint"].level in ("look", "absent")],
        "has_truth": job.truth is not None,
        "notes": segmentation.notes,
        "picture": base64.b64encode(picture).decode("ascii"),
        "file": file,
        "slices": job.volume.array.shape[0],
        "settings": {**job.settings, **_facts(job)},
    }


def _organs(job: ReportJob) -> Iterator[dict[str, Any]]:
    """One row of the table for each organ."""
    segmentation = job.segmentation
    volumes = segmentation.volumes_ml()
    for i, (organ, color) in enumerate(zip(segmentation.organs, contour_colors(segmentation.organs), strict=True)):
        mask = segmentation.mask(organ)
        confidence = float(segmentation.confidence[i]) if mask.any() else float("nan")
        yield {
            "name": organ.name,
            "color": "#" + "".join(f"{round(255 * channel):02x}" for channel in color),
            "ml": volumes[organ.name],
            "confidence": confidence,
            "hint": hint(confidence) if mask.any() else Hint("absent", "not found"),
            "doubtful": doubtful_slices(segmentation.slice_confidence[i]),
            "strip": strip(segmentation.slice_confidence[i]),
            "dice": dice(mask, job.truth == organ.label) if job.truth is not None else float("nan"),
        }


def _facts(job: ReportJob) -> dict[str, str]:
    """What the scan and the program say about themselves."""
    x, y, z = job.volume.geometry.size
    spacing = " × ".join(f"{mm:.3g}" for mm in job.volume.spacing)
    facts = {
        "modality": job.volume.modality or "not declared" + (", read as CT" if job.volume.is_ct else ""),
        "voxels": f"{x} × {y} × {z}",
        "voxel size": f"{spacing} mm",
    }
    if np.isfinite(job.segmentation.seconds):
        facts["time"] = f"{job.segmentation.seconds:.1f} s"
    return {**facts, "software": f"FewShotSeg {_library_version()}, Python {platform.python_version()}"}


def _png(job: ReportJob) -> bytes:
    buffer = io.BytesIO()
    contact_sheet(job.volume, job.segmentation, truth=job.truth).save(buffer, format="PNG")
    return buffer.getvalue()


def picture_name(number: int, name: str) -> str:
    """File name of the contact sheet of a report's scan `number`, counted from 1; valid on any system."""
    stem = re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._")[:60] or "scan"
    return f"{number:02d}_{stem}.png"


def _library_version() -> str:
    try:
        return version("fewshotseg")
    except PackageNotFoundError:
        return "(not installed)"
