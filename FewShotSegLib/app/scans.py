"""The scans of a session: the one that is drawn on, and those to segment."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trame_slicer.core.volume_window_level import VolumeWindowLevel

from FewShotSegLib.app.nodes import node_from_volume
from FewShotSegLib.app.uploads import find_scans
from FewShotSegLib.volume import Volume

CT_WINDOW = (-160.0, 240.0)
"""Hounsfield units between black and white at first: soft tissue."""
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Scan:
    """A loaded scan: its node, and the DICOM folder that it came from, if any."""

    node: Any
    info: str
    series: Path | None = None
    id: str = field(default_factory=lambda: f"scan{next(_NUMBERS)}")

    @property
    def name(self) -> str:
        """For people."""
        return str(self.node.GetName())

    def shown(self) -> dict[str, Any]:
        """What the page shows of it."""
        return {"id": self.id, "name": self.name, "info": self.info, "dicom": self.series is not None}


async def read_scans(folder: Path) -> list[tuple[Volume, Path | None]]:
    """Every scan below a folder, read in a thread; with the folder of a DICOM series.

    Raises:
        VolumeError: none, or one that cannot be read.
    """
    return await asyncio.get_running_loop().run_in_executor(None, _read_all, folder)


def _read_all(folder: Path) -> list[tuple[Volume, Path | None]]:
    found: list[tuple[Volume, Path | None]] = []
    for path in find_scans(folder):
        volume = Volume.read(path)
        if path.is_dir():  # named by us: a folder's name may be the patient's
            volume = replace(volume, name=f"DICOM {volume.modality or 'scan'} {len(found) + 1}")
        found.append((volume, path if path.is_dir() else None))
    return found


def add_scan(volume: Volume, series: Path | None, scene: Any) -> Scan:
    """Put a scan into the scene."""
    z, y, x = volume.geometry.shape
    mm = " × ".join(f"{step:.3g}" for step in volume.spacing)
    kind, node = "CT" if volume.is_ct else "MR", node_from_volume(volume, scene)
    low, high = CT_WINDOW if volume.is_ct else VolumeWindowLevel.get_volume_auto_min_max_range(node)
    VolumeWindowLevel.set_volume_node_display_min_max_range(node, low, max(high, low + 1e-6))
    return Scan(node, f"{kind} · {x} × {y} × {z} voxels · {mm} mm", series)
