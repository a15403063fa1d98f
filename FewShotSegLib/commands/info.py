"""`fewshotseg info`: what a file is, as this program sees it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from FewShotSegLib.commands.checkpoints import measured
from FewShotSegLib.commands.console import stdout

if TYPE_CHECKING:
    from FewShotSegLib.geometry import Geometry

CHECKPOINT_FILES = (".safetensors", ".json")


def info(file: Annotated[Path, typer.Argument(help="A scan, a DICOM folder, a label map, a .seg.nrrd or a checkpoint.")]) -> None:
    """Show the geometry, voxel values and segments of a file, or the card of a checkpoint."""
    from rich.table import Column, Table

    table = Table("", Column(file.name, overflow="fold"))
    for name, value in _facts(file):
        table.add_row(name, value)
    stdout().print(table)


def _facts(file: Path) -> Iterable[tuple[str, str]]:
    if file.suffix in CHECKPOINT_FILES:
        return _checkpoint(file)
    if file.name.lower().endswith(".seg.nrrd") and file.is_file():
        return _segmentation(file)
    return _scan(file)


def _scan(file: Path) -> list[tuple[str, str]]:
    from FewShotSegLib.volume import Volume

    volume = Volume.read(file)
    declared = volume.modality or "not declared"
    return [
        *_grid(volume.geometry),
        ("modality", f"{declared}, read as CT" if volume.is_ct and volume.modality != "CT" else declared),
        ("voxel type", str(volume.array.dtype)),
        ("voxel values", f"{volume.array.min():g} to {volume.array.max():g}"),
    ]


def _segmentation(file: Path) -> list[tuple[str, str]]:
    import numpy as np

    from FewShotSegLib.segfiles import read_labels

    labels = read_labels(file)
    facts = _grid(labels.geometry)
    for segment in labels.segments:
        mask = labels.mask(segment)
        slices = np.flatnonzero(mask.any((1, 2)))
        where = f"slices {slices[0]} to {slices[-1]}" if len(slices) else "no voxel"
        facts.append(
            (segment.organ.name, f"label {segment.organ.label}, {mask.sum() * labels.geometry.voxel_ml:.1f} mL, {where}")
        )
    return facts


def _grid(geometry: Geometry) -> list[tuple[str, str]]:
    from FewShotSegLib.grid import AxialGrid

    grid = AxialGrid.of(geometry)
    slices, rows, columns = grid.shape
    return [
        ("voxels (x, y, z)", " × ".join(map(str, geometry.size))),
        ("spacing, mm", " × ".join(f"{mm:.4g}" for mm in geometry.spacing)),
        ("origin (LPS), mm", ", ".join(f"{mm:.4g}" for mm in geometry.origin)),
        ("direction", "  ".join(", ".join(f"{v:.3g}" for v in row) for row in geometry.axes)),
        ("network's slices", "the scan's own" if grid.native_slice_axis_is_axial else "cut across the scan's own"),
        (
            "network's grid",
            f"{slices} slices of {rows} × {columns} pixels of {grid.pixel_mm:.4g} mm, {grid.slice_mm:.4g} mm apart",
        ),
    ]


def _checkpoint(file: Path) -> list[tuple[str, str]]:
    from FewShotSegLib.cards import Card

    card = Card.read(file.with_suffix(".json"))
    data = "\n".join(f"{d['name']}, {d['scans']} scans, {d['licence']}" for d in card.training_data)
    return [
        ("checkpoint", card.name),
        ("description", card.description),
        ("encoder", f"{card.encoder}, {card.channels} channels"),
        ("methods", ", ".join(card.methods)),
        ("modalities", ", ".join(card.modalities)),
        ("trained on", data),
        ("licence", card.licence),
        ("measured", measured(card)),
        ("created", f"{card.created}, fewshotseg {card.library_version}"),
        ("SHA-256", card.sha256),
    ]
