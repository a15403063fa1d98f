from __future__ import annotations

import pytest
import torch
from test_objectives_regional import episodes, loss, made
from torch import Generator

from fewshotseg_training.objectives.regional import Pixels
from fewshotseg_training.objectives.rpt import dice_loss, ring_loss, self_loss


def test_version_1_goes_over_from_dice_to_boundaries() -> None:
    objective, encoder = made("rpt", version=1)
    given = episodes()
    start = objective.loss(encoder, given, Generator(), step=999)
    later = objective.loss(encoder, given, Generator(), step=25_000)
    assert set(start) == {"query", "boundary", "dice"}
    assert start["boundary"] == 0 and later["boundary"] > 0
    torch.testing.assert_close(later["dice"], 0.75 * start["dice"])


def test_version_2_has_other_terms() -> None:
    objective, encoder = made("rpt", version=2)
    assert set(loss(objective, encoder, episodes())) == {"query", "ring", "alignment", "agreement", "self"}


def test_dice_loss() -> None:
    labels = torch.zeros(1, 4, 4)
    labels[0, :2] = 1
    assert dice_loss(labels, labels) == 0
    assert dice_loss(1 - labels, labels) == pytest.approx(1 - 1 / 17)


def two_sides() -> tuple[torch.Tensor, torch.Tensor]:
    """Features (1 2 8 8) whose left and right half are orthogonal, and the mask (1 64 64) of the left half."""
    features, mask = torch.zeros(1, 2, 8, 8), torch.zeros(1, 64, 64)
    features[:, 0, :, :4] = features[:, 1, :, 4:] = mask[:, :, :32] = 1
    return features, mask


def test_a_query_that_its_own_prototype_explains_costs_little() -> None:
    features, mask = two_sides()
    thresholds = torch.tensor([-10.0])
    right = self_loss(Pixels(), features, mask, thresholds)
    assert right < 0.1 < self_loss(Pixels(), features.flip(3), torch.ones_like(mask), thresholds)


def test_the_ring_of_a_mask_that_cannot_grow_is_expected_nowhere() -> None:
    features, mask = two_sides()
    assert ring_loss(Pixels(), features, torch.ones_like(mask), torch.tensor([-10.0])) == pytest.approx(0, abs=1e-5)
    assert ring_loss(Pixels(), features, mask, torch.tensor([-10.0])) > 0.05
