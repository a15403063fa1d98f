"""Drawings: which organs were drawn, on which slices of which scan."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from FewShotSegLib.errors import SupportError
from FewShotSegLib.label_layers import HIGHEST_LABEL, LabelLayers, Segment
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.volume import Geometry, Volume

if TYPE_CHECKING:
    from FewShotSegLib.dicom_labels import DicomDrawing

__all__ = ["Organ", "Slices", "Support"]

Slices = Literal["auto", "all"] | Sequence[int]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Support:
    """A scan and the organs drawn on it. Made by `create` or `read`.

    Args:
        image: the scan.
        masks: bool (organ, z, y, x), on the scan's grid. Masks may overlap.
        organs: what the masks show.
        drawn: bool (organ, z): the slices on which the organ's drawing is complete. Elsewhere nothing is known of it.
    """

    image: Volume
    masks: np.ndarray
    organs: tuple[Organ, ...]
    drawn: np.ndarray

    @property
    def is_sparse(self) -> bool:
        """Whether some organ is not drawn on every slice."""
        return not bool(self.drawn.all())

    @classmethod
    def create(cls, image: Volume, masks: np.ndarray, organs: Sequence[Organ], *, slices: Slices = "auto") -> Support:
        """A support from arrays.

        Args:
            image: the scan.
            masks: (organ, z, y, x) on the scan's grid; what is not zero belongs to the organ.
            organs: one per mask, with different names and labels.
            slices: which slices are drawn. "all": every one; where an organ is empty, it is known to be absent.
                "auto": an organ labelled on a single slice, or with gaps between its slices, is drawn on its labelled
                slices only, any other on all. A list of slice numbers (first = 0, along the array's z): the same as
                "auto", and of these slices only; the drawing on all others is forgotten.

        Raises:
            SupportError: shapes that do not fit, an organ without any voxel, or with none on the chosen slices.
        """
        organs = tuple(organs)
        masks = np.asarray(masks)
        _check_organs(organs)
        if masks.shape != (len(organs), *image.geometry.shape):
            raise SupportError(
                f"Masks of shape {masks.shape} for {len(organs)} organs on an image of shape {image.geometry.shape}",
                "one mask (z, y, x) per organ, each of the image's shape",
            )
        masks = masks.astype(bool, copy=False)
        present: np.ndarray = np.any(masks, axis=(2, 3))
        drawn = _drawn_slices(present, slices)
        _check_present(organs, present, drawn)
        if not isinstance(slices, str):
            masks = masks & drawn[:, :, None, None]
        return cls(image, masks, organs, drawn)

    @classmethod
    def read(
        cls,
        image_path: str | Path,
        labels_path: str | Path,
        *,
        slices: Slices = "auto",
        organs: Sequence[str | int] | None = None,
        names: Mapping[int, str] | None = None,
        series: str | None = None,
    ) -> Support:
        """Read a scan and its labels: a label map (NIfTI, NRRD, MHA), a segmentation of Slicer (`.seg.nrrd`), a DICOM SEG or
        an RTSTRUCT. These two have to refer to the scan's DICOM series or coordinate system, unless it did not come as DICOM.

        Labels on another grid than the scan are carried over to it, each voxel taking the nearest label in world space;
        what lies outside the scan is cut off. An organ that is not asked for by name and has no voxel in the scan is left out.

        Args:
            image_path: file or DICOM folder.
            labels_path: file; or a folder with one DICOM SEG or RTSTRUCT among other DICOM files.
            slices: see `create`.
            organs: the organs to use, by name (in any case) or label number; all when None. The segments of a `.seg.nrrd`
                whose label values are not unique, as in several layers, are numbered 1, 2, ... in the order of the file.
            names: organ names of the values of a label map; "label 3" where it has none.
            series: which series of a DICOM folder that holds several; by default that which a DICOM SEG or RTSTRUCT was drawn
                on, else see `dicom_series.find_series`.

        Raises:
            VolumeError: a file that cannot be read.
            SupportError: not a label map, an unknown organ, labels that do not lie in the scan, empty on the chosen slices.
        """
        drawing = _dicom_drawing(labels_path)
        if drawing is not None and series is None and Path(image_path).is_dir():
            series = drawing.series_in(Path(image_path))
        image = Volume.read(image_path, series=series)
        return cls._placed(image, labels_path, drawing, slices, organs, names)

    @classmethod
    def on_scan(cls, image: Volume, labels_path: str | Path, *, slices: Slices = "auto") -> Support:
        """As `read`, all organs of a labels file on a scan that is there already. Raises as `read`."""
        return cls._placed(image, labels_path, _dicom_drawing(labels_path), slices, None, None)

    @classmethod
    def _placed(
        cls,
        image: Volume,
        labels_path: str | Path,
        drawing: DicomDrawing | None,
        slices: Slices,
        organs: Sequence[str | int] | None,
        names: Mapping[int, str] | None,
    ) -> Support:
        labels = _select(drawing.read(image) if drawing else read_labels(labels_path, names), organs)
        _check_labelled(labels, labels_path)
        placed = labels.on(image.geometry)
        inside = tuple(segment for segment in placed.segments if placed.mask(segment).any())
        _check_inside(labels, inside, image.geometry, required=organs is not None)
        masks = replace(placed, segments=inside).masks()
        return cls.create(image, masks, [segment.organ for segment in inside], slices=slices)


def _dicom_drawing(path: str | Path) -> DicomDrawing | None:
    from FewShotSegLib.dicom_labels import find_drawing  # only to read files: Slicer lacks what reads them

    return find_drawing(path)


def _check_organs(organs: tuple[Organ, ...]) -> None:
    names, labels = [organ.name for organ in organs], [organ.label for organ in organs]
    if not organs:
        raise SupportError("No organ", "at least one drawn organ", "draw one, or check the labels file")
    if len(set(names)) < len(names) or len(set(labels)) < len(labels):
        raise SupportError(f"Organs {names} with labels {labels}", "a name and a label of its own for each organ")
    if min(labels) < 1 or max(labels) > HIGHEST_LABEL:
        raise SupportError(f"Labels {labels}", f"labels from 1 to {HIGHEST_LABEL}")


def _drawn_slices(present: np.ndarray, slices: Slices) -> np.ndarray:
    """Slices with a complete drawing, bool (organ, z), from those with any voxel, `present` (organ, z)."""
    if isinstance(slices, str):
        if slices not in ("auto", "all"):
            raise SupportError(f"slices={slices!r}", "'auto', 'all' or a list of slice numbers")
        return np.ones_like(present) if slices == "all" else _complete_slices(present)
    return _complete_slices(present) & _chosen(slices, present.shape[1])


def _complete_slices(present: np.ndarray) -> np.ndarray:
    """The rule of "auto": labelled slices only where an organ has one or gaps between them, all slices elsewhere."""
    complete = present.copy()
    for row in complete:
        labelled = np.flatnonzero(row)
        if len(labelled) > 1 and np.ptp(labelled) + 1 == len(labelled):
            row[:] = True
    return complete


def _chosen(slices: Sequence[int], count: int) -> np.ndarray:
    """Slice numbers as bool (z,)."""
    numbers = [int(number) for number in slices]
    outside = [number for number in numbers if not 0 <= number < count]
    if outside or not numbers:
        found = f"Slices {_listed(outside)} do not exist" if outside else "An empty list of slices"
        raise SupportError(found, f"slice numbers from 0 to {count - 1}", "choose slices of the support image")
    chosen = np.zeros(count, bool)
    chosen[numbers] = True
    return chosen


def _check_present(organs: tuple[Organ, ...], present: np.ndarray, drawn: np.ndarray) -> None:
    """Refuse organs without a voxel on the drawn slices."""
    for organ, anywhere, here in zip(organs, present, present & drawn, strict=True):
        if not anywhere.any():
            raise SupportError(f"{organ.name!r} has no labelled voxel", "at least one", "draw it, or leave this organ out")
        if not here.any():
            raise SupportError(
                f"{organ.name!r} is empty on the chosen slices",
                f"one of the slices where it is drawn: {_listed(np.flatnonzero(anywhere))}",
                "choose other slices, or leave this organ out",
            )


def _listed(numbers: Sequence[int] | np.ndarray) -> str:
    """Slice numbers for people, runs as ranges: 3, 7-12."""
    runs: list[list[int]] = []
    for number in sorted({int(number) for number in numbers}):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _select(labels: LabelLayers, organs: Sequence[str | int] | None) -> LabelLayers:
    if organs is None:
        return labels
    chosen = dict.fromkeys(_find(labels.segments, wanted) for wanted in organs)
    return replace(labels, segments=tuple(chosen))


def _find(segments: tuple[Segment, ...], wanted: str | int) -> Segment:
    """The segment of this name, else of this label number ("3" is a number too)."""
    text = str(wanted).strip().casefold()
    for attribute in ("name", "label"):
        for segment in segments:
            if str(getattr(segment.organ, attribute)).casefold() == text:
                return segment
    listed = ", ".join(f"{segment.organ.name!r} ({segment.organ.label})" for segment in segments)
    raise SupportError(f"No organ {wanted!r} among the labels", f"one of {listed or 'nothing: the file has no labels'}")


def _check_labelled(labels: LabelLayers, path: str | Path) -> None:
    if not any(labels.mask(segment).any() for segment in labels.segments):
        names = ", ".join(repr(segment.organ.name) for segment in labels.segments)
        raise SupportError(
            f"{path} has no labelled voxel" + (f" of {names}" if names else ""), "a drawn organ", "draw one, and save again"
        )


def _check_inside(labels: LabelLayers, inside: tuple[Segment, ...], grid: Geometry, *, required: bool) -> None:
    """Refuse labels of which nothing, or of which an organ that was asked for, does not lie in the image."""
    missing = [segment for segment in labels.segments if segment not in inside]
    names = ", ".join(repr(segment.organ.name) for segment in missing)
    if missing and (required or not inside):
        raise SupportError(
            f"Nothing of {names} lies in the image. The labels' grid covers {_extent(labels.geometry)}",
            f"labels that lie in the image, which covers {_extent(grid)}",
            "check that the labels were drawn on this scan, in the same patient space",
        )
    if missing:
        logger.warning("Left out, no labelled voxel in the image: %s", names)


def _extent(geometry: Geometry) -> str:
    """The box in world space around a grid, for people."""
    corners = geometry.corners()
    sides = zip("xyz", corners.min(axis=0), corners.max(axis=0), strict=True)
    return ", ".join(f"{axis} {low:.0f}..{high:.0f}" for axis, low, high in sides) + " mm (LPS)"
