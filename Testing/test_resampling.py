"""Resampling within slices."""

from __future__ import annotations

import numpy as np
import pytest

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.resampling import nearest_indices, resample_slices


def test_nothing_is_interpolated_when_the_shape_stays() -> None:
    slices = np.random.default_rng(0).integers(-9, 9, (2, 5, 6)).astype(np.int16)
    nearest, linear = (resample_slices(slices, (5, 6), order=order) for order in (0, 1))
    np.testing.assert_array_equal(nearest, slices)
    np.testing.assert_array_equal(linear, slices)
    assert (nearest.dtype, linear.dtype) == (np.int16, np.float32)


def test_nearest_takes_the_pixel_that_holds_the_centre() -> None:
    assert nearest_indices(6, 3).tolist() == [1, 3, 5]
    assert nearest_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
    assert nearest_indices(5, 3).tolist() == [0, 2, 4]


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_nearest_keeps_type_and_values(dtype: type) -> None:
    slices = np.random.default_rng(0).integers(0, 2, (3, 7, 9)).astype(dtype)
    result = resample_slices(slices, (10, 5), order=0)
    assert (result.shape, result.dtype) == ((3, 10, 5), dtype)
    np.testing.assert_array_equal(result, slices[:, nearest_indices(7, 10)][:, :, nearest_indices(9, 5)])


@pytest.mark.parametrize("shape", [(64, 64), (20, 20), (31, 50), (11, 80)])
def test_linear_aligns_the_edges_of_the_field_of_view(shape: tuple[int, int]) -> None:
    """A ramp over the field of view stays the same ramp, away from the border that linear resampling repeats."""
    rows = (np.arange(40) + 0.5) / 40
    slices = np.broadcast_to(rows[:, None], (1, 40, 40))
    result = resample_slices(slices, shape, order=1)[0, :, shape[1] // 2]
    centres = (np.arange(shape[0]) + 0.5) / shape[0]
    inside = slice(shape[0] // 8 + 1, -(shape[0] // 8) - 1)
    tenth_of_a_pixel = 0.1 / 40
    np.testing.assert_allclose(result[inside], centres[inside], atol=tenth_of_a_pixel)


def test_shrinking_smooths_instead_of_skipping_pixels() -> None:
    """Stripes of period 4, seen through pixels 4 wide, are grey; without smoothing they would depend on where they are hit."""
    stripes = np.tile(np.array([1.0, 0, 0, 0]), 16)[None, None].repeat(64, axis=1)
    result = resample_slices(stripes, (16, 16), order=1)
    np.testing.assert_allclose(result[0, :, 2:-2], 0.25, atol=0.05)


def test_a_little_shrinking_is_not_smoothed() -> None:
    spike = np.zeros((1, 23, 23))
    spike[0, 11, 11] = 1
    assert resample_slices(spike, (21, 21), order=1).max() == pytest.approx(1, abs=0.01)


def test_read_only_and_flipped_input_is_fine() -> None:
    slices = np.arange(48, dtype=np.float32).reshape(1, 6, 8)
    slices.flags.writeable = False
    flipped = resample_slices(slices[:, ::-1], (3, 4), order=1)
    np.testing.assert_allclose(flipped[:, ::-1], resample_slices(slices, (3, 4), order=1), atol=1e-5)


def test_other_orders_are_refused() -> None:
    with pytest.raises(ConfigError, match="order 3"):
        resample_slices(np.zeros((1, 2, 2)), (4, 4), order=3)
