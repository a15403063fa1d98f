"""Results as segmentation nodes: where the library found them, however the scan lies; and nothing else is touched."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from mrml_nodes import RAS_TO_LPS, add_segmentation, add_transform, add_volume, mask_in, new_scene
from tiny_encoder import TinyEncoder

from FewShotSegLib import grid
from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.errors import OutputError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.mrml import CONFIDENCE_TAG, show_segmentation, support_from_nodes, volume_from_node
from FewShotSegLib.organs import Organ
from FewShotSegLib.phantom import ORGANS as PHANTOM_ORGANS
from FewShotSegLib.phantom import Phantom, make_patient
from FewShotSegLib.segfiles import TERMINOLOGY_TAG
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

SHAPE = (8, 32, 32)
TURNED = tuple(sitk.VersorTransform((0.5, -0.3, 0.8), 0.4).GetMatrix())
ORGANS_DRAWN = (PHANTOM_ORGANS[0], PHANTOM_ORGANS[3])
ORDERS = [(order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)]


@pytest.fixture
def scene() -> Any:
    return new_scene()


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    """Slices of 64 pixels and an encoder that costs nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "DEFAULT_PIXELS", 64)
        patch.setattr(FeatureRunner, "_bf16_is_faster", lambda self: False)
        yield Segmenter(SegmenterConfig(device="cpu"), encoder=TinyEncoder())


@pytest.fixture(scope="module")
def patients() -> tuple[Phantom, Volume]:
    """A drawn scan, and the same body a little later: moved by a voxel, brighter, with other noise."""
    drawn = make_patient(0, shape=SHAPE)
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    array = (np.roll(drawn.volume.array, (1, -1), (1, 2)) * 1.1 + noise).astype(np.float32)
    return drawn, Volume(array, drawn.volume.geometry, "later", "MR")


@pytest.fixture(scope="module")
def expected(patients: tuple[Phantom, Volume], segmenter: Segmenter) -> Segmentation:
    """What the library finds without any node."""
    drawn, query = patients
    result = segmenter.segment(Support.create(drawn.volume, masks_of(drawn), ORGANS_DRAWN), query)
    assert all(result.mask(organ).any() for organ in ORGANS_DRAWN)
    return result


def masks_of(drawn: Phantom) -> np.ndarray:
    return np.stack([drawn.labels == organ.label for organ in ORGANS_DRAWN])


def reordered(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same scan in the same place, its voxels stored in another order."""
    image = sitk.Flip(sitk.PermuteAxes(volume.geometry.to_sitk(volume.array), order), flips)
    return Volume(sitk.GetArrayFromImage(image), Geometry.of(image), volume.name, volume.modality)


def moved(volume: Volume, matrix: np.ndarray) -> Volume:
    """The scan with another matrix (4, 4) in front of its own, LPS."""
    affine = matrix @ volume.geometry.affine()
    axes = affine[:3, :3] / np.array(volume.spacing)
    return Volume(volume.array, Geometry(volume.geometry.size, volume.spacing, tuple(affine[:3, 3]), tuple(axes.ravel())))


def through_nodes(scene: Any, drawn: Phantom, query: Volume, segmenter: Segmenter, above: np.ndarray | None = None) -> Any:
    """Segment the query by way of nodes; `above` (RAS) is the parent transform of all of them. The result node."""
    scan, target = add_volume(scene, drawn.volume.array, drawn.volume.geometry), add_volume(scene, query.array, query.geometry)
    masks = zip([organ.name for organ in ORGANS_DRAWN], masks_of(drawn), strict=True)
    drawing = add_segmentation(scene, drawn.volume.geometry, dict(masks), scan)
    if above is not None:
        add_transform(scene, above, scan, drawing, target)
    result = segmenter.segment(support_from_nodes(scan, drawing), volume_from_node(target))
    return show_segmentation(result, target)


def assert_shows(node: Any, expected: Segmentation, geometry: Geometry) -> None:
    """Every segment of the node, in world space, is what the library found on the grid `geometry`."""
    segmentation = node.GetSegmentation()
    names = [segmentation.GetSegment(key).GetName() for key in segmentation.GetSegmentIDs()]
    assert names == [organ.name for organ in expected.organs]
    for key, name in zip(segmentation.GetSegmentIDs(), names, strict=True):
        assert np.array_equal(mask_in(node, key, geometry), expected.mask(name)), name


@pytest.mark.parametrize("order", sorted({order for order, _ in ORDERS}))
def test_all_48_orientations_give_what_the_library_finds(
    scene: Any, patients: tuple[Phantom, Volume], expected: Segmentation, segmenter: Segmenter, order: tuple[int, ...]
) -> None:
    drawn, query = patients
    for flips in [flips for other, flips in ORDERS if other == order]:
        node = through_nodes(scene, drawn, reordered(query, order, flips), segmenter)
        assert_shows(node, expected, query.geometry)


@pytest.mark.parametrize("left_handed", [False, True])
@pytest.mark.parametrize("parent", [False, True])
def test_oblique_left_handed_and_transformed_scans_give_what_the_library_finds(
    scene: Any, patients: tuple[Phantom, Volume], segmenter: Segmenter, left_handed: bool, parent: bool
) -> None:
    drawn, query = patients
    turn = np.eye(4)
    turn[:3, :3] = np.array(TURNED).reshape(3, 3)
    turn[:3, 3] = 7, -30, 11
    oblique = moved(reordered(query, (0, 1, 2), (False, False, left_handed)), turn)
    above = np.eye(4)
    above[:3, :3], above[:3, 3] = turn[:3, :3].T, (5, 50, -20)
    lps = RAS_TO_LPS @ above @ RAS_TO_LPS if parent else np.eye(4)
    scan, world = moved(drawn.volume, lps), moved(oblique, lps)
    expected = segmenter.segment(Support.create(scan, masks_of(drawn), ORGANS_DRAWN), world)
    assert all(expected.mask(organ).any() for organ in ORGANS_DRAWN)
    node = through_nodes(scene, drawn, oblique, segmenter, above if parent else None)
    assert_shows(node, expected, world.geometry)


# ------------------------------------------------------------------------------------------------ the node
GRID = Geometry((6, 5, 4), (1, 2, 3), (4, 5, 6))
TERMINOLOGY = "Context~SCT^123037004^Structure~SCT^10200004^Liver~^^~Anatomic~^^~^^"
ORGANS = (Organ("Große Vene", 1, (0.5, 0.5, 0.5), TERMINOLOGY), Organ("spleen", 300), Organ("not there", 7, (0.25, 0.5, 1.0)))


def found() -> Segmentation:
    labels = np.zeros(GRID.shape, np.uint16)
    labels[1:3, 1:4, 1:3], labels[2, 2:, 4:] = 1, 300
    return Segmentation(GRID, ORGANS, labels, np.array([0.8765, 0.25, np.nan]), np.ones((3, 4)))


def tag(segment: Any, name: str) -> str:
    from vtkmodules.vtkCommonCore import mutable

    value = mutable("")
    assert segment.GetTag(name, value)
    return str(value)


def segments_of(node: Any) -> list[Any]:
    return [node.GetSegmentation().GetNthSegment(n) for n in range(node.GetSegmentation().GetNumberOfSegments())]


def test_segments_carry_name_color_terminology_and_confidence(scene: Any) -> None:
    node = show_segmentation(found(), add_volume(scene, np.zeros(GRID.shape, np.int16), GRID, "Abdomen"))
    segments = segments_of(node)
    assert [segment.GetName() for segment in segments] == [organ.name for organ in ORGANS]
    assert np.allclose([segment.GetColor() for segment in segments], [organ.color for organ in ORGANS])
    assert [tag(segment, TERMINOLOGY_TAG) for segment in segments] == [organ.terminology for organ in ORGANS]
    assert [tag(segment, CONFIDENCE_TAG) for segment in segments] == ["0.876", "0.250", "nan"]
    masks = [mask_in(node, key, GRID).sum() for key in node.GetSegmentation().GetSegmentIDs()]
    assert masks == [12, 6, 0], "an organ that was not found is an empty segment"
    assert node.GetDisplayNode() is not None


def test_the_node_belongs_to_the_query(scene: Any) -> None:
    query = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID, "Abdomen")
    transform = add_transform(scene, np.diag([1.0, 1.0, 1.0, 1.0]), query)
    node = show_segmentation(found(), query)
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is query
    assert node.GetParentTransformNode() is transform
    assert node.GetName() == "Abdomen segmented" and node.GetScene() is scene


def test_nothing_is_overwritten(scene: Any) -> None:
    query = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID, "Abdomen")
    drawing = add_segmentation(scene, GRID, {"liver": np.ones(GRID.shape, bool)}, query)
    drawing.SetName("Abdomen segmented")
    before = drawing.GetMTime(), drawing.GetSegmentation().GetMTime(), query.GetMTime()
    nodes = [show_segmentation(found(), query) for _ in range(3)] + [show_segmentation(found(), query, name="Abdomen")]
    names = [node.GetName() for node in (*nodes, drawing, query)]
    assert len(set(names)) == 6 and all(name.startswith("Abdomen") for name in names)
    assert (drawing.GetMTime(), drawing.GetSegmentation().GetMTime(), query.GetMTime()) == before
    assert drawing.GetSegmentation().GetNumberOfSegments() == 1


def test_a_result_is_a_good_support(scene: Any) -> None:
    query = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID)
    support = support_from_nodes(query, show_segmentation(found(), query))
    assert [organ.name for organ in support.organs] == ["Große Vene", "spleen"]
    assert np.allclose([organ.color for organ in support.organs], [organ.color for organ in ORGANS[:2]])
    assert [organ.terminology for organ in support.organs] == [organ.terminology for organ in ORGANS[:2]]
    assert np.array_equal(support.masks, [found().mask(1), found().mask(300)])


def test_a_query_that_left_or_changed_is_refused_and_leaves_nothing(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    query = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID)
    other = add_volume(scene, np.zeros((4, 5, 7), np.int16), Geometry((7, 5, 4), (1, 1, 1)))
    count = scene.GetNumberOfNodes()
    with pytest.raises(OutputError, match="other voxels"):
        show_segmentation(found(), other)
    monkeypatch.setattr("FewShotSegLib.mrml.results._labelmap", lambda *told: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        show_segmentation(found(), query)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0 and scene.GetNumberOfNodes() <= count + 1
    scene.RemoveNode(query)
    with pytest.raises(OutputError, match="no longer in the scene"):
        show_segmentation(found(), query, scene)


def remote_io(scene: Any, folder: Path) -> Any:
    """What Slicer sets up when it starts, to unpack .mrb files in."""
    import slicer

    folder.mkdir()
    logic = slicer.vtkMRMLRemoteIOLogic()
    logic.SetMRMLScene(scene)
    logic.AddDataIOToScene()
    logic.GetCacheManager().SetRemoteCacheDirectory(str(folder))
    return logic


def saved(scene: Any, path: Path) -> Any:
    """The scene written and read again, as Slicer's "Save as MRB" does, or as a .mrml file with its files beside it."""
    if path.suffix == ".mrb":
        assert scene.WriteToMRB(str(path))
    else:
        scene.SetRootDirectory(str(path.parent))
        for node in (scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())):
            if node.IsA("vtkMRMLStorableNode") and not node.GetHideFromEditors():
                node.AddDefaultStorageNode()
                storage = node.GetStorageNode()
                storage.SetFileName(str(path.parent / f"{node.GetID()}.{storage.GetDefaultWriteFileExtension()}"))
                assert storage.WriteData(node)
        scene.SetURL(str(path))
        assert scene.Commit()
    again = new_scene()
    if path.suffix == ".mrb":
        unpacker = remote_io(again, path.parent / "cache")
        assert again.ReadFromMRB(str(path))
        unpacker.RemoveDataIOFromScene()
    else:
        again.SetURL(str(path))
        assert again.Connect()
    return again


@pytest.mark.parametrize("suffix", [".mrml", ".mrb"])
def test_results_survive_saving_the_scene(scene: Any, tmp_path: Path, suffix: str) -> None:
    import slicer

    app_logic = slicer.vtkSlicerApplicationLogic()
    app_logic.SetMRMLScene(scene)
    query = add_volume(scene, np.zeros(GRID.shape, np.int16), GRID, "Abdomen")
    above = np.eye(4)
    above[:3, 3] = 10, 20, 30
    add_transform(scene, above, query)
    show_segmentation(found(), query)
    world = volume_from_node(query).geometry

    again = saved(scene, tmp_path / f"scene{suffix}")
    (node,) = [
        again.GetNthNodeByClass(n, "vtkMRMLSegmentationNode")
        for n in range(again.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"))
    ]
    assert node.GetName() == "Abdomen segmented"
    assert node.GetParentTransformNode().GetName() == "moved"
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()).GetName() == "Abdomen"
    segments = segments_of(node)
    assert [segment.GetName() for segment in segments] == [organ.name for organ in ORGANS]
    assert [tag(segment, TERMINOLOGY_TAG) for segment in segments] == [organ.terminology for organ in ORGANS]
    assert [tag(segment, CONFIDENCE_TAG) for segment in segments] == ["0.876", "0.250", "nan"]
    assert np.allclose([segment.GetColor() for segment in segments], [organ.color for organ in ORGANS], atol=1e-3)
    keys = node.GetSegmentation().GetSegmentIDs()
    assert np.array_equal([mask_in(node, key, world) for key in keys], [found().mask(organ) for organ in ORGANS])
