from __future__ import annotations

import pytest
import torch

from FewShotSegLib.smoothing import weighted_smooth

SIGMA = (1.0, 2.0, 2.0)


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_a_constant_field_stays_whatever_the_weights() -> None:
    field = torch.full((3, 4, 10, 12), 2.5)
    weight = 0.2 + random(4, 10, 12)
    torch.testing.assert_close(weighted_smooth(field, weight, SIGMA), field, rtol=1e-2, atol=0)


def test_cells_without_weight_do_not_count() -> None:
    field, weight = torch.ones(1, 3, 9, 9), torch.ones(3, 9, 9)
    weight[:, :, 5:] = 0
    wild = field.clone()
    wild[..., 5:] = 1e3
    torch.testing.assert_close(weighted_smooth(wild, weight, SIGMA), weighted_smooth(field, weight, SIGMA))


def test_far_from_every_trusted_cell_the_result_goes_to_zero() -> None:
    field, weight = torch.ones(1, 1, 1, 60), torch.zeros(1, 1, 60)
    weight[..., 0] = 1
    smooth = weighted_smooth(field, weight, (0.0, 0.0, 2.0))[0, 0, 0]
    assert smooth[0] > 0.99 and smooth[30] == 0
    assert (smooth.diff() <= 1e-6).all()
    assert weighted_smooth(field, weight, (0.0, 0.0, 2.0), floor=1e-1)[0, 0, 0, 4] < smooth[4]


def test_of_two_cells_the_heavier_has_the_say() -> None:
    field = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    weight = torch.tensor([1.0, 3.0]).reshape(1, 1, 2)
    smooth = weighted_smooth(field, weight, (0.0, 0.0, 50.0), floor=0.0)
    torch.testing.assert_close(smooth, torch.full_like(field, 0.75), rtol=0, atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_axis_has_its_own_width(axis: int) -> None:
    field = torch.zeros(1, 5, 5, 5)
    field[0, 2, 2, 2] = 1
    sigma = [0.0, 0.0, 0.0]
    sigma[axis] = 1.0
    smooth = weighted_smooth(field, torch.ones(5, 5, 5), (sigma[0], sigma[1], sigma[2]))[0]
    others = tuple(a for a in range(3) if a != axis)
    assert (smooth.sum(others) > 0.01).all()
    assert all((smooth.sum(tuple(b for b in range(3) if b != a)) > 1e-6).sum() == 1 for a in others)


def test_no_sigma_gives_the_field_back() -> None:
    field = random(2, 3, 4, 5)
    torch.testing.assert_close(weighted_smooth(field, torch.ones(3, 4, 5), (0.0, 0.0, 0.0), floor=0.0), field)


def test_the_type_is_kept_and_nothing_is_changed() -> None:
    field, weight = random(1, 2, 4, 4).double(), random(2, 4, 4)
    before = field.clone()
    assert weighted_smooth(field, weight, SIGMA).dtype == torch.float64
    assert torch.equal(field, before)
