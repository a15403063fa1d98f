"""Encoders of whole volumes, and their tiles."""

from __future__ import annotations

import resource
import time

import pytest
import torch
from torch import Tensor

from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.encoders import create_encoder
from FewShotSegLib.resnext3d import tiled


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return create_encoder("resnext3d26", channels=16).eval()


def parameters(name: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_encoder(name).parameters())


def test_the_published_network_has_its_size() -> None:
    assert parameters("resnext3d101") == pytest.approx(48.0e6, rel=2e-3)


def test_the_light_network_fits_into_a_checkpoint_of_20_megabytes() -> None:
    assert 2 * parameters("resnext3d26") < 20e6


@torch.no_grad()
def test_the_depth_stays_and_the_plane_becomes_an_eighth(encoder: torch.nn.Module) -> None:
    assert encoder(torch.randn(5, 40, 48)).shape == (5, 16, 5, 6)


@torch.no_grad()
def test_slices_see_their_neighbours(encoder: torch.nn.Module) -> None:
    volume = torch.randn(6, 32, 32)
    changed = volume.clone()
    changed[5] = 0
    assert not torch.allclose(encoder(volume)[3], encoder(changed)[3])


# ---------------------------------------------------------------------------------------------- tiles
def places(slices: Tensor) -> Tensor:
    return slices * 2.0


@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 30])
def test_tiles_give_every_slice_once_and_in_order(count: int) -> None:
    slices = torch.arange(count, dtype=torch.float32)[:, None]
    seen: list[int] = []

    def encode(tile: Tensor) -> Tensor:
        seen.append(len(tile))
        return places(tile)

    torch.testing.assert_close(torch.cat(list(tiled(encode, slices, 8, 2))), places(slices))
    assert max(seen) <= 8 and (len(seen) == 1) == (count <= 8)


def test_overlapping_tiles_are_blended_from_the_one_to_the_other() -> None:
    numbers = iter((0.0, 1.0))
    blended = torch.cat(list(tiled(lambda tile: torch.full_like(tile, next(numbers)), torch.zeros(12, 1), 8, 4)))[:, 0]
    torch.testing.assert_close(blended, torch.tensor([0, 0, 0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1]))


def test_the_runner_encodes_a_volume_in_tiles_that_nearly_agree_with_the_whole(encoder: torch.nn.Module) -> None:
    volume = torch.nn.functional.avg_pool3d(torch.randn(1, 1, 24, 36, 36), 5, 1)[0, 0]
    runner = FeatureRunner(encoder, torch.device("cpu"))
    runner._bf16 = False
    whole = torch.cat(list(runner(volume)))
    runner.batch = 12
    batches = list(runner(volume))
    tiles = torch.cat(batches)
    assert len(batches) > 1 and tiles.shape == whole.shape == (20, 16, 4, 4)
    torch.testing.assert_close(tiles.norm(dim=1), torch.ones(20, 4, 4))
    assert (tiles * whole).sum(1).mean() > 0.98


def test_when_the_memory_runs_out_the_tiles_become_smaller(encoder: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = FeatureRunner(encoder, torch.device("cpu"))
    sizes: list[int] = []

    def encode(tile: Tensor) -> Tensor:
        sizes.append(len(tile))
        if len(tile) > 8:
            raise RuntimeError("out of memory")
        return torch.ones(len(tile), 4, 1, 1)

    monkeypatch.setattr(runner, "_encode", encode)
    assert len(torch.cat(list(runner(torch.zeros(20, 8, 8))))) == 20
    assert sizes[:3] == [20, 16, 8] and runner.notes


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_volume_of_64_slices_of_256_pixels_fits_into_8_gigabytes() -> None:
    runner = FeatureRunner(create_encoder("resnext3d101"), torch.device("cpu"))
    runner._bf16 = False
    started = time.monotonic()
    features = torch.cat(list(runner(torch.randn(64, 256, 256))))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{peak:.2f} GiB, {time.monotonic() - started:.0f} s")
    assert features.shape == (64, 256, 32, 32) and peak < 8
