"""Batches of episodes: the right pixels, sides changed as the papers do, regions carried by a flow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.episode_source import EpisodeSource, carry_region, changed, gather  # noqa: E402
from fewshotseg_training.episodes import Episodes  # noqa: E402
from fewshotseg_training.objectives.base import Recipe  # noqa: E402
from fewshotseg_training.sampling import Draw, Sampler  # noqa: E402
from fewshotseg_training.scans import TrainingScan  # noqa: E402
from fewshotseg_training.transforms import PaperAugment  # noqa: E402
from FewShotSegLib.flow import FlowNetwork  # noqa: E402

CPU = torch.device("cpu")


class Shift(FlowNetwork):
    """A flow of one pixel down for each slice up."""

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        up = torch.sign(target.mean((1, 2)) - source.mean((1, 2)))
        return torch.stack([-up[:, None, None].expand_as(source), torch.zeros_like(source)], 1)


def scan() -> TrainingScan:
    """Slice z has the grey value z, and a square that moves down one row a slice, region 3 of 5."""
    image = np.arange(9, dtype=np.float16)[:, None, None] + np.zeros((9, 32, 32), np.float16)
    regions = np.full((9, 32, 32), 5, np.uint16)
    for z in range(9):
        regions[z, 8 + z : 16 + z, 10:20] = 3
    return TrainingScan("a", image, regions, 5.0, superpixels=regions)


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, i)) for i in range(count)]


def test_pixels_and_masks_are_those_of_the_draw() -> None:
    found = gather([Draw(scan(), "regions", 3, (4,), (5, 6)), Draw(scan(), "superpixels", 5, (1,), (2, 0), True)])
    assert found.support.shape == (2, 1, 32, 32) and found.query.shape == found.query_masks.shape == (2, 2, 32, 32)
    assert found.query[:, :, 0, 0].tolist() == [[5, 6], [2, 0]] and found.realistic.tolist() == [False, True]
    assert np.array_equal(found.query_masks[0, 1] > 0, scan().regions[6] == 3)
    assert np.array_equal(found.support_masks[1, 0] > 0, scan().regions[1] == 5)


def test_a_region_is_carried_from_slice_to_slice() -> None:
    draw = Draw(scan(), "superpixels", 3, (4,), (2, 3, 5, 6), True)
    found = carry_region(Shift(), draw, torch.from_numpy(scan().regions[4] == 3).float())
    assert np.array_equal(found > 0, scan().regions[[2, 3, 5, 6]] == 3)


def episodes(realistic: bool = False) -> Episodes:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 2, 1, 32, 32, generator=generator)
    masks = (torch.nn.functional.avg_pool2d(images[:, :, 0], 5, 1, 2) > 0.1).float()[:, :, None]
    return Episodes(images[:, 0], masks[:, 0], images[:, 1], masks[:, 1], torch.full((6,), realistic))


def same(a: torch.Tensor, b: torch.Tensor) -> list[bool]:
    return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]


def test_alpnet_changes_both_sides() -> None:
    old = episodes()
    new = changed(old, Recipe(transformed="both"), PaperAugment(), rngs(6))
    assert not any(same(old.support, new.support)) and not any(same(old.query, new.query))
    assert not any(same(old.support_masks, new.support_masks)) and set(new.query_masks.unique().tolist()) == {0.0, 1.0}


def test_adnet_moves_one_side_and_changes_the_grey_values_of_one() -> None:
    old = episodes()
    moved, brightened = [], []
    for seed in range(4):
        new = changed(old, Recipe(transformed="one"), replace(PaperAugment(), gamma=(0.5, 0.6)), rngs(6, seed))
        support, query = same(old.support_masks, new.support_masks), same(old.query_masks, new.query_masks)
        assert [a != b for a, b in zip(support, query, strict=True)] == [True] * 6
        still = [torch.equal(a, b) for a, b in zip(old.support, new.support, strict=True)]
        brightened += [s and not t for s, t in zip(support, still, strict=True)]  # mask at rest, values not
        moved += support
    assert 0 < sum(moved) < 24 and any(brightened)


def test_realistic_episodes_stay_as_they_are() -> None:
    old = episodes(realistic=True)
    assert changed(old, Recipe(), PaperAugment(), rngs(6)) is old
    half = Episodes(old.support, old.support_masks, old.query, old.query_masks, torch.arange(6) < 3)
    new = changed(half, Recipe(), PaperAugment(), rngs(6))
    assert same(old.support, new.support) == same(old.query, new.query) == [True] * 3 + [False] * 3


def test_a_batch_is_its_episodes_one_by_one() -> None:
    source = EpisodeSource(Sampler([[scan()]], Recipe()), PaperAugment(), CPU)
    whole = source.batch(rngs(4))
    for i in range(4):
        one = source.batch(rngs(4)[i : i + 1])
        torch.testing.assert_close(one.query[0], whole.query[i])
        assert torch.equal(one.support_masks[0], whole.support_masks[i])


def test_realistic_batches_use_the_flow() -> None:
    recipe = Recipe(source="flow", query=4, transformed="none")
    found = EpisodeSource(Sampler([[scan()]], recipe), PaperAugment(), CPU, Shift()).batch(rngs(5))
    assert found.query.shape == (5, 4, 32, 32) and found.realistic.all()
    for i in range(5):
        wanted = [3, 5][int(found.support_masks[i, 0, 0, 0])]
        expected = scan().regions[found.query[i, :, 0, 0].int().tolist()] == wanted
        assert np.abs((found.query_masks[i].numpy() > 0) ^ expected)[:, 2:-2].sum() == 0
