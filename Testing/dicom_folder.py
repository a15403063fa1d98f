"""DICOM series invented for tests: CT slices and enhanced MR files, whole enough for dciodvfy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
STUDY, FRAME = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
PATIENT = {
    "PatientName": "Phantom^Test", "PatientID": "P1", "PatientBirthDate": "19700101", "PatientSex": "O", "AccessionNumber": "",
    "StudyInstanceUID": STUDY, "StudyID": "1", "StudyDate": "20240102", "StudyTime": "101112", "ReferringPhysicianName": "",
    "FrameOfReferenceUID": FRAME, "PositionReferenceIndicator": "", "Manufacturer": "FewShotSeg tests",
}  # fmt: skip


def write_object(path: Path, kind: str, **tags: object) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(kind)
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(str(tags.pop("SOPInstanceUID", generate_uid())))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    item = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    item.SOPClassUID, item.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name, value in tags.items():
        setattr(item, name, value)
    item.save_as(path, enforce_file_format=True)


def write_slice(path: Path, position: Sequence[float], value: int | np.ndarray, series: str = "1.2.3", **tags: object) -> None:
    """A CT slice of 4 x 5 pixels of one value, or of the pixels given (row, column), int16."""
    pixels = value.astype(np.int16) if isinstance(value, np.ndarray) else np.full((4, 5), value, np.int16)
    defaults = PATIENT | {
        "Modality": "CT", "SeriesInstanceUID": series, "SeriesNumber": 7, "SeriesDescription": "abdomen", "InstanceNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Rows": pixels.shape[0], "Columns": pixels.shape[1],
        "PixelSpacing": [0.5, 0.75], "SliceThickness": 2.0, "ImagePositionPatient": [format(p, ".9g") for p in position],
        "ImageOrientationPatient": list(UPRIGHT), "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1, "RescaleIntercept": -1000,
        "RescaleSlope": 1, "PixelData": pixels.tobytes(),
    }  # fmt: skip
    write_object(path, CTImageStorage, **(defaults | tags))


def write_stack(folder: Path, heights: Sequence[float], **tags: object) -> None:
    """One slice at each height, its value ten times the height; the names are in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, height in enumerate(heights):
        name = f"{tags.get('series', 'a')}{number}.dcm"
        write_slice(folder / name, (1.0, 2.0, height), round(10 * height), InstanceNumber=number + 1, **tags)


def write_volume(
    folder: Path,
    voxels: np.ndarray,
    orientation: Sequence[float] = UPRIGHT,
    step: float = 2.0,
    order: Sequence[int] = (),
    **tags: object,
) -> None:
    """Voxels (z, y, x) as CT slices `step` mm apart along their normal; `order`: which slice is in the 1st, 2nd, ... file."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    for number, z in enumerate(order or range(len(voxels))):
        position = np.array([3.0, -7.0, 11.0]) + z * step * normal
        place = {"ImageOrientationPatient": [format(v, ".9g") for v in orientation], "InstanceNumber": number + 1}
        write_slice(folder / f"{number:03}.dcm", position, voxels[z], **(place | tags))


def write_enhanced(path: Path, voxels: np.ndarray, order: Sequence[int] = (), times: int = 1, **tags: object) -> None:
    """One enhanced MR file with the voxels (z, y, x), 3 mm apart: `order` tells which slice is in the 1st, 2nd, ... frame."""
    order = list(order or range(len(voxels))) * times
    defaults = PATIENT | {
        "Modality": "MR", "SeriesInstanceUID": "1.2.4", "SeriesNumber": 3, "SeriesDescription": "t2", "InstanceNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "Rows": voxels.shape[1], "Columns": voxels.shape[2],
        "NumberOfFrames": len(order), "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16,
        "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0, "PixelData": voxels[order].astype(np.uint16).tobytes(),
        "SharedFunctionalGroupsSequence": [
            dicom_item(
                PixelMeasuresSequence=[dicom_item(PixelSpacing=[0.5, 0.75], SliceThickness=3.0, SpacingBetweenSlices=3.0)],
                PlaneOrientationSequence=[dicom_item(ImageOrientationPatient=list(UPRIGHT))],
            )
        ],
        "PerFrameFunctionalGroupsSequence": [_frame(z, n // len(voxels)) for n, z in enumerate(order)],
    }  # fmt: skip
    write_object(path, EnhancedMRImageStorage, **(defaults | tags))


def _frame(z: int, time: int) -> Dataset:
    return dicom_item(
        FrameContentSequence=[dicom_item(TemporalPositionIndex=time + 1, StackID="1", InStackPositionNumber=z + 1)],
        PlanePositionSequence=[dicom_item(ImagePositionPatient=[1.0, 2.0, 3.0 * z])],
        PixelValueTransformationSequence=[dicom_item(RescaleSlope=1 + z, RescaleIntercept=-5, RescaleType="US")],
    )


def dicom_item(**tags: object) -> Dataset:
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return item
