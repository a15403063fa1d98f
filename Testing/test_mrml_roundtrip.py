"""Slicer's own MRML libraries (wheel `slicer-core`) read what we write, and we read what they write."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from FewShotSegLib.organs import Organ
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Geometry, Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
ORGANS = (Organ("Große Vene", 1, (0.1, 0.5, 0.9)), Organ("linke Niere (täglich)", 2, (0.25, 1.0, 0.0)), Organ("left kidney", 7))


@pytest.fixture(scope="module")
def mrml() -> ModuleType:
    """The real MRML classes; imported here, for it takes seconds."""
    slicer = pytest.importorskip("slicer", reason="the wheel slicer-core is not installed (dependency group dev)")
    if not hasattr(slicer, "vtkMRMLSegmentationStorageNode"):
        pytest.skip("the module slicer is not that of the wheel slicer-core")
    return slicer


def oblique(left_handed: bool = False) -> Geometry:
    """A grid turned about all three axes, with a different spacing along each."""
    versor = sitk.VersorTransform((0.5, -0.3, 0.8), 0.7)
    axes = np.array(versor.GetMatrix()).reshape(3, 3)
    if left_handed:
        axes[:, 2] *= -1
    return Geometry((23, 17, 11), (0.9, 1.3, 4.1), (-31.5, 12.25, 207.75), tuple(axes.ravel()))


def blob(geometry: Geometry, seed: int) -> np.ndarray:
    """A random half of the voxels of an off-centre box, bool (z, y, x)."""
    mask = np.zeros(geometry.shape, bool)
    box = (slice(2, 9), slice(4 + seed, 13), slice(5, 21 - 2 * seed))
    mask[box] = np.random.default_rng(seed).random(mask[box].shape) < 0.5
    return mask


def read_nodes(mrml: ModuleType, node: Any, storage: Any, path: Path) -> Any:
    """Read a file into a MRML node; the scene is kept alive with it."""
    scene = mrml.vtkMRMLScene()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    return scene


def matrix_of(vtk_matrix: Any) -> np.ndarray:
    return np.array([[vtk_matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def mask_of(mrml: ModuleType, node: Any, segment_id: str, geometry: Geometry) -> np.ndarray:
    """A segment's voxels on our grid, bool (z, y, x), found through their RAS positions."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    image = mrml.vtkOrientedImageData()
    assert node.GetBinaryLabelmapRepresentation(segment_id, image)
    low = image.GetExtent()[::2]
    scalars = image.GetPointData().GetScalars()
    voxels = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
    to_ras = vtkMatrix4x4()
    image.GetImageToWorldMatrix(to_ras)

    kji = np.argwhere(voxels)
    ijk = np.column_stack([kji[:, ::-1] + np.array(low), np.ones(len(kji))])
    found = ijk @ (np.linalg.inv(geometry.affine()) @ RAS_TO_LPS @ matrix_of(to_ras)).T
    nearest = np.rint(found[:, :3]).astype(int)
    assert np.abs(found[:, :3] - nearest).max(initial=0) < 1e-4
    mask = np.zeros(geometry.shape, bool)
    mask[tuple(nearest[:, ::-1].T)] = True
    return mask


@pytest.mark.parametrize("left_handed", [False, True])
def test_slicer_reads_our_segmentation(mrml: ModuleType, tmp_path: Path, left_handed: bool) -> None:
    from vtkmodules.vtkCommonCore import mutable

    geometry = oblique(left_handed)
    labels = np.zeros(geometry.shape, np.uint8)
    for seed, organ in enumerate(ORGANS):
        labels[blob(geometry, seed)] = organ.label
    slices = geometry.shape[0]
    result = Segmentation(geometry, ORGANS, labels, np.ones(3), np.ones((3, slices)))
    node = mrml.vtkMRMLSegmentationNode()
    scene = read_nodes(mrml, node, mrml.vtkMRMLSegmentationStorageNode(), result.write(tmp_path / "ours.seg.nrrd"))

    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == len(ORGANS)
    assert segmentation.GetSourceRepresentationName() == "Binary labelmap"
    for number, organ in enumerate(ORGANS):
        segment, terminology = segmentation.GetNthSegment(number), mutable("")
        assert segment.GetTag("TerminologyEntry", terminology)
        assert (segment.GetName(), str(terminology)) == (organ.name, organ.terminology)
        assert segment.GetColor() == pytest.approx(organ.color, abs=1e-6)
        mask = mask_of(mrml, node, segmentation.GetNthSegmentID(number), geometry)
        assert mask.any() and np.array_equal(mask, labels == organ.label)
    del scene


def write_with_mrml(mrml: ModuleType, geometry: Geometry, masks: np.ndarray, organs: tuple[Organ, ...], path: Path) -> None:
    """Write segments with Slicer's own code; those that overlap go to layers of their own."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonMath import vtkMatrix4x4

    to_ras = vtkMatrix4x4()
    to_ras.DeepCopy((RAS_TO_LPS @ geometry.affine()).ravel().tolist())
    scene, node, storage = mrml.vtkMRMLScene(), mrml.vtkMRMLSegmentationNode(), mrml.vtkMRMLSegmentationStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    node.GetSegmentation().SetSourceRepresentationName("Binary labelmap")
    for mask, organ in zip(masks, organs, strict=True):
        image = mrml.vtkOrientedImageData()
        image.SetDimensions(geometry.size)
        image.SetImageToWorldMatrix(to_ras)
        image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=True))
        segment = mrml.vtkSegment()
        segment.SetName(organ.name)
        segment.SetColor(organ.color)
        segment.SetTag("TerminologyEntry", organ.terminology)
        segment.AddRepresentation("Binary labelmap", image)
        node.GetSegmentation().AddSegment(segment)
    storage.SetFileName(str(path))
    assert storage.WriteData(node) == 1


def test_we_read_slicers_overlapping_segments(mrml: ModuleType, tmp_path: Path) -> None:
    geometry = oblique()
    masks = np.stack([blob(geometry, 0), blob(geometry, 1)])
    assert (masks[0] & masks[1]).any()
    path = tmp_path / "theirs.seg.nrrd"
    write_with_mrml(mrml, geometry, masks, ORGANS[:2], path)
    stored = sitk.ReadImage(str(path))
    assert stored.GetNumberOfComponentsPerPixel() == 2, "the segments were to lie in two layers"
    assert stored.GetSize() != geometry.size, "Slicer was to crop the file to the segments"

    image = Volume(np.zeros(geometry.shape, np.float32), geometry).write(tmp_path / "image.nrrd")
    support = Support.read(image, path)
    assert np.array_equal(support.masks, masks)
    assert [organ.name for organ in support.organs] == [organ.name for organ in ORGANS[:2]]
    assert [organ.terminology for organ in support.organs] == [organ.terminology for organ in ORGANS[:2]]
    assert np.allclose([organ.color for organ in support.organs], [organ.color for organ in ORGANS[:2]], atol=1e-5)
    chosen = Support.read(image, path, organs=[ORGANS[1].name.upper()])
    assert np.array_equal(chosen.masks, masks[1:])


@pytest.mark.parametrize("name", ["p.seq.nrrd", "p.nii.gz"])
def test_slicer_opens_probabilities_as_a_sequence(mrml: ModuleType, tmp_path: Path, name: str) -> None:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    geometry = oblique()
    probabilities = np.stack([blob(geometry, seed) * np.float16(0.5) for seed in range(3)])
    labels, ones = np.zeros(geometry.shape, np.uint8), np.ones((3, geometry.shape[0]))
    result = Segmentation(geometry, ORGANS, labels, np.ones(3), ones, probabilities)
    node = mrml.vtkMRMLSequenceNode()
    scene = read_nodes(mrml, node, mrml.vtkMRMLVolumeSequenceStorageNode(), result.write_probabilities(tmp_path / name))

    assert node.GetNumberOfDataNodes() == 3
    if name == "p.seq.nrrd":
        assert [node.GetNthIndexValue(frame) for frame in range(3)] == [organ.name for organ in ORGANS]
    for frame in range(3):
        image = node.GetNthDataNode(frame).GetImageData()
        values = vtk_to_numpy(image.GetPointData().GetScalars())
        assert sorted(image.GetDimensions()) == sorted(geometry.size)
        assert values.sum() == probabilities[frame].astype(np.float32).sum()
    del scene


def test_slicer_opens_probabilities_as_a_vector_volume(mrml: ModuleType, tmp_path: Path) -> None:
    geometry = oblique()
    probabilities = np.ones((3, *geometry.shape), np.float16)
    labels, ones = np.zeros(geometry.shape, np.uint8), np.ones((3, geometry.shape[0]))
    result = Segmentation(geometry, ORGANS, labels, np.ones(3), ones, probabilities)
    node = mrml.vtkMRMLVectorVolumeNode()
    scene = read_nodes(mrml, node, mrml.vtkMRMLVolumeArchetypeStorageNode(), result.write_probabilities(tmp_path / "p.nrrd"))
    assert node.GetImageData().GetNumberOfScalarComponents() == 3
    del scene
