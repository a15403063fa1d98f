"""The result: which voxel of a scan belongs to which organ, how sure that is, and how it goes to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from FewShotSegLib.errors import OutputError
from FewShotSegLib.files import split_suffix
from FewShotSegLib.image_files import WRITABLE, write_image
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import write_segmentation
from FewShotSegLib.volume import Geometry

SLICER_SEGMENTATION = ".seg.nrrd"
PROBABILITY_FILES = (".nrrd", ".mha", ".nii.gz", ".nii")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Organs found in a scan, on the scan's own grid.

    Args:
        geometry: the scan's.
        organs: what was looked for; an organ that was not found has no voxel.
        labels: `Organ.label` of each voxel, uint8 or uint16 (z, y, x), 0 = background.
        confidence: 0..1 (organ,), NaN for an organ that was not found.
        slice_confidence: 0..1 (organ, z), NaN where the organ is absent.
        probabilities: 0..1, float16 (organ, z, y, x), where asked for.
        name: of the scan.
        notes: warnings for the user.
        seconds: how long it took.

    Raises:
        ValueError: arrays that do not fit together.
    """

    geometry: Geometry
    organs: tuple[Organ, ...]
    labels: np.ndarray
    confidence: np.ndarray
    slice_confidence: np.ndarray
    probabilities: np.ndarray | None = None
    name: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = float("nan")

    def __post_init__(self) -> None:
        count, shape = len(self.organs), self.geometry.shape
        expected = {"labels": shape, "confidence": (count,), "slice_confidence": (count, shape[0])}
        if self.probabilities is not None:
            expected["probabilities"] = (count, *shape)
        for field, size in expected.items():
            if getattr(self, field).shape != size:
                raise ValueError(f"{field} has the shape {getattr(self, field).shape}, not {size}")
        if self.labels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"labels are {self.labels.dtype}, not uint8 or uint16")

    @property
    def certainty(self) -> float:
        """Mean confidence over all organs, 0..1; one that was not found has none."""
        return certainty_of(self.confidence)

    def mask(self, organ: Organ | str | int) -> np.ndarray:
        """Voxels of one organ, given itself, by name or by label; bool (z, y, x). KeyError for an unknown organ."""
        for known in self.organs:
            if organ in (known, known.name, known.label):
                return self.labels == known.label
        raise KeyError(f"{organ!r} is not among {[known.name for known in self.organs]}")

    def volumes_ml(self) -> dict[str, float]:
        """Volume of each organ in mL, by name."""
        return {organ.name: float(np.count_nonzero(self.mask(organ)) * self.geometry.voxel_ml) for organ in self.organs}

    def write(self, path: str | Path) -> Path:
        """Write the labels, whole or not at all.

        `.seg.nrrd` is a segmentation of Slicer with names, colours and terminology; `.nii.gz`, `.nii`, `.nrrd` and `.mha`
        are label maps, which have none of these.

        Raises:
            OutputError: another suffix, no permission, disk full.
        """
        path = Path(path)
        suffix = _check_suffix(path, WRITABLE)
        image = self.geometry.to_sitk(self.labels)
        if suffix == SLICER_SEGMENTATION:
            return write_segmentation(image, self.organs, path)
        return write_image(image, path)

    def write_probabilities(self, path: str | Path) -> Path:
        """Write the probabilities of all organs as float32, whole or not at all.

        `.nrrd` and `.mha`: one 3D image with a component per organ. Slicer opens it as a vector volume; a file named `.seq.nrrd`
        as a sequence with one named frame per organ. `.nii.gz` and `.nii`: a 4D image with the organs along the fourth axis,
        in Slicer a sequence. The order is that of `organs`.

        Raises:
            OutputError: no probabilities were kept, another suffix, no permission, disk full.
        """
        path = Path(path)
        suffix = _check_suffix(path, PROBABILITY_FILES)
        if self.probabilities is None:
            raise OutputError(
                f"Cannot write {path}: no probabilities were kept",
                "a result with probabilities",
                "segment again with SegmenterConfig(probabilities=True)",
            )
        images = [self.geometry.to_sitk(organ.astype(np.float32)) for organ in self.probabilities]
        if suffix.startswith(".nii"):
            return write_image(sitk.JoinSeries(images), path)
        image = sitk.Compose(images)
        image.SetMetaData("axis 0 index type", "text")
        image.SetMetaData("axis 0 index values", " ".join(_frame_name(organ) for organ in self.organs))
        return write_image(image, path)


def certainty_of(confidence: np.ndarray) -> float:
    """Mean of confidences (organ,); NaN, of an organ that was not found, counts as 0."""
    return float(np.nan_to_num(confidence).mean())


def _frame_name(organ: Organ) -> str:
    """The organ's name in the header of a sequence of Slicer, where a space separates the names."""
    return " ".join(organ.name.split()).replace("%", "%25").replace(" ", "%20")


def _check_suffix(path: Path, known: tuple[str, ...]) -> str:
    suffix = split_suffix(path)[1].lower()
    if suffix not in known:
        raise OutputError(
            f"Cannot write {path}: unknown file type {suffix!r}", f"one of {', '.join(known)}", "change the end of the file name"
        )
    return suffix
