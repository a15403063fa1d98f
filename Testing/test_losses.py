"""Losses that several trainings share."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.objectives.losses import boundary_loss, likelihood_loss  # noqa: E402


def two_classes(organ: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - organ, organ], 1)


def square(left: int) -> torch.Tensor:
    mask = torch.zeros(1, 32, 32)
    mask[:, 8:24, left : left + 16] = 1
    return mask


def test_the_likelihood_weighs_the_background_a_tenth() -> None:
    organ = torch.tensor([[[0.5, 0.25]]])
    expected = (0.1 * -torch.tensor(0.5).log() + -torch.tensor(0.25).log()) / 1.1
    torch.testing.assert_close(likelihood_loss(two_classes(organ), torch.tensor([[[0, 1]]])), expected)


def test_ignored_pixels_do_not_count_and_nothing_but_them_is_zero() -> None:
    organ = torch.tensor([[[0.5, 0.9]]], requires_grad=True)
    half = likelihood_loss(two_classes(organ), torch.tensor([[[1, 255]]]))
    torch.testing.assert_close(half, -torch.tensor(0.5).log())
    nothing = likelihood_loss(two_classes(organ), torch.full((1, 1, 2), 255))
    nothing.backward()
    assert nothing == 0 and torch.equal(organ.grad, torch.zeros(1, 1, 2))


def test_certainty_of_the_wrong_is_finite() -> None:
    assert likelihood_loss(two_classes(square(0)), 1 - square(0)).isfinite()


def test_equal_boundaries_cost_nothing_near_ones_little_and_far_ones_all() -> None:
    truth = square(4)
    same, near, far = (float(boundary_loss(two_classes(square(left)), truth)) for left in (4, 8, 15))
    assert same == pytest.approx(0, abs=1e-5) and same < near < far
    assert float(boundary_loss(two_classes(truth * 0), truth)) == pytest.approx(1, abs=1e-5)
