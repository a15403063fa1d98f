from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.augment import AugmentConfig, augment, change_intensity, random_curves, recolour, sampling_grid  # noqa: E402

NOTHING = AugmentConfig(degrees=0, zoom=(1, 1), shift=0, bend=0, gamma=(1, 1), bias=0, noise=0)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def blocks(batch: int = 3, size: int = 64) -> Tensor:
    """Region ids: outside 0, four blocks."""
    ids = torch.zeros(batch, size, size, dtype=torch.long)
    ids[:, 8:32, 8:32], ids[:, 8:32, 32:56], ids[:, 32:56, 8:32], ids[:, 32:56, 32:56] = 7, 300, 40000, 12
    return ids


def test_equal_seeds_give_equal_changes() -> None:
    ids = blocks()
    first, again, other = (augment(ids / 1e3, ids, AugmentConfig(), seeded(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])


def test_without_any_range_nothing_changes() -> None:
    ids, image = blocks(), torch.randn(3, 64, 64, generator=seeded())
    changed, moved = augment(image, ids, NOTHING, seeded())
    torch.testing.assert_close(changed, image, rtol=0, atol=1e-3)
    assert torch.equal(moved, ids)


def test_images_and_regions_move_together() -> None:
    ids = blocks()
    order = torch.tensor([0, 7, 12, 300, 40000])
    image = torch.searchsorted(order, ids).float()
    config = AugmentConfig(gamma=(1, 1), bias=0, noise=0)
    changed, moved = augment(image, ids, config, seeded())
    expected = torch.searchsorted(order, moved).float()
    apart = (changed - expected).abs() > 0.5
    assert apart.float().mean() < 0.05  # only where two blocks meet
    assert not torch.equal(moved, ids)


def test_only_known_regions_come_out() -> None:
    _, moved = augment(torch.zeros(3, 64, 64), blocks(), AugmentConfig(), seeded())
    assert set(moved.unique().tolist()) == {0, 7, 12, 300, 40000}


def test_what_comes_from_outside_the_image_is_no_region() -> None:
    ids = torch.full((1, 32, 32), 5)
    _, moved = augment(torch.ones(1, 32, 32), ids, AugmentConfig(zoom=(0.5, 0.5), shift=0, degrees=0, bend=0), seeded())
    assert (moved[0, 12:20, 12:20] == 5).all() and (moved[0, 0] == 0).all()


# ---------------------------------------------------------------------------------------------- geometry
def linear_part(config: AugmentConfig, seed: int) -> tuple[Tensor, Tensor]:
    """Affine map (2 x 2) and shift of the sampling grid, in units of half the image."""
    grid = sampling_grid(1, (16, 16), config, seeded(seed))[0]
    across, down = (grid[8, 15] - grid[8, 0]) / (15 / 8), (grid[15, 8] - grid[0, 8]) / (15 / 8)
    return torch.stack([across, down], 1), grid.mean((0, 1))


@pytest.mark.parametrize("seed", range(5))
def test_rotation_zoom_and_shift_stay_in_their_ranges(seed: int) -> None:
    config = AugmentConfig(bend=0)
    matrix, shift = linear_part(config, seed)
    zoom = 1 / matrix.det().sqrt()
    angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
    assert config.zoom[0] - 1e-3 <= zoom <= config.zoom[1] + 1e-3
    assert abs(angle) <= config.degrees + 1e-3 and angle != 0
    assert shift.abs().max() <= config.shift + 1e-3


def test_a_zoom_above_one_enlarges() -> None:
    image = torch.zeros(1, 32, 32)
    image[0, 12:20, 12:20] = 1
    grid = sampling_grid(1, (32, 32), AugmentConfig(degrees=0, zoom=(2, 2), shift=0, bend=0), seeded())
    assert F.grid_sample(image[:, None], grid, align_corners=False).sum() > 3 * image.sum()


def test_the_bend_is_smooth_and_bounded() -> None:
    straight, bent = (
        sampling_grid(2, (64, 64), AugmentConfig(degrees=0, zoom=(1, 1), shift=0, bend=b), seeded()) for b in (0, 0.1)
    )
    off = bent - straight
    assert 0.02 < off.abs().max() < 0.2
    assert max(off.diff(dim=d).abs().max() for d in (1, 2)) < 0.05


def test_every_image_of_a_batch_is_changed_its_own_way() -> None:
    grid = sampling_grid(3, (16, 16), AugmentConfig(), seeded())
    assert not torch.allclose(grid[0], grid[1], atol=1e-2) and not torch.allclose(grid[1], grid[2], atol=1e-2)


# ---------------------------------------------------------------------------------------------- intensity
RAMP = torch.linspace(-2, 3, 64).expand(2, 64, 64).contiguous()


def test_gamma_keeps_order_and_range() -> None:
    config = AugmentConfig(gamma=(0.5, 1.5), bias=0, noise=0)
    changed = change_intensity(RAMP, config, seeded())
    assert (changed.diff(dim=2) > 0).all()
    torch.testing.assert_close(changed[:, :, [0, -1]], RAMP[:, :, [0, -1]], rtol=0, atol=0.02)
    assert not torch.allclose(changed, RAMP, atol=0.05)


def test_the_bias_field_is_smooth_and_leaves_the_darkest_alone() -> None:
    config = AugmentConfig(gamma=(1, 1), bias=0.4, noise=0)
    changed = change_intensity(RAMP, config, seeded())
    factor = ((changed + 2) / (RAMP + 2))[:, :, 8:]
    assert factor.min() > 0.3 and factor.max() < 1.7 and factor.std() > 0.03
    assert factor.diff(dim=1).abs().max() < 0.1
    torch.testing.assert_close(changed[:, :, 0], RAMP[:, :, 0], rtol=0, atol=1e-3)


def test_noise_has_at_most_the_wanted_strength() -> None:
    config = AugmentConfig(gamma=(1, 1), bias=0, noise=0.5)
    flat = torch.zeros(8, 64, 64)
    flat[:, 0, 0] = 1
    strength = (change_intensity(flat, config, seeded()) - flat)[:, 1:].flatten(1).std(1)
    assert strength.max() < 0.55 and strength.min() < 0.5 * strength.max()


def test_a_flat_image_stays_finite() -> None:
    assert torch.isfinite(change_intensity(torch.full((1, 16, 16), 3.0), AugmentConfig(), seeded())).all()


def test_random_curves_change_their_part_of_the_images_and_keep_air_mean_and_spread():
    image = torch.rand((40, 32, 32), generator=torch.Generator().manual_seed(1)) * 3 - 1
    image[:, :4] = image.amin((1, 2))[:, None, None]
    curved = random_curves(image, 0.5, torch.Generator().manual_seed(2))
    changed = (curved - image).abs().amax((1, 2)) > 1e-3
    assert 10 <= changed.sum() <= 30
    assert torch.allclose(curved.mean((1, 2)), image.mean((1, 2)), atol=1e-3)
    assert torch.allclose(curved.std((1, 2)), image.std((1, 2)), atol=1e-3)
    order = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(image, curved, strict=True)]
    assert min(order) < 0.5 < 0.99 < max(order)  # some images look like another modality, some are as they were


def test_recoloured_regions_get_levels_of_their_own_and_keep_only_their_borders() -> None:
    ids = blocks(40)
    image = torch.rand((40, 64, 64), generator=seeded(1)) * 0.05 + torch.where(ids == 0, -1.0, 1.0)  # four blocks of one grey
    found = recolour(image, ids, 0.5, seeded(2))
    assert torch.equal(found, recolour(image, ids, 0.5, seeded(2)))
    changed = (found - image).abs().amax((1, 2)) > 1e-3
    assert 10 <= changed.sum() <= 30
    assert torch.allclose(found.mean((1, 2)), image.mean((1, 2)), atol=1e-3)
    assert torch.allclose(found.std((1, 2)), image.std((1, 2)), atol=1e-3)
    for one, own in zip(found[changed], ids[changed], strict=True):
        levels = torch.stack([one[own == i].mean() for i in (7, 300, 40000, 12)])
        assert levels.max() - levels.min() > 0.2 and len(levels.unique()) == 4, "what had one grey level has four"
        assert one[own == 0].mean() < levels.min(), "outside stays darkest"
        assert all(one[own == i].std() < 0.2 for i in (7, 300, 40000, 12)), "within a region only its texture is left"


def test_a_slice_with_hardly_any_region_is_not_recoloured() -> None:
    ids, image = torch.zeros(2, 16, 16, dtype=torch.long), torch.randn(2, 16, 16, generator=seeded())
    assert torch.equal(recolour(image, ids, 2.0, seeded()), image)


def test_recolouring_is_part_of_the_augmentation_only_when_asked_for() -> None:
    ids, image = blocks(), torch.randn(3, 64, 64, generator=seeded())
    changed, moved = augment(image, ids, replace(NOTHING, recolour=2.0), seeded())
    assert torch.equal(moved, ids) and ((changed - image).abs().amax((1, 2)) > 0.1).all()
