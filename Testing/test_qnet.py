"""Q-Net: two scales, a threshold for every slice, refinement."""

from __future__ import annotations

import pytest
import torch
from test_alpnet import disc, features_of

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.methods.qnet import Qnet, QnetConfig, refined, scales_of
from FewShotSegLib.prototypes import area_fractions, masked_average

SUPPORT, QUERY = torch.stack([disc((60, 64), 30)]), torch.stack([disc((70, 56), 26), disc((64, 64), 20)])
CHANNELS = features_of(SUPPORT).shape[1]


def features(masks: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return features_of(masks, noise=0.3, seed=seed)


def qnet(**options: object) -> Qnet:
    return Qnet(QnetConfig(channels=CHANNELS, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"alpha": 0.6, "refine": 3}, {"faithful": True}])
def test_untrained_it_finds_the_organ(options: dict[str, object]) -> None:
    method = qnet(**options)
    logits = method.score(features(QUERY, 1), method.remember(features(SUPPORT), SUPPORT))
    assert logits.shape == (2, 2, 16, 16)
    found = upsample(logits, (128, 128)).argmax(1)
    assert 2 * (found * QUERY).sum() / (found.sum() + QUERY.sum()) > 0.85


def test_the_coarse_scale_is_the_mean_of_blocks_and_no_cell_is_lost() -> None:
    maps = torch.arange(30.0).reshape(1, 1, 5, 6)
    fine, coarse = scales_of(maps)
    assert fine is maps and coarse.shape == (1, 1, 3, 3)
    assert coarse[0, 0, 0, 0] == (0 + 1 + 6 + 7) / 4 and coarse[0, 0, 2, 0] == (24 + 25) / 2


def test_alpha_one_is_the_fine_scale_alone() -> None:
    method = qnet(alpha=1.0)
    memory = method.remember(features(SUPPORT), SUPPORT)
    margins = method.margins(scales_of(features(QUERY)), memory, memory.threshold.expand(2))
    torch.testing.assert_close(method.fused(margins, (16, 16)), margins[0].sigmoid())


def test_a_trained_threshold_is_the_query_slice_s_own() -> None:
    method = qnet(lenient=False)
    weight = torch.zeros(1, CHANNELS)
    weight[0, 0] = 1e3
    method.load_head({"out.weight": weight, "out.bias": torch.zeros(1)})
    query = features(QUERY)
    query[0, 0], query[1, 0] = 1, -1
    found = method.score(query, method.remember(features(SUPPORT), SUPPORT)).argmax(1)
    assert (found[0] == 1).all() and (found[1] == 0).all()


def test_a_slice_is_scored_alike_in_any_batch() -> None:
    method = qnet(refine=4)
    memory, query = method.remember(features(SUPPORT), SUPPORT), features(QUERY)
    torch.testing.assert_close(method.score(query, memory)[1:], method.score(query[1:], memory), rtol=1e-4, atol=1e-4)


def test_a_learned_threshold_does_not_lose_what_was_drawn() -> None:
    strict, plain = qnet(), qnet(lenient=False)
    for method in (strict, plain):
        method.load_head({"out.weight": torch.zeros(1, CHANNELS), "out.bias": torch.tensor([-20.1])})
    found, lost = (m.score(features(SUPPORT), m.remember(features(SUPPORT), SUPPORT)).argmax(1) for m in (strict, plain))
    assert not lost.any() and 2 * (upsample(found[:, None].float(), (128, 128))[:, 0].round() * SUPPORT).sum() > SUPPORT.sum()


def test_the_published_refinement_moves_all_coordinates_alike_by_a_hundredth_a_step() -> None:
    start = torch.randn(2, CHANNELS)
    moved = refined(features(QUERY), start, torch.tensor([100.0, 100.0]), 5, faithful=True) - start
    assert moved.abs().max() <= 0.0501 and moved.abs().median() > 0.01
    assert refined(features(QUERY), start, torch.zeros(2), 0) is start


def test_the_refinement_leads_a_prototype_to_the_query_s_organ_whatever_the_size_of_the_features() -> None:
    query, masks = features(QUERY), area_fractions(QUERY, (16, 16))
    aim = masked_average(query, masks)
    start = aim + 0.3 * torch.randn(aim.shape, generator=torch.Generator().manual_seed(0))
    near, small = (refined(query * size, start * size, torch.tensor([-14.0, -14.0]), 40) / size for size in (1, 0.05))
    published = refined(query, start, torch.tensor([-14.0, -14.0]), 40, faithful=True)
    before, after, away = (torch.cosine_similarity(p, aim) for p in (start, near, published))
    assert (before < 0.98).all() and (after > 0.99).all() and (away < before).all()
    torch.testing.assert_close(near, small, rtol=1e-3, atol=1e-3)


def test_the_refinement_works_where_gradients_are_off_and_leaves_none() -> None:
    method = qnet(refine=2)
    with torch.no_grad():
        logits = method.score(features(QUERY), method.remember(features(SUPPORT), SUPPORT))
    assert not logits.requires_grad and all(p.grad is None for p in method.head.parameters())


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"refine": -1}, {"channels": 0}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="impossible"):
        QnetConfig(**options)  # type: ignore[arg-type]
