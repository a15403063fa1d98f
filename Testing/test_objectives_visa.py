from __future__ import annotations

import torch

from fewshotseg_training.objectives.visa import area_change, interslice_loss


def sure(masks: torch.Tensor) -> torch.Tensor:
    """Logits (n 2 H W) that leave no doubt."""
    return torch.stack([-50 * masks, 50 * (masks - 0.5)], 1)


MASKS = torch.zeros(3, 8, 8)
MASKS[0, :2, :4] = MASKS[1, :2, :4] = MASKS[2, :1, :4] = 1


def test_equal_neighbours_cost_nothing() -> None:
    torch.testing.assert_close(interslice_loss(sure(MASKS[:2])), torch.tensor(0.0))


def test_the_loss_is_one_minus_the_mean_dice_of_neighbours() -> None:
    torch.testing.assert_close(interslice_loss(sure(MASKS)), torch.tensor(1 - (1 + 8 / 12) / 2))


def test_area_change_is_in_pixels() -> None:
    torch.testing.assert_close(area_change(sure(MASKS)), torch.tensor(2.0))
