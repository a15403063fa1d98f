"""What RPT and PAMI share; features are those of the ALPNet tests: the organ points elsewhere than the background, with noise."""

from __future__ import annotations

import pytest
import torch
from test_alpnet import QUERY, SUPPORT, dice, disc, features_of
from torch import Tensor

from FewShotSegLib.methods import create_method, regional
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.methods.regional import RegionMethod

CHANNELS = 16
BOTH = pytest.mark.parametrize("name", ["rpt", "pami"])


def made(name: str, *, trained: bool = True, **options: object) -> RegionMethod:
    """The method with a random head."""
    method = create_method(name, **{"channels": CHANNELS, **options})
    assert isinstance(method, RegionMethod)
    method.trained = trained
    return method


@torch.no_grad()
def scores(method: RegionMethod, query: Tensor = QUERY, support: Tensor = SUPPORT) -> Tensor:
    return method.score(features_of(query, seed=1), method.remember(features_of(support), support))


@BOTH
@pytest.mark.parametrize("trained", [False, True])
def test_it_finds_the_organ_in_new_slices_even_with_a_head_that_learned_nothing(name: str, trained: bool) -> None:
    logits = scores(made(name, trained=trained))
    assert logits.shape == (3, 2, 16, 16)
    found = upsample(logits, (128, 128)).argmax(1).float()
    assert min(dice(f, q) for f, q in zip(found, QUERY, strict=True)) > 0.85


@BOTH
def test_a_learned_threshold_does_not_lose_what_was_drawn(name: str) -> None:
    for lenient in (True, False):
        method = made(name, lenient=lenient)
        with torch.no_grad():
            method.head.threshold.out.bias.fill_(-20.1)
        found = upsample(scores(method, SUPPORT), (128, 128)).argmax(1).float()
        assert (min(dice(f, s) for f, s in zip(found, SUPPORT, strict=True)) > 0.85) is lenient


@BOTH
def test_the_same_answer_every_time(name: str) -> None:
    method = made(name)
    assert torch.equal(scores(method), scores(method))
    assert torch.equal(scores(method), scores(made(name)))


@BOTH
def test_as_published_seeds_are_random_but_follow_the_seed(name: str) -> None:
    method = made(name, faithful=True, regions=5)
    first, second = (method.remember(features_of(SUPPORT), SUPPORT).regions for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first, made(name, faithful=True, regions=5).remember(features_of(SUPPORT), SUPPORT).regions)


@BOTH
def test_many_slices_are_scored_as_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regional, "TOGETHER", 2)
    method, query = made(name), features_of(QUERY, seed=1)
    with torch.no_grad():
        memory = method.remember(features_of(SUPPORT), SUPPORT)
        single = torch.cat([method.score(q[None], memory) for q in query])
        torch.testing.assert_close(method.score(query, memory), single, atol=1e-4, rtol=0)


@BOTH
def test_the_order_of_the_shots_does_not_matter(name: str) -> None:
    method, query = made(name), features_of(QUERY, seed=1)
    features = features_of(SUPPORT)
    with torch.no_grad():
        there = method.score(query, method.remember(features, SUPPORT))
        back = method.score(query, method.remember(features.flip(0), SUPPORT.flip(0)))
    torch.testing.assert_close(there, back, atol=1e-4, rtol=0)


@BOTH
def test_an_empty_slice_among_the_shots_changes_nothing_but_the_fallback_threshold(name: str) -> None:
    method = made(name)
    more = torch.cat([SUPPORT, torch.zeros(1, 128, 128)])
    features = features_of(more)
    alone, along = method.remember(features[:2], SUPPORT), method.remember(features, more)
    torch.testing.assert_close(alone.prototype, along.prototype)
    torch.testing.assert_close(alone.regions, along.regions)


@BOTH
@pytest.mark.parametrize("faithful", [False, True])
def test_an_empty_mask_finds_nothing(name: str, faithful: bool) -> None:
    method = made(name, trained=False, faithful=faithful)
    logits = scores(method, support=torch.zeros(1, 128, 128))
    assert (logits[:, 1] < logits[:, 0]).all()
    if not faithful:
        method.trained = True
        logits = scores(method, support=torch.zeros(1, 128, 128))
        assert (logits[:, 1] < logits[:, 0]).all()


@BOTH
def test_an_organ_of_one_cell(name: str) -> None:
    tiny = disc((60, 60), 3)[None]
    logits = scores(made(name), query=tiny, support=tiny)
    assert logits.isfinite().all()


@BOTH
@pytest.mark.parametrize("size", [(7, 13), (1, 1), (33, 20)])
def test_maps_of_any_size(name: str, size: tuple[int, int]) -> None:
    """Also of another size than the support's, and sizes that do not divide the image's."""
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(2, CHANNELS, *size, generator=generator)
    masks = torch.zeros(2, 50, 90)
    masks[:, 10:40, 20:70] = 1
    method = made(name)
    with torch.no_grad():
        memory = method.remember(support, masks)
        assert method.score(torch.randn(1, CHANNELS, 9, 5, generator=generator), memory).shape == (1, 2, 9, 5)
        assert method.score(support, memory).isfinite().all()


@BOTH
def test_without_iterations_it_is_the_plain_prototype(name: str) -> None:
    torch.testing.assert_close(scores(made(name, iterations=0)), scores(made(name, iterations=0, temperature=3.0)))
    assert not torch.equal(scores(made(name, iterations=0)), scores(made(name, iterations=2)))


@BOTH
def test_the_scale_of_the_features_does_not_matter_unless_published(name: str) -> None:
    def scaled(method: RegionMethod, by: float) -> Tensor:
        with torch.no_grad():
            memory = method.remember(by * features_of(SUPPORT), SUPPORT)
            return method.score(by * features_of(QUERY, seed=1), memory)

    torch.testing.assert_close(scaled(made(name), 1.0), scaled(made(name), 7.0), atol=1e-3, rtol=0)
    one, seven = (scaled(made(name, faithful=True), by) for by in (1.0, 7.0))
    assert not torch.allclose(one, seven, atol=1e-2)


@BOTH
def test_the_head_goes_through_a_state_dict(name: str) -> None:
    method, other = made(name), made(name, trained=False)
    with torch.no_grad():
        for parameter in method.head.parameters():
            parameter.add_(0.05)
    other.load_head(method.head.state_dict())
    assert other.trained
    assert torch.equal(scores(method), scores(other))


@BOTH
def test_the_memory_moves_between_devices(name: str) -> None:
    method = made(name)
    memory = method.remember(features_of(SUPPORT), SUPPORT).to("meta")
    assert {memory.prototype.device.type, memory.regions.device.type, memory.threshold.device.type} == {"meta"}
