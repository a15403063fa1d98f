from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from FewShotSegLib.flow import FlowNetwork, carry_mask, compose, s2v, superpixel_clean, warp, warp_masks


def waves(height: int = 40, width: int = 52) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.sin(rows / 5) + torch.cos(columns / 7))[None, None]


def constant_flow(rows: float, columns: float, size: tuple[int, int] = (40, 52)) -> Tensor:
    return torch.tensor([float(rows), float(columns)])[None, :, None, None].expand(1, 2, *size)


def smooth_flow(scale: float, size: tuple[int, int] = (40, 52)) -> Tensor:
    field = waves(*size)[0]
    return scale * torch.cat([field, field.flip(2)])[None]


def test_the_network_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in FlowNetwork().parameters()) == 107_442


@pytest.mark.parametrize("size", [(64, 64), (40, 52), (17, 31)])
def test_the_network_gives_a_flow_of_the_images_size(size: tuple[int, int]) -> None:
    assert FlowNetwork()(torch.randn(3, *size), torch.randn(3, *size)).shape == (3, 2, *size)


def test_the_network_can_learn_a_shift() -> None:
    torch.manual_seed(0)
    network = FlowNetwork()
    source = torch.nn.functional.avg_pool2d(torch.randn(1, 1, 22, 22), 7, 1)
    target = warp(source, constant_flow(1.5, -1.0, (16, 16)), padding="border")
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    losses = []
    for _ in range(30):
        moved = warp(source, network(source[:, 0], target[:, 0]), padding="border")
        loss = (moved - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_zero_flow_is_the_identity_but_not_as_published() -> None:
    image = waves()
    torch.testing.assert_close(warp(image, constant_flow(0, 0)), image, atol=1e-5, rtol=0)
    assert (warp(image, constant_flow(0, 0), faithful=True) - image).abs().max() > 0.01


def test_published_sampling_stretches_about_the_centre() -> None:
    ramp = torch.arange(52.0).expand(1, 1, 40, 52)
    expected = torch.arange(52.0) * 52 / 51 - 0.5
    warped = warp(ramp, constant_flow(0, 0), faithful=True)[0, 0, 20]
    torch.testing.assert_close(warped[1:-1], expected[1:-1], atol=1e-4, rtol=0)


def test_a_flow_says_where_to_look() -> None:
    image = waves()
    moved = warp(image, constant_flow(3, -2))
    torch.testing.assert_close(moved[..., :-3, 2:], image[..., 3:, :-2], atol=1e-4, rtol=0)
    assert not moved[..., -3:, :].any()


def test_masks_are_rounded_half_to_even() -> None:
    mask = torch.zeros(1, 8, 8)
    mask[0, :, 4:] = 1
    half = warp_masks(mask, constant_flow(0, 0.5, (8, 8)))
    assert half[0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 0]  # 0.5 -> 0 at column 3 and, against the zeros outside, at column 7


def test_composed_flows_add_up() -> None:
    torch.testing.assert_close(compose(constant_flow(1, 2), constant_flow(-3, 0.5)), constant_flow(-2, 2.5))


def test_one_composed_warp_equals_two_warps() -> None:
    image, first, second = waves(), smooth_flow(1.2), smooth_flow(-0.8).flip(3)
    twice = warp(warp(image, first), second)
    once = warp(image, compose(first, second))
    torch.testing.assert_close(once[..., 4:-4, 4:-4], twice[..., 4:-4, 4:-4], atol=0.03, rtol=0)


@pytest.mark.parametrize("round_each", [False, True])
def test_a_mask_is_carried_through_neighbours(round_each: bool) -> None:
    mask = torch.zeros(40, 52)
    mask[10:20, 12:30] = 1
    flows = [constant_flow(-2, 0)[0], constant_flow(-1, -3)[0], constant_flow(0, 1)[0]]
    expected = torch.roll(mask, (3, 2), (0, 1))
    assert torch.equal(carry_mask(mask, flows, round_each=round_each), expected)


def test_rounding_each_step_loses_half_steps_that_composing_keeps() -> None:
    mask = torch.zeros(40, 52)
    mask[10:20, 12:30] = 1
    halves = [constant_flow(0, -0.4)[0]] * 5
    assert torch.equal(carry_mask(mask, halves), torch.roll(mask, 2, 1))
    assert torch.equal(carry_mask(mask, halves, round_each=True), mask)


def test_no_flow_leaves_the_mask() -> None:
    mask = torch.tensor([[0.0, 1.0], [0.6, 0.4]])
    assert carry_mask(mask, []).tolist() == [[0, 1], [1, 0]]


def square(top: int, left: int, side: int = 8) -> Tensor:
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_s2v_drops_what_looks_like_the_rim() -> None:
    organ, target_mask = square(6, 6), square(8, 8)
    source = organ.float()
    kept = s2v(source, source, organ, target_mask)
    assert torch.equal(kept, target_mask & organ)


def test_s2v_looks_below_and_to_the_right_for_a_window_of_two() -> None:
    organ = square(6, 6)
    source = organ.float()
    source[5, :] = source[:, 5] = 1.0  # bright above and left: not part of the rim
    assert torch.equal(s2v(source, source, organ, organ), organ)
    source[14, :] = source[:, 14] = 1.0  # bright below and right: organ and rim are alike
    assert not s2v(source, source, organ, organ).any()


def test_s2v_of_an_empty_mask_or_without_rim_is_empty() -> None:
    source, nothing, everything = torch.rand(24, 24), square(0, 0, 0), square(0, 0, 24)
    assert not s2v(source, source, nothing, everything).any()
    assert not s2v(source, source, everything, everything).any()


def test_superpixels_only_take_away() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.random((3, 3)), np.ones((20, 20)))
    mask = np.zeros((60, 60), bool)
    mask[:20, :20] = mask[20:24, 20:40] = True  # a whole superpixel, and a fifth of another
    cleaned = superpixel_clean(image, mask, 0.5)
    assert cleaned[:20, :20].all()
    assert cleaned.sum() == 400
    assert np.array_equal(superpixel_clean(image, mask, 0.0), mask)
