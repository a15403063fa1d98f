"""Drawings: which slices count as drawn, which organs are used, and labels on grids of their own."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from FewShotSegLib.errors import SupportError, VolumeError
from FewShotSegLib.label_layers import LabelLayers, Segment
from FewShotSegLib.support import Organ, Support
from FewShotSegLib.volume import Geometry, Volume

LIVER, SPLEEN = Organ("liver", 1), Organ("spleen", 2)
GEOMETRY = Geometry((12, 10, 8), (1.5, 2.0, 4.0), (-20.0, 30.0, -100.0))


def image_on(geometry: Geometry) -> Volume:
    return Volume(np.zeros(geometry.shape, np.float32), geometry)


def mask_on(slices: list[int], geometry: Geometry = GEOMETRY) -> np.ndarray:
    """A small patch on some slices, bool (z, y, x)."""
    mask = np.zeros(geometry.shape, bool)
    mask[slices, 2:5, 3:7] = True
    return mask


def write_pair(folder: Path, labels: np.ndarray, labels_geometry: Geometry, geometry: Geometry = GEOMETRY) -> tuple[Path, Path]:
    image = image_on(geometry).write(folder / "image.nrrd")
    return image, Volume(labels, labels_geometry).write(folder / "labels.nrrd")


def slices_of(drawn: np.ndarray) -> list[int]:
    return np.flatnonzero(drawn).tolist()


@pytest.mark.parametrize(
    ("labelled", "drawn"),
    [([3], [3]), ([1, 5], [1, 5]), ([2, 3, 5, 6], [2, 3, 5, 6]), ([2, 3], list(range(8))), (list(range(8)), list(range(8)))],
)
def test_auto_takes_one_slice_or_gaps_as_a_sparse_drawing(labelled: list[int], drawn: list[int]) -> None:
    support = Support.create(image_on(GEOMETRY), mask_on(labelled)[None], [LIVER])
    assert slices_of(support.drawn[0]) == drawn
    assert support.is_sparse == (len(drawn) < 8)
    assert np.array_equal(support.masks[0], mask_on(labelled))


def test_auto_decides_for_each_organ() -> None:
    masks = np.stack([mask_on([3]), mask_on([4, 5, 6])])
    support = Support.create(image_on(GEOMETRY), masks, [LIVER, SPLEEN])
    assert [slices_of(row) for row in support.drawn] == [[3], list(range(8))]
    assert support.is_sparse


def test_the_only_slice_of_a_scan_is_not_sparse() -> None:
    geometry = Geometry((12, 10, 1), (1.0, 1.0, 1.0))
    assert not Support.create(image_on(geometry), mask_on([0], geometry)[None], [LIVER]).is_sparse


def test_all_takes_empty_slices_as_drawn() -> None:
    support = Support.create(image_on(GEOMETRY), mask_on([3])[None], [LIVER], slices="all")
    assert support.drawn.all() and not support.is_sparse


def test_a_list_forgets_all_other_slices() -> None:
    masks = np.stack([mask_on([2, 3, 4, 5]), mask_on([4, 5, 6])])
    support = Support.create(image_on(GEOMETRY), masks, [LIVER, SPLEEN], slices=[2, 5])
    assert np.array_equal(support.masks, np.stack([mask_on([2, 5]), mask_on([5])]))
    assert [slices_of(row) for row in support.drawn] == [[2, 5], [2, 5]]


def test_a_list_does_not_make_a_sparse_organ_known_where_it_was_not_drawn() -> None:
    masks = np.stack([mask_on([2]), mask_on([5])])
    support = Support.create(image_on(GEOMETRY), masks, [LIVER, SPLEEN], slices=[2, 5])
    assert [slices_of(row) for row in support.drawn] == [[2], [5]]


def test_create_leaves_the_callers_masks_alone() -> None:
    masks = mask_on([2, 3, 4])[None]
    Support.create(image_on(GEOMETRY), masks, [LIVER], slices=[3])
    assert np.array_equal(masks[0], mask_on([2, 3, 4]))


@pytest.mark.parametrize("slices", [[8], [3, 99], [-1], [], "some"])
def test_slices_that_do_not_exist_are_refused(slices: list[int] | str) -> None:
    with pytest.raises(SupportError, match="0 to 7|'auto'"):
        Support.create(image_on(GEOMETRY), mask_on([3])[None], [LIVER], slices=slices)  # type: ignore[arg-type]


def test_organ_empty_on_the_chosen_slices_says_where_it_is() -> None:
    masks = np.stack([mask_on([0, 1]), mask_on([1, 3, 4, 5])])
    with pytest.raises(SupportError, match="'spleen' is empty.*1, 3-5") as caught:
        Support.create(image_on(GEOMETRY), masks, [LIVER, SPLEEN], slices=[0])
    assert caught.value.action


def test_masks_and_organs_that_do_not_fit_are_refused() -> None:
    image, masks = image_on(GEOMETRY), np.stack([mask_on([3]), mask_on([4])])
    for bad_masks, organs in (
        (masks, [LIVER]),
        (masks[0], [LIVER]),
        (masks[:, 1:], [LIVER, SPLEEN]),
        (masks, [LIVER, Organ("spleen", 1)]),
        (masks, [LIVER, Organ("liver", 2)]),
        (masks, [LIVER, Organ("spleen", 0)]),
        (masks * np.array([1, 0])[:, None, None, None], [LIVER, SPLEEN]),
        (masks[:0], []),
    ):
        with pytest.raises(SupportError):
            Support.create(image, bad_masks, organs)


def two_organs() -> np.ndarray:
    return (mask_on([3, 4]) * 2 + np.roll(mask_on([3, 4, 5]), 5, axis=2) * 7).astype(np.uint8)


def test_label_map_has_one_organ_per_value(tmp_path: Path) -> None:
    support = Support.read(*write_pair(tmp_path, two_organs(), GEOMETRY), names={7: "spleen"})
    assert [(organ.name, organ.label) for organ in support.organs] == [("label 2", 2), ("spleen", 7)]
    assert np.array_equal(support.masks[1], two_organs() == 7)
    assert support.image.geometry == GEOMETRY


@pytest.mark.parametrize("wanted", [["SPLEEN"], [7], ["7"], ["spleen", 7]])
def test_organs_are_chosen_by_name_in_any_case_or_by_number(tmp_path: Path, wanted: list[str | int]) -> None:
    support = Support.read(*write_pair(tmp_path, two_organs(), GEOMETRY), names={7: "Spleen"}, organs=wanted)
    assert [organ.name for organ in support.organs] == ["Spleen"]
    assert support.masks.shape == (1, *GEOMETRY.shape)


def test_unknown_organ_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SupportError, match=r"'heart'.*'label 2' \(2\), 'spleen' \(7\)"):
        Support.read(*write_pair(tmp_path, two_organs(), GEOMETRY), names={7: "spleen"}, organs=["heart"])


def test_labels_without_a_voxel_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SupportError, match="no labelled voxel"):
        Support.read(*write_pair(tmp_path, np.zeros(GEOMETRY.shape, np.uint8), GEOMETRY))


def test_missing_labels_are_named(tmp_path: Path) -> None:
    image, _ = write_pair(tmp_path, two_organs(), GEOMETRY)
    with pytest.raises(VolumeError, match="nowhere.seg.nrrd"):
        Support.read(image, tmp_path / "nowhere.seg.nrrd")


def test_finer_labels_take_the_nearest_voxel(tmp_path: Path) -> None:
    """A box drawn on a grid three times finer, whose voxel centres include those of the image."""
    x, y, z = GEOMETRY.size
    fine_spacing = tuple(edge / 3 for edge in GEOMETRY.spacing)
    fine = Geometry((3 * x, 3 * y, 3 * z), fine_spacing, GEOMETRY.origin, GEOMETRY.direction)  # type: ignore[arg-type]
    labels = np.zeros(fine.shape, np.uint8)
    labels[6:13, 9:19, 3:22] = 1
    support = Support.read(*write_pair(tmp_path, labels, fine))
    assert np.array_equal(support.masks[0], labels[::3, ::3, ::3] == 1)


def rotated(degrees: float) -> tuple[float, ...]:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(
    axes=st.permutations((0, 1, 2)),
    flips=st.tuples(*[st.booleans()] * 3),
    low=st.tuples(*[st.integers(0, 2)] * 3),
    degrees=st.floats(-180, 180),
    seed=st.integers(0, 1000),
)
def test_a_cropped_and_reoriented_label_grid_gives_the_same_voxels(
    axes: list[int], flips: tuple[bool, ...], low: tuple[int, ...], degrees: float, seed: int
) -> None:
    """The same voxels stored in any axis order and direction, and cropped as Slicer does, on an oblique scan."""
    geometry = Geometry((7, 6, 5), (1.5, 2.0, 4.0), (-20.0, 30.0, -100.0), rotated(degrees))
    labels = (np.random.default_rng(seed).random(geometry.shape) < 0.3).astype(np.uint8)
    labels[: low[2]], labels[:, : low[1]], labels[:, :, : low[0]] = 0, 0, 0
    labels[-1, -1, -1] = 1
    crop = geometry.to_sitk(labels)[low[0] :, low[1] :, low[2] :]
    stored = sitk.Flip(sitk.PermuteAxes(crop, axes), flips, flipAboutOrigin=False)
    layers = LabelLayers(sitk.GetArrayFromImage(stored)[None], Geometry.of(stored), (Segment(LIVER, 0, 1),))
    assert np.array_equal(layers.on(geometry).layers[0], labels)


def test_labels_partly_outside_keep_their_inside_part(tmp_path: Path) -> None:
    moved = Geometry(GEOMETRY.size, GEOMETRY.spacing, (-20.0, 30.0, -100.0 + 5 * 4.0))
    support = Support.read(*write_pair(tmp_path, mask_on([1, 2, 3, 4]).astype(np.uint8), moved))
    assert np.array_equal(support.masks[0], mask_on([6, 7]))


def test_disjoint_grids_are_refused_with_both_extents(tmp_path: Path) -> None:
    far = Geometry(GEOMETRY.size, GEOMETRY.spacing, (500.0, 30.0, -100.0))
    with pytest.raises(SupportError) as caught:
        Support.read(*write_pair(tmp_path, two_organs(), far))
    assert "x 500..516" in caught.value.found and "x -20..-4" in caught.value.expected and caught.value.action
    assert "mm" in caught.value.found and "mm" in caught.value.expected


def outside_and_inside() -> tuple[np.ndarray, Geometry]:
    """Organ 1 beyond the image's last slice, organ 2 inside."""
    labels = mask_on([0, 1], Geometry((12, 10, 16), (1.5, 2.0, 4.0))) * 2
    labels[12:, 2:5, 3:7] = 1
    return labels.astype(np.uint8), Geometry((12, 10, 16), GEOMETRY.spacing, GEOMETRY.origin)


def test_labels_of_which_nothing_lies_inside_are_refused(tmp_path: Path) -> None:
    labels, geometry = outside_and_inside()
    with pytest.raises(SupportError, match="Nothing of 'label 1' lies in the image"):
        Support.read(*write_pair(tmp_path, np.where(labels == 1, labels, 0), geometry))


def test_an_organ_outside_is_left_out_unless_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = write_pair(tmp_path, *outside_and_inside())
    with caplog.at_level(logging.WARNING):
        assert [organ.label for organ in Support.read(*paths).organs] == [2]
    assert "'label 1'" in caplog.text
    with pytest.raises(SupportError, match="Nothing of 'label 1' lies in the image"):
        Support.read(*paths, organs=[1, 2])


def test_real_scan_with_one_drawn_slice(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "chaos_t2"
    support = Support.read(
        folder / "38_image.nii.gz", folder / "38_label.nii.gz", slices=[30], organs=["liver"], names={1: "liver"}
    )
    assert slices_of(support.masks[0].any(axis=(1, 2))) == slices_of(support.drawn[0]) == [30]


def test_a_drawing_for_a_scan_that_is_there_is_the_same_as_read_with_it(clinic: Path) -> None:
    read = Support.read(clinic / "a.nii.gz", clinic / "a.seg.nrrd")
    found = Support.on_scan(Volume.read(clinic / "a.nii.gz"), clinic / "a.seg.nrrd")
    assert found.organs == read.organs and np.array_equal(found.masks, read.masks) and np.array_equal(found.drawn, read.drawn)
