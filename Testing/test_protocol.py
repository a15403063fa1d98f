from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FewShotSegLib.errors import ConfigError, VolumeError
from FewShotSegLib.evaluation.protocol import (
    Counts,
    DiceTable,
    circular_folds,
    fold_limits,
    pooled_mean_std,
    query_slices,
    slices_with,
    zscore,
)

CHAOS = (1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39)


def test_published_fold_limits() -> None:
    assert fold_limits(20) == [0, 4, 8, 12, 16, 20]
    assert fold_limits(30) == [0, 6, 12, 18, 24, 30]
    assert fold_limits(22) == [0, 4, 8, 13, 17, 22]


def test_published_folds_of_chaos() -> None:
    folds = circular_folds(CHAOS)
    assert (folds[0].queries, folds[0].supports) == ((1, 2, 3, 5), (8,))
    assert (folds[4].queries, folds[4].supports) == ((36, 37, 38, 39), (1,))
    assert [len(fold.training) for fold in folds] == [15] * 5


@given(st.integers(3, 40), st.integers(2, 6), st.integers(1, 3))
def test_folds_cover_every_scan_once_and_never_share(cases: int, folds: int, shots: int) -> None:
    scans = [f"case{i}" for i in range(cases)]
    if cases < folds or -(-cases // folds) + shots > cases:
        with pytest.raises(ConfigError, match="fewer folds"):
            circular_folds(scans, folds, shots)
        return
    found = circular_folds(scans, folds, shots)
    assert [q for fold in found for q in fold.queries] == scans
    for fold in found:
        assert len(fold.supports) == shots
        assert sorted(fold.training + fold.queries + fold.supports) == sorted(scans)


@pytest.mark.parametrize("folds", [0, 21])
def test_impossible_folds_are_refused(folds: int) -> None:
    with pytest.raises(ConfigError):
        circular_folds(CHAOS, folds)


def test_slices_with_enough_voxels() -> None:
    labels = np.zeros((4, 5, 5), np.uint8)
    labels[1, :2, :2], labels[2, 0, 0], labels[3] = 3, 3, 2
    assert slices_with(labels, 3) == [1, 2]
    assert slices_with(labels, 3, threshold=2) == [1]
    assert slices_with(labels, 7) == []


def test_query_slices_count_inside_the_extent_only() -> None:
    slices = query_slices([2, 3, 4, 8], 10)
    assert [s.z for s in slices if s.evaluated] == [2, 3, 4, 5, 6, 7, 8]
    assert [s.chunk for s in slices] == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]


def test_zscore() -> None:
    normalised = zscore(np.random.default_rng(0).normal(300, 40, (3, 8, 8)))
    assert normalised.dtype == np.float32
    assert (normalised.mean(), normalised.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1))


def test_a_constant_scan_cannot_be_normalised() -> None:
    with pytest.raises(VolumeError, match="same value"):
        zscore(np.full((2, 4, 4), 7.0))


def test_pooled_statistics_equal_those_of_all_voxels() -> None:
    scans = [np.random.default_rng(i).normal(100 + i, 20, 50 + i) for i in range(3)]
    sums = [(s.sum(), (s**2).sum(), s.size) for s in scans]
    voxels = np.concatenate(scans)
    assert pooled_mean_std(sums) == pytest.approx((voxels.mean(), voxels.std()))


def test_counts_and_their_sum() -> None:
    truth, predicted = np.array([1, 1, 1, 0, 0]), np.array([1, 0, 0, 1, 0])
    counts = Counts.of(predicted, truth)
    assert counts == Counts(hit=1, false=1, missed=2)
    assert (counts + Counts(hit=3)).dice == pytest.approx(2 * 4 / (2 * 4 + 1 + 2))
    assert np.isnan(Counts().dice)


COUNTS = {("b", 2): Counts(4, 2, 2), ("b", 1): Counts(1, 1, 1), ("a", 1): Counts(9, 1, 1), ("a", 2): Counts()}


def test_the_table_keeps_scans_in_order_and_leaves_out_what_is_empty() -> None:
    table = DiceTable.of(COUNTS)
    assert (table.scans, table.labels) == (("b", "a"), (1, 2))
    np.testing.assert_allclose(table.dice, [[0.5, 2 / 3], [0.9, np.nan]])
    np.testing.assert_allclose(table.label_mean, [0.7, 2 / 3])
    np.testing.assert_allclose(table.label_std, [0.2, 0.0], atol=1e-12)
    assert table.mean == pytest.approx((7 / 12 + 0.9) / 2)


def test_published_an_empty_pair_poisons_the_mean() -> None:
    assert np.isnan(DiceTable.of(COUNTS, faithful=True).mean)
