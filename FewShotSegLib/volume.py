"""A scan: voxels, where they lie in the patient, and how they come from and go to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.files import split_suffix
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.image_files import read_image, write_image

if TYPE_CHECKING:
    from FewShotSegLib.dicom_series import SeriesId

__all__ = ["Geometry", "Volume"]

MODALITIES = ("MR", "CT")
MODALITY_KEY = "Modality"
AIR_HU = -110  # darker than fat: air, also where it was cut to a window for soft tissue such as -125..275
AIR_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D scan.

    Args:
        array: voxels (z, y, x), of any real type.
        geometry: where they lie.
        name: for tables and file names; not the patient's.
        modality: "MR", "CT" or "" when unknown.
        series: the DICOM series that it was read from, if any.

    Raises:
        VolumeError: the array does not have the shape of its geometry.
    """

    array: np.ndarray
    geometry: Geometry
    name: str = ""
    modality: str = ""
    series: SeriesId | None = None

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise VolumeError(
                f"An array of shape {self.array.shape}", f"the shape (z, y, x) of its geometry, {self.geometry.shape}"
            )

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing along (x, y, z), mm."""
        return self.geometry.spacing

    @property
    def is_ct(self) -> bool:
        """Declared as CT, or undeclared with at least 1 % of the voxels below -110, as the air of a CT in Hounsfield units."""
        if self.modality:
            return self.modality == "CT"
        return bool(np.count_nonzero(self.array < AIR_HU) >= AIR_SHARE * self.array.size)

    @classmethod
    def read(cls, path: str | Path, *, series: str | None = None) -> Volume:
        """Read a NIfTI, NRRD, MHA or MHD file, a folder with a DICOM series, or a DICOM file with a whole scan (enhanced CT
        or MR); the voxel type is kept.

        Args:
            path: file or folder.
            series: which series of a DICOM folder that holds several: its UID, number or description; for the rule without
                it see `dicom_series.find_series`.

        Raises:
            VolumeError: missing, damaged, not an image, not a 3D scan of single values, or no such series.
        """
        from FewShotSegLib.dicom_headers import is_multiframe  # only to read files: Slicer 5.10 has a pydicom that is too old

        path = Path(path)
        origin = None
        if path.is_dir() or is_multiframe(path):
            from FewShotSegLib.dicom_series import read_series

            image, modality, origin = read_series(path, series)
        elif series is not None:
            raise VolumeError(f"{path} is not a folder", f"a DICOM folder to choose the series {series!r} from")
        else:
            image = read_image(path)
            modality = image.GetMetaData(MODALITY_KEY) if image.HasMetaDataKey(MODALITY_KEY) else ""
        name = path.resolve().name if path.is_dir() else split_suffix(path)[0]
        modality = modality if modality in MODALITIES else ""
        return cls(sitk.GetArrayFromImage(image), _geometry(path, image), name, modality, origin)

    def write(self, path: str | Path) -> Path:
        """Write as .nii, .nii.gz, .nrrd or .mha, whole or not at all. Only NRRD keeps the modality.

        Raises:
            OutputError: unknown suffix, no permission, disk full.
        """
        image = self.geometry.to_sitk(self.array)
        if self.modality:
            image.SetMetaData(MODALITY_KEY, self.modality)
        return write_image(image, Path(path))


def _geometry(path: Path, image: sitk.Image) -> Geometry:
    try:
        return Geometry.of(image)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error.found}", error.expected, error.action) from error
