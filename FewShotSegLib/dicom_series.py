"""A DICOM series folder as one 3D image: which series, which files belong to it, in which order."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import SimpleITK as sitk

from FewShotSegLib.dicom_headers import Slice, scan_headers
from FewShotSegLib.dicom_pixels import read_stack
from FewShotSegLib.dicom_stack import in_order
from FewShotSegLib.errors import VolumeError

logger = logging.getLogger(__name__)


class SeriesId(NamedTuple):
    """Where a scan comes from: UIDs of its series and of its coordinate system ("" when unknown)."""

    uid: str
    frame_of_reference: str


class Series(NamedTuple):
    """A series that was read: its image, slices in order of position, the modality tag ("CT", "MR", ...), and its UIDs."""

    image: sitk.Image
    modality: str
    id: SeriesId


def read_series(folder: Path, series: str | None = None) -> Series:
    """Read one series of a folder (not of its subfolders); other DICOM objects, such as an RTSTRUCT, are passed over.

    Args:
        folder: with the files of one or more series; or one file with many frames (enhanced CT or MR).
        series: UID, number or description of the series; may be left out, see `find_series`.

    Raises:
        VolumeError: no image, no such series, damaged files, slices that do not form one even grid.
    """
    slices = find_series(folder, series)
    return Series(read_stack(slices), slices[0].modality, SeriesId(slices[0].series, slices[0].frame_of_reference))


def find_series(folder: Path, series: str | None = None) -> list[Slice]:
    """The slices of one series of a folder, in order.

    Without `series`, that with the most slices is taken, of several such series that with the lowest number, then with the
    first UID; localizers and images without a position are not considered. A warning tells which one it is.

    Raises:
        VolumeError: see `read_series`.
    """
    return in_order(folder, _choose(folder, scan_headers(folder), series))


def _choose(folder: Path, found: dict[str, list[Slice]], series: str | None) -> list[Slice]:
    if not found:
        raise _nothing(folder)
    if series is not None:
        return _named(folder, found, series)
    scans = [slices for slices in found.values() if any(s.placed and not s.localizer for s in slices)]
    if not scans and all(s.localizer for slices in found.values() for s in slices):
        raise VolumeError(
            f"{folder} holds only localizers: {_listed(found)}",
            "a scan",
            "give another folder, or name the series to use it still",
        )
    chosen = min(scans or found.values(), key=_rank)
    if len(found) > 1:
        logger.warning("%s holds %d series: %s. Taken: %s", folder, len(found), _listed(found), _describe(chosen))
    return chosen


def _rank(slices: list[Slice]) -> tuple[int, int, str]:
    number = slices[0].number
    return -len(slices), int(number) if number.lstrip("-").isdigit() else 0, slices[0].series


def _named(folder: Path, found: dict[str, list[Slice]], series: str) -> list[Slice]:
    wanted = [s for s in found.values() if series in (s[0].series, s[0].number, s[0].description)]
    if len(wanted) == 1:
        return wanted[0]
    raise VolumeError(
        f"{len(wanted)} series of {folder} are called {series!r}; it holds: {_listed(found)}",
        "one series",
        "choose one by its UID",
    )


def _nothing(folder: Path) -> VolumeError:
    below = sorted({p.parent.relative_to(folder).as_posix() for p in folder.rglob("*.dcm")} - {"."})
    hint = f"give one of its subfolders: {', '.join(below[:8])}" if below else "give the folder that holds the DICOM files"
    return VolumeError(f"{folder} holds no DICOM image", "a folder with one series of CT or MR slices", hint)


def _listed(found: dict[str, list[Slice]]) -> str:
    return "; ".join(_describe(slices) for slices in found.values())


def _describe(slices: list[Slice]) -> str:
    first = slices[0]
    return f"number {first.number or '?'} {first.description!r} ({first.modality}, {len(slices)} slices, UID {first.series})"
