"""Connected pieces of organs."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from FewShotSegLib.pieces import count_pieces, keep_largest, keep_touching, largest_pieces


def specks(seed: int = 0, organs: int = 3) -> np.ndarray:
    """Many pieces of several organs."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(6, 30, 30)), 1.0)
    return np.where(noise > 0.02, 1 + (np.indices(noise.shape)[2] * organs // 30), 0).astype(np.uint8)


def test_only_the_largest_piece_of_every_organ_is_kept() -> None:
    index = specks()
    before = index.copy()
    keep_largest(index, [1, 1, 1])
    for organ in (1, 2, 3):
        pieces, count = ndimage.label(before == organ)
        assert count > 1
        sizes = ndimage.sum_labels(before == organ, pieces, range(1, count + 1))
        assert np.array_equal(index == organ, pieces == 1 + sizes.argmax())


def test_an_absent_organ_and_a_single_piece_are_left_alone() -> None:
    index = np.zeros((3, 8, 8), np.uint8)
    index[1, 2:4, 2:4] = 2
    before = index.copy()
    keep_largest(index, [1, 1, 1, 1])
    assert np.array_equal(index, before)


def test_pieces_that_touch_only_at_a_corner_are_two() -> None:
    index = np.zeros((1, 6, 6), np.uint8)
    index[0, 0:3, 0:3] = index[0, 3:5, 3:5] = 1
    keep_largest(index, [1])
    assert index.sum() == 9


def test_pieces_with_a_seed_are_kept() -> None:
    index = np.zeros((4, 9, 9), np.uint8)
    index[0, 1:3, 1:3] = index[0:3, 6:8, 6:8] = index[3, 1:3, 1:3] = 1
    index[3, 5:7, 1:3] = 2
    before = index.copy()
    seeds = np.zeros(index.shape, bool)
    seeds[0, 2, 2] = seeds[2, 7, 7] = True
    seeds[3, 4, 4] = True  # lies in no piece
    keep_touching(index, 1, seeds)
    assert not index[3, 1:3, 1:3].any()
    before[3, 1:3, 1:3] = 0
    assert np.array_equal(index, before)


def test_without_a_seed_no_piece_is_kept() -> None:
    index = specks()
    keep_touching(index, 2, np.zeros(index.shape, bool))
    assert not (index == 2).any() and (index == 1).any() and (index == 3).any()
    keep_touching(index, 9, np.ones(index.shape, bool))
    assert (index == 1).any()


def two_kidneys_and_specks() -> np.ndarray:
    """Pieces of 48, 36, 8 and 2 voxels."""
    mask = np.zeros((4, 12, 12), bool)
    mask[0:3, 1:5, 1:5] = mask[0:3, 1:5, 7:10] = mask[0:2, 8:10, 1:3] = mask[3, 8, 8:10] = True
    return mask


def test_specks_are_not_counted() -> None:
    mask = two_kidneys_and_specks()
    assert count_pieces(mask) == 3
    assert count_pieces(mask[:1]) == 3 and count_pieces(np.zeros((2, 3, 3), bool)) == 0
    assert count_pieces(mask[3]) == 1, "of a slice, too"


def test_as_many_of_the_largest_are_kept_as_there_should_be() -> None:
    mask = two_kidneys_and_specks()
    assert [int(largest_pieces(mask, count).sum()) for count in (1, 2, 3, 4)] == [48, 84, 92, 92]
    index = np.where(mask, 2, 0).astype(np.uint8)
    keep_largest(index, [1, 2])
    assert (index == 2).sum() == 84 and set(np.unique(index)) == {0, 2}


def test_of_two_pieces_the_surer_one_may_be_the_larger() -> None:
    mask = two_kidneys_and_specks()
    weight = np.where(np.indices(mask.shape)[2] < 6, 0.5, 1.0)
    assert largest_pieces(mask, 1, weight)[:, :, 7:].sum() == 36
