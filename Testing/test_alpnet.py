from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.methods.alpnet import Alpnet, AlpnetConfig
from FewShotSegLib.methods.base import upsample


def disc(centre: tuple[float, float], radius: float, size: int = 128) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2).float()


def features_of(masks: Tensor, channels: int = 16, noise: float = 0.3, seed: int = 0) -> Tensor:
    """Feature maps (s c h w) at stride 8 in which the organ points elsewhere than the background, with noise."""
    generator = torch.Generator().manual_seed(seed)
    organ = F.avg_pool2d(masks[:, None], 8)
    directions = torch.randn(2, channels, generator=torch.Generator().manual_seed(99))
    clean = organ * directions[1][:, None, None] + (1 - organ) * directions[0][:, None, None]
    return clean + noise * torch.randn(clean.shape, generator=generator)


def dice(a: Tensor, b: Tensor) -> float:
    return float(2 * (a * b).sum() / (a.sum() + b.sum()))


SUPPORT = torch.stack([disc((50, 60), 28), disc((70, 64), 33)])
QUERY = torch.stack([disc((64, 70), 25), disc((44, 40), 30), disc((90, 80), 26)])


def test_it_finds_the_organ_in_new_slices() -> None:
    method = Alpnet()
    memory = method.remember(features_of(SUPPORT), SUPPORT)
    logits = method.score(features_of(QUERY, seed=1), memory)
    assert logits.shape == (3, 2, 16, 16)
    found = upsample(logits, (128, 128)).argmax(1).float()
    assert min(dice(f, q) for f, q in zip(found, QUERY, strict=True)) > 0.9


def test_scoring_many_slices_equals_one_by_one() -> None:
    method = Alpnet()
    memory, query = method.remember(features_of(SUPPORT), SUPPORT), features_of(QUERY, seed=1)
    single = torch.cat([method.score(q[None], memory) for q in query])
    torch.testing.assert_close(method.score(query, memory), single, atol=1e-4, rtol=0)


def test_shots_are_pooled_into_one_list() -> None:
    masks = torch.stack([disc((50, 60), 45), disc((70, 64), 45)])
    method, features = Alpnet(), features_of(masks)
    both = method.remember(features, masks)
    first, second = (method.remember(features[i, None], masks[i, None]) for i in (0, 1))
    torch.testing.assert_close(both.background, torch.cat([first.background, second.background]))
    assert len(both.foreground) == len(first.foreground) + len(second.foreground)


@pytest.mark.parametrize(("radius", "mode"), [(40, "gridconv+"), (6, "mask"), (0, "mask")])
def test_a_large_organ_gets_local_prototypes(radius: float, mode: str) -> None:
    masks = disc((64, 64), radius)[None]
    memory = Alpnet().remember(features_of(masks), masks)
    assert memory.foreground_mode == mode
    assert (len(memory.foreground) == 1) == (mode == "mask")


def test_an_empty_mask_scores_zero() -> None:
    empty = torch.zeros(1, 128, 128)
    method = Alpnet()
    logits = method.score(features_of(QUERY), method.remember(features_of(empty), empty))
    assert not logits[:, 1].any()


def test_without_full_background_its_mean_stands_in_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    everywhere = torch.ones(1, 128, 128)
    everywhere[:, 3::16, 3::16] = 0.0  # holes smaller than a block
    with caplog.at_level(logging.WARNING):
        memory = Alpnet().remember(features_of(everywhere), everywhere)
    assert memory.background_mode == "mask"
    assert memory.background.shape == (1, 16)
    assert "No full block of background" in caplog.text


def test_without_full_background_the_published_method_stops() -> None:
    everywhere = torch.ones(1, 128, 128)
    with pytest.raises(SupportError, match="wholly outside"):
        Alpnet(AlpnetConfig(faithful=True)).remember(features_of(everywhere), everywhere)


def test_feature_maps_smaller_than_the_windows_are_accepted() -> None:
    masks = disc((12, 12), 9, size=24)[None]
    method = Alpnet()
    assert method.score(features_of(masks), method.remember(features_of(masks), masks)).shape == (1, 2, 3, 3)


def test_memory_moves() -> None:
    memory = Alpnet().remember(features_of(SUPPORT), SUPPORT).to("meta")
    assert memory.background.device.type == memory.foreground.device.type == "meta"
    assert memory.background_mode == "gridconv"


@pytest.mark.parametrize("option", [{"temperature": 0.0}, {"tau": 1.0}, {"window": 0}, {"gate": 0.0}, {"gate_window": 0}])
def test_impossible_options_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="impossible"):
        AlpnetConfig(**option)
