"""The published augmentation: golden vectors, ranges, and images and masks that stay together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.transforms import (  # noqa: E402
    PaperAugment,
    affine_matrix,
    apply_gamma,
    bend,
    bend_field,
    draw_changes,
    move,
    warp_affine,
)

NOTHING = PaperAugment(degrees=0, shift=0, shear=0, zoom=(1, 1), elastic=0, gamma=(1, 1))


def channels(array: np.ndarray) -> torch.Tensor:
    """(H, W, k) -> (1 k H W)."""
    return torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1)[None]


def rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, i)) for i in range(count)]


@pytest.mark.parity
def test_golden_alpnet(golden_dir: Path) -> None:
    with np.load(golden_dir / "alpnet_visa" / "h_augment.npz") as golden:
        picture = channels(golden["comp"])
        matrices = affine_matrix(torch.from_numpy(golden["affine_params"]), (72, 72))
        np.testing.assert_allclose(matrices.numpy(), golden["affine_M"], atol=1e-5, rtol=1e-6)
        found = warp_affine(picture.repeat(4, 1, 1, 1), matrices).permute(0, 2, 3, 1).numpy()
        assert np.abs(found - golden["affine_out"]).max() < 0.06  # OpenCV rounds positions to 1/32 pixel
        assert np.abs(found - golden["affine_out"]).mean() < 2e-3
        noise = torch.from_numpy(2 * golden["elastic_noise"] - 1)[None]
        field = bend_field(noise, 10.0, 5.0)
        np.testing.assert_allclose(field[0].numpy(), golden["elastic_dxdy"], atol=1e-6)
        bent = bend(picture, field.float())[0].permute(1, 2, 0)
        np.testing.assert_allclose(bent.numpy(), golden["elastic_out"], atol=1e-4)
        gamma = torch.from_numpy(golden["gamma"])
        changed = apply_gamma(picture[:, 0].repeat(len(gamma), 1, 1), gamma)
        np.testing.assert_allclose(changed.numpy(), golden["gamma_out"], atol=1e-4)


@pytest.mark.parity
def test_golden_adnet(golden_dir: Path) -> None:
    with np.load(golden_dir / "adnet_family" / "transforms.npz") as golden:
        for i in range(3):
            stack = torch.from_numpy(golden[f"gamma{i}/in"])[None]
            changed = apply_gamma(stack, torch.tensor([float(golden[f"gamma{i}/gamma"])], dtype=torch.float64))
            np.testing.assert_allclose(changed[0].numpy(), golden[f"gamma{i}/out"], atol=1e-6)
        picture = channels(golden["affine_in"])
        for i in range(4):
            matrix = affine_matrix(torch.from_numpy(golden[f"affine{i}/rot_tx_ty_shear_zoom"])[None], (64, 64))
            np.testing.assert_allclose(matrix[0].numpy(), golden[f"affine{i}/M"], atol=1e-5, rtol=1e-6)
            apart = np.abs(warp_affine(picture, matrix)[0].permute(1, 2, 0).numpy() - golden[f"affine{i}/out"])
            assert apart.max() < 0.06 and apart.mean() < 2e-3
        noise = torch.from_numpy(2 * np.stack([golden["elastic/rand_dx"], golden["elastic/rand_dy"]]) - 1)[None]
        field = bend_field(noise, 10.0, 5.0)
        np.testing.assert_allclose(
            field[0].numpy(), np.stack([golden["elastic/disp_col"], golden["elastic/disp_row"]]), atol=1e-6
        )
        bent = bend(picture, field.float())[0].permute(1, 2, 0)
        np.testing.assert_allclose(bent.numpy(), golden["elastic/out"], atol=1e-4)


def test_without_any_range_nothing_changes() -> None:
    images = torch.randn(2, 2, 32, 40)
    masks = (images > 0).float()
    moved, moved_masks = move(images, masks, draw_changes(NOTHING, (32, 40), rngs(2)), NOTHING)
    torch.testing.assert_close(moved, images, atol=1e-4, rtol=0)
    assert torch.equal(moved_masks, masks)


def test_masks_move_with_their_images_and_stay_masks() -> None:
    images = torch.zeros(4, 1, 64, 64)
    images[:, :, 20:40, 24:50] = 1
    moved, masks = move(images, images, draw_changes(PaperAugment(), (64, 64), rngs(4)), PaperAugment())
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masks, (moved > 0.5).float())
    assert len({float(m.sum()) for m in masks}) == 4  # each its own way


def test_a_sample_is_changed_alike_whatever_else_is_in_the_batch() -> None:
    images = torch.randn(3, 1, 32, 32)
    config = PaperAugment()
    whole, _ = move(images, images, draw_changes(config, (32, 32), rngs(3)), config)
    one, _ = move(images[1:2], images[1:2], draw_changes(config, (32, 32), rngs(3)[1:2]), config)
    torch.testing.assert_close(one, whole[1:2])


def test_draws_stay_in_their_ranges() -> None:
    change = draw_changes(PaperAugment(), (8, 8), rngs(200))
    low, high = change.affine.amin(0), change.affine.amax(0)
    assert (low >= torch.tensor([-5, -5, -5, -5, 0.9])).all() and (high <= torch.tensor([5, 5, 5, 5, 1.2])).all()
    assert (high - low > 0.9 * torch.tensor([10, 10, 10, 10, 0.3])).all()
    assert 0.5 <= change.gamma.min() < 0.55 and 1.45 < change.gamma.max() <= 1.5
    assert change.noise.abs().max() <= 1 and change.noise.abs().mean() > 0.4
