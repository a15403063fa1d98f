from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage, stats

from FewShotSegLib.evaluation.metrics import Mean, dice, failures, mean_interval, paired_wilcoxon, scores, surface_scores

SPACING = (1.25, 1.5, 7.7)


def ball(shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) <= radius**2


def blob(seed: int, shape: tuple[int, int, int] = (9, 20, 22)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return noise > np.quantile(noise, 0.8)


def monai_surface(prediction: np.ndarray, truth: np.ndarray, tolerance: float) -> tuple[float, float]:
    masks = [torch.from_numpy(mask.astype(np.uint8))[None, None] for mask in (prediction, truth)]
    spacing = SPACING[::-1]
    nsd = compute_surface_dice(*masks, [tolerance], include_background=True, spacing=spacing)
    hd95 = compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=spacing)
    return float(nsd), float(hd95)


def test_dice_of_known_masks() -> None:
    truth = np.zeros((4, 4, 4), bool)
    truth[1:3, :2, :2] = True
    prediction = np.zeros_like(truth)
    prediction[1, :2, :2] = True
    prediction[3, 0, :4] = True
    assert dice(prediction, truth) == pytest.approx(2 * 4 / (8 + 8))
    assert dice(truth, truth) == 1.0
    assert dice(~truth, truth) == 0.0


def test_dice_on_chosen_slices_ignores_the_others() -> None:
    truth = np.zeros((3, 2, 2), bool)
    truth[1] = True
    prediction = truth.copy()
    prediction[2] = True
    assert dice(prediction, truth) == pytest.approx(2 / 3)
    assert dice(prediction, truth, np.array([False, True, False])) == 1.0


def test_both_empty_is_nan_everywhere() -> None:
    empty = np.zeros((3, 5, 5), bool)
    found = scores(empty, empty, SPACING)
    assert np.isnan([found.dice, found.nsd, found.hd95]).all()


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_is_the_worst_score(swap: bool) -> None:
    pair = [np.zeros((3, 6, 8), bool), ball((3, 6, 8), (1, 3, 4), 2)]
    found = scores(*(pair[::-1] if swap else pair), SPACING)
    diagonal = np.linalg.norm([3 * 7.7, 6 * 1.5, 8 * 1.25])
    assert (found.dice, found.nsd) == (0.0, 0.0)
    assert found.hd95 == pytest.approx(diagonal)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from([0.5, 2.0, 8.0]))
def test_surface_scores_are_those_of_monai(first: int, second: int, tolerance: float) -> None:
    prediction, truth = blob(first), blob(second)
    assert surface_scores(prediction, truth, SPACING, tolerance_mm=tolerance) == pytest.approx(
        monai_surface(prediction, truth, tolerance), abs=1e-5
    )


def test_surface_distances_are_in_millimetres() -> None:
    truth = np.zeros((5, 20, 20), bool)
    truth[1:4, 5:12, 5:12] = True
    moved = np.roll(truth, 4, axis=2)
    assert surface_scores(moved, truth, (0.5, 9.0, 9.0))[1] == pytest.approx(2.0)
    assert surface_scores(moved, truth, (0.5, 9.0, 9.0), tolerance_mm=2.0)[0] == 1.0
    assert surface_scores(moved, truth, (0.5, 9.0, 9.0), tolerance_mm=1.9)[0] < 1.0


def test_oracle_slices_cut_the_volume() -> None:
    truth, prediction = np.zeros((2, 8, 12, 12), bool)
    truth[2:5, 4:8, 4:8] = True
    prediction[1:7, 4:8, 4:8] = True
    extent = np.zeros(8, bool)
    extent[2:5] = True
    assert scores(prediction, truth, SPACING, extent).nsd == 1.0
    assert scores(prediction, truth, SPACING).nsd < 1.0


def test_slices_between_scored_ones_do_not_count_but_hold_surface() -> None:
    truth = ball((9, 16, 16), (4, 8, 8), 4)
    prediction = truth.copy()
    prediction[4, :2, :2] = True
    others = np.arange(9) != 4
    found = scores(prediction, truth, SPACING, others)
    assert (found.dice, found.nsd, found.hd95) == (1.0, 1.0, 0.0)
    assert scores(prediction, truth, SPACING).dice < 1.0


def test_a_scan_takes_less_than_half_a_second() -> None:
    truth = ball((36, 256, 256), (18, 128, 128), 60) & (np.abs(np.arange(36) - 18) < 16)[:, None, None]
    prediction = np.roll(truth, 5, axis=1)
    scores(prediction, truth, SPACING)
    start = time.process_time()
    scores(prediction, truth, SPACING)
    assert time.process_time() - start < 0.5


def test_mean_interval_is_the_t_interval() -> None:
    values = [0.7, 0.8, 0.75, 0.9]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    found = mean_interval(values)
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), *expected))
    assert found.n == 4


def test_mean_interval_counts_a_group_once_and_leaves_nan_out() -> None:
    grouped = mean_interval([0.6, 0.8, 0.9, float("nan")], ["a", "a", "b", "c"])
    assert grouped == mean_interval([0.7, 0.9])


def test_mean_interval_stays_where_values_can_be() -> None:
    found = mean_interval([0.1, 0.9, 0.95], highest=1)
    assert (found.low, found.high) == (0.0, 1.0)
    assert mean_interval([10.0, 90.0]).high > 90


def test_mean_interval_of_one_value_or_none() -> None:
    one = mean_interval([0.5])
    assert (one.mean, one.n) == (0.5, 1) and np.isnan([one.low, one.high]).all()
    none = mean_interval([float("nan")])
    assert isinstance(none, Mean) and none.n == 0 and np.isnan(none.mean)


def test_failures_are_below_one_half() -> None:
    assert failures([0.0, 0.49, 0.5, 0.9]) == 2


def test_wilcoxon_pairs_by_key() -> None:
    ours = {str(i): 0.8 + 0.01 * i for i in range(8)} | {"only ours": 0.1}
    theirs = {str(i): 0.7 for i in range(8)} | {"only theirs": 1.0}
    p, pairs = paired_wilcoxon(ours, theirs)
    assert pairs == 8
    assert p == pytest.approx(stats.wilcoxon([0.1 + 0.01 * i for i in range(8)]).pvalue)
    assert np.isnan(paired_wilcoxon(ours, ours)[0])
