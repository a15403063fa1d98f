"""QAMP as it is used; features are those of the ALPNet tests: the organ points elsewhere than the background, with noise."""

from __future__ import annotations

import pytest
import torch
from test_alpnet import QUERY, SUPPORT, dice, disc, features_of
from torch import Tensor

from FewShotSegLib.anomaly import ALLOWANCE
from FewShotSegLib.errors import CheckpointError, ConfigError, SupportError
from FewShotSegLib.methods import qamp
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.methods.qamp import Qamp, QampConfig

CHANNELS = 16


def made(*, trained: bool = True, **options: object) -> Qamp:
    """The method with a random head; the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = Qamp(QampConfig(**{"channels": CHANNELS, "width": 8, **options}))  # type: ignore[arg-type]
    method.trained = trained
    return method


@torch.no_grad()
def scores(method: Qamp, query: Tensor = QUERY, support: Tensor = SUPPORT) -> Tensor:
    return method.score(features_of(query, seed=1), method.remember(features_of(support), support))


@pytest.mark.parametrize("trained", [False, True])
def test_it_finds_the_organ_in_new_slices_even_with_a_head_that_learned_nothing(trained: bool) -> None:
    logits = scores(made(trained=trained))
    assert logits.shape == (3, 2, 16, 16)
    found = upsample(logits, (128, 128)).argmax(1).float()
    assert min(dice(f, q) for f, q in zip(found, QUERY, strict=True)) > 0.8


def test_a_learned_threshold_is_never_stricter_than_the_drawing_asks_for() -> None:
    features = features_of(SUPPORT)
    for lenient in (True, False):
        method = made(lenient=lenient)
        with torch.no_grad():
            method.head.threshold.out.bias.fill_(-20.1)
        memory = method.remember(features, SUPPORT)
        lowest = method.thresholds(method.prepared(features), memory).min()
        assert lowest == (memory.threshold + ALLOWANCE if lenient else lowest.new_tensor(-20.1))


def test_the_same_answer_every_time() -> None:
    method = made()
    assert torch.equal(scores(method), scores(method))


def test_the_decoders_speak_in_a_trained_head_only() -> None:
    method = made()
    with torch.no_grad():
        before = scores(method)
        method.head.organ_decoder.leave[-1].weight.mul_(5)
        assert not torch.allclose(before, scores(method), atol=1e-4)
        method.trained = False
        plain = scores(method)
        method.head.organ_decoder.leave[-1].weight.mul_(5)
        assert torch.equal(plain, scores(method))


def test_as_published_picks_are_random_but_follow_the_seed() -> None:
    support, query = disc((60, 60), 40)[None], QUERY[:1]
    method = made(faithful=True, side=128)
    first = scores(method, query, support)
    assert not torch.equal(first, scores(method, query, support))
    assert torch.equal(first, scores(made(faithful=True, side=128), query, support))


def test_the_published_form_is_for_one_size_and_ours_for_any() -> None:
    method = made(faithful=True, side=64)
    with pytest.raises(SupportError, match="128 x 128"):
        method.remember(features_of(SUPPORT), SUPPORT)
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 50, 90)
    masks[:, 10:40, 20:70] = 1
    for size in ((7, 13), (1, 1), (33, 20)):
        support = torch.randn(2, CHANNELS, *size, generator=generator)
        method = made()
        with torch.no_grad():
            memory = method.remember(support, masks)
            assert method.score(torch.randn(1, CHANNELS, 9, 5, generator=generator), memory).shape == (1, 2, 9, 5)
            assert method.score(support, memory).isfinite().all()


def test_many_slices_are_scored_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qamp, "TOGETHER", 2)
    method, query = made(), features_of(QUERY, seed=1)
    with torch.no_grad():
        memory = method.remember(features_of(SUPPORT), SUPPORT)
        single = torch.cat([method.score(q[None], memory) for q in query])
        torch.testing.assert_close(method.score(query, memory), single, atol=1e-4, rtol=0)


def test_several_published_shots_are_averaged() -> None:
    method = made(faithful=True, side=128)
    method.pick = lambda available, wanted: [i % available for i in range(wanted)]
    with torch.no_grad():
        both = method.remember(features_of(SUPPORT), SUPPORT)
        one, two = (method.remember(features_of(SUPPORT)[i, None], SUPPORT[i, None]) for i in (0, 1))
    torch.testing.assert_close(both.organ, (one.organ + two.organ) / 2)
    torch.testing.assert_close(both.background, (one.background + two.background) / 2)
    assert (both.organ.shape, both.background.shape) == ((102, CHANNELS), (552, CHANNELS))


def test_two_equal_shots_teach_what_one_does() -> None:
    method, features = made(), features_of(SUPPORT[:1])
    with torch.no_grad():
        one = method.remember(features, SUPPORT[:1])
        two = method.remember(features.repeat(2, 1, 1, 1), SUPPORT[:1].repeat(2, 1, 1))
    torch.testing.assert_close(one.prototype, two.prototype, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.organ[[0, 49, 100, 101]], two.organ[[0, 49, 100, 101]], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("trained", "faithful"), [(False, False), (True, False), (False, True)])
def test_an_empty_mask_finds_nothing(trained: bool, faithful: bool) -> None:
    logits = scores(made(trained=trained, faithful=faithful, side=128), support=torch.zeros(1, 128, 128))
    assert (logits[:, 1] < logits[:, 0]).all()


@pytest.mark.parametrize("mask", [disc((60, 60), 3)[None], torch.ones(1, 128, 128)])
def test_an_organ_of_one_cell_and_one_that_fills_the_image(mask: Tensor) -> None:
    for method in (made(), made(faithful=True, side=128)):
        assert scores(method, support=mask).isfinite().all()


def test_the_head_goes_through_a_state_dict() -> None:
    method, other = made(), made(trained=False)
    with torch.no_grad():
        for parameter in method.head.parameters():
            parameter.add_(0.05)
    other.load_head(method.head.state_dict())
    assert torch.equal(scores(method), scores(other))
    with pytest.raises(CheckpointError, match="width=9"):
        made(width=9).load_head(method.head.state_dict())


def test_a_checkpoint_of_our_head_is_small() -> None:
    head = Qamp().head
    assert sum(p.numel() for p in head.parameters()) * 2 < 2e6  # bytes, stored with half precision


def test_the_memory_moves_between_devices() -> None:
    memory = made().remember(features_of(SUPPORT), SUPPORT).to("meta")
    assert {t.device.type for t in (memory.prototype, memory.organ, memory.background, memory.threshold)} == {"meta"}


@pytest.mark.parametrize("wrong", [{"organ_prior": 1.0}, {"background_prior": -0.1}, {"width": 0}, {"side": 0}, {"channels": 0}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="impossible"):
        QampConfig(**wrong)  # type: ignore[arg-type]
