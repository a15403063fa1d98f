"""Results of a session: shown, corrected, used again, written to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from FewShotSegLib.app.nodes import labels_of
from FewShotSegLib.app.scans import Scan
from FewShotSegLib.app.uploads import safe_name
from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.mrml import support_from_nodes
from FewShotSegLib.segmentation import Segmentation

SURE = 0.8
"""Slices of a first result with at least this confidence stay as they are when the same scan runs again."""

FORMATS = {"seg.nrrd": ".seg.nrrd", "nii.gz": ".nii.gz", "dcm": ".dcm"}


@dataclass(eq=False)
class Result:
    """What was found in a scan, and the node that shows it and that the user may correct.

    `drawn` are the slices that the user had drawn on this very scan (first = 0); empty for a new scan.
    """

    id: str
    scan: Scan
    found: Segmentation
    node: Any
    drawn: tuple[int, ...] = ()

    def current(self) -> Segmentation:
        """The result as it is now, with the user's corrections. An organ that was erased wholly is left out."""
        try:
            support = support_from_nodes(self.scan.node, self.node)
        except SupportError:  # nothing is left of any organ
            return self.found
        return labels_of(support, self.found)

    def corrected_slices(self) -> tuple[int, ...]:
        """Slices on which the user changed the result."""
        now = self.current()
        return tuple(int(k) for k in np.flatnonzero(_differs(self.found, now)))

    def settled_slices(self, corrected: tuple[int, ...]) -> list[int]:
        """Slices that teach the others when the scan runs again: drawn, corrected, and those that every organ is sure of."""
        least = np.nanmin(np.where(np.isnan(self.found.slice_confidence), np.inf, self.found.slice_confidence), axis=0)
        sure = np.flatnonzero(np.isfinite(least) & (least >= SURE))
        return sorted({*self.drawn, *corrected, *(int(k) for k in sure)})


def slice_with_most(labels: np.ndarray, shown: int | None) -> int | None:
    """The slice of labels (z, y, x) with most voxels of organs; None where the `shown` one has some already, or none has any."""
    if shown is not None and 0 <= shown < len(labels) and labels[shown].any():
        return None
    areas = np.count_nonzero(labels, axis=(1, 2))
    return int(areas.argmax()) if areas.any() else None


def _differs(before: Segmentation, after: Segmentation) -> np.ndarray:
    """Slices on which two segmentations of one scan differ, bool (z,); organs are compared by name."""
    different = np.zeros(before.labels.shape[0], bool)
    names = {organ.name for organ in (*before.organs, *after.organs)}
    for name in names:
        masks = [found.mask(name) if name in [o.name for o in found.organs] else np.zeros((), bool) for found in (before, after)]
        different |= np.broadcast_to(masks[0] != masks[1], before.labels.shape).any((1, 2))
    return different


def write(segmentation: Segmentation, kind: str, folder: Path, name: str, series: Path | None) -> Path:
    """Write a file for the user to download.

    Raises:
        ConfigError: an unknown kind, or DICOM for a scan that did not come as DICOM. OutputError: see `Segmentation.write`.
    """
    if kind not in FORMATS:
        raise ConfigError(f"There is no file type {kind!r}", f"one of {', '.join(FORMATS)}")
    path = folder / f"{safe_name(name)}{FORMATS[kind]}"
    if kind != "dcm":
        return segmentation.write(path)
    if series is None:
        raise ConfigError(
            "This scan did not come as DICOM", "a DICOM series, whose headers the DICOM SEG carries on", "choose .seg.nrrd"
        )
    try:
        from FewShotSegLib.dicom_seg import write_dicom_seg
    except ImportError as error:
        raise ConfigError(f"DICOM SEG cannot be written: {error}", "highdicom", "pip install 'fewshotseg[dicom]'") from error
    write_dicom_seg(path, segmentation, series)
    return path
