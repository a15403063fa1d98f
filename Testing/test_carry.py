"""The carry objective against its formula, cell by cell, and what it must reward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.carry import BACKGROUND_WEIGHT, carry_loss, carry_regions, region_fractions  # noqa: E402

TEMPERATURE = torch.tensor(40.0)


def regions(shift: int = 0) -> Tensor:
    """Ids (64, 64): outside 0, and regions 3, 4 and 9."""
    ids = torch.zeros(64, 64, dtype=torch.long)
    ids[8:56, 8 + shift : 24 + shift] = 3
    ids[8:32, 24 + shift : 48 + shift] = 4
    ids[32:56, 24 + shift : 48 + shift] = 9
    return ids


def features_of(ids: Tensor) -> Tensor:
    """A direction of its own for every region, mixed by area in the cells: unit (c, h, w)."""
    return F.normalize(region_fractions(ids, 10, 8) + 1e-3, dim=0)


def random_features(seed: int) -> Tensor:
    return F.normalize(torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(seed)), dim=0)


def loss(source: Tensor, source_ids: Tensor, target: Tensor, target_ids: Tensor) -> float:
    return float(carry_loss(source, source_ids, target, target_ids, TEMPERATURE))


def test_fractions_of_regions_in_cells() -> None:
    ids = torch.zeros(16, 16, dtype=torch.long)
    ids[:8, :4], ids[8:, 8:] = 1, -1
    fractions = region_fractions(ids, 2, 8)
    torch.testing.assert_close(fractions[1], torch.tensor([[0.5, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(fractions.sum(0), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert region_fractions(ids, 2, 4).shape == (2, 4, 4)


def test_a_perfect_correspondence_costs_little_and_a_wrong_one_much() -> None:
    source, target = regions(), regions(8)
    right = loss(features_of(source), source, features_of(target), target)
    swapped = target.clone()
    swapped[target == 4], swapped[target == 9] = 9, 4
    wrong = loss(features_of(source), source, features_of(swapped), target)
    guess = loss(random_features(0), source, random_features(1), target)
    assert right < 0.3 < guess < wrong


def test_regions_are_carried_to_where_they_moved() -> None:
    here, there = regions(), regions(8)
    found = carry_regions(features_of(here), here, features_of(there), TEMPERATURE)
    assert found.shape == there.shape and set(found.unique().tolist()) == {0, 3, 4, 9}
    assert float((found == there).float().mean()) > 0.95


def test_the_numbers_of_the_regions_do_not_matter() -> None:
    source, target = regions(), regions(8)
    f, g = random_features(0), random_features(1)
    renumbered = torch.tensor([0, 1, 2, 5000, 17, 5, 6, 7, 8, 30])
    assert loss(f, source, g, target) == pytest.approx(loss(f, renumbered[source], g, renumbered[target]), rel=1e-5)


def test_the_loss_is_the_formula() -> None:
    source_ids, target_ids = regions(), regions(4)
    source, target = random_features(0), random_features(1)
    ids = [0, 3, 4, 9]
    weights = torch.stack([torch.stack([(target[:, i, j] * source[:, k, m]).sum() for k in range(8) for m in range(8)])
                           for i in range(8) for j in range(8)])  # fmt: skip
    attention = (weights * TEMPERATURE).softmax(1)
    held = torch.stack([F.avg_pool2d((source_ids == r).float()[None], 8)[0].flatten() for r in ids], 1)
    carried = F.interpolate((attention @ held).T.reshape(1, 4, 8, 8), (16, 16), mode="bilinear")[0]
    wanted = torch.stack([F.avg_pool2d((target_ids == r).float()[None], 4)[0] for r in ids])
    weight = wanted.sum((1, 2)).clamp(min=8) ** -0.5 * torch.tensor([BACKGROUND_WEIGHT, 1, 1, 1])
    total = (weight[:, None, None] * wanted).sum()
    expected = -(weight[:, None, None] * wanted * (carried + 1e-4).log()).sum() / total
    assert loss(source, source_ids, target, target_ids) == pytest.approx(float(expected), rel=1e-4)


def test_regions_that_the_source_does_not_show_are_ignored() -> None:
    source, target = regions(), regions()
    target[8:56, 8:32] = 77  # a new region in the place of old ones
    g = random_features(1).requires_grad_()
    carry_loss(random_features(0), source, g, target, TEMPERATURE).backward()
    assert g.grad is not None
    strength = g.grad.abs().sum(0)
    assert (strength[2:6, 2] == 0).all()  # cells all of whose neighbours are new
    assert (strength[2:6, 5] > 0).all()


def test_a_target_without_any_known_region_costs_nothing() -> None:
    source, target = regions(), torch.full((64, 64), 77)
    assert loss(random_features(0), source, random_features(1), target) == 0


def test_background_counts_half() -> None:
    """With id 0 renamed, the region outside the body weighs twice as much."""
    ids = torch.zeros(64, 64, dtype=torch.long)
    ids[:, 32:] = 1
    f, g = random_features(0), random_features(1)
    only = [loss(f, ids, g, torch.where(ids == r, r, 50)) for r in (0, 1)]
    expected = (BACKGROUND_WEIGHT * only[0] + only[1]) / (BACKGROUND_WEIGHT + 1)
    assert loss(f, ids, g, ids) == pytest.approx(expected, rel=1e-4)
    assert loss(f, ids + 1, g, ids + 1) == pytest.approx(sum(only) / 2, rel=1e-4)


def test_descent_finds_features_that_carry() -> None:
    source_ids, target_ids = regions(), regions(8)
    raw = torch.stack([random_features(0), random_features(1)]).requires_grad_()
    log_temperature = torch.tensor(3.0, requires_grad=True)
    optimiser = torch.optim.SGD([raw, log_temperature], lr=0.5, momentum=0.9)
    losses = []
    for _ in range(60):
        f, g = F.normalize(raw, dim=1)
        found = carry_loss(f, source_ids, g, target_ids, log_temperature.exp())
        found = found + carry_loss(g, target_ids, f, source_ids, log_temperature.exp())
        optimiser.zero_grad()
        found.backward()
        optimiser.step()
        losses.append(found.item())
    assert losses[-1] < 0.5 * losses[0]
