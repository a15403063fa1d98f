"""ADNet on slices."""

from __future__ import annotations

import pytest
import torch
from test_alpnet import disc, features_of
from torch import Tensor, nn

from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.methods.adnet import Adnet, AdnetConfig
from FewShotSegLib.methods.base import upsample

SUPPORT, QUERY = torch.stack([disc((60, 64), 30)]), torch.stack([disc((70, 56), 26), disc((64, 64), 20)])


def dice(logits: Tensor, masks: Tensor) -> float:
    found = upsample(logits, (128, 128)).argmax(1)
    return float(2 * (found * masks).sum() / (found.sum() + masks.sum()))


def trained(threshold: float, **options: bool) -> Adnet:
    method = Adnet(AdnetConfig(**options))
    method.load_head({"t": torch.tensor(threshold)})
    return method


def test_untrained_it_finds_the_organ_with_the_support_s_own_threshold() -> None:
    method = Adnet()
    memory = method.remember(features_of(SUPPORT, noise=0.3), SUPPORT)
    logits = method.score(features_of(QUERY, noise=0.3, seed=1), memory)
    assert logits.shape == (2, 2, 16, 16)
    assert dice(logits, QUERY) > 0.9


@pytest.mark.parametrize("options", [{"lenient": False}, {"faithful": True}])
def test_the_learned_threshold_decides_when_there_is_one(options: dict[str, bool]) -> None:
    features = features_of(SUPPORT, noise=0.3)
    everywhere, nowhere = trained(20.1, **options), trained(-20.1, **options)
    assert (everywhere.score(features, everywhere.remember(features, SUPPORT)).argmax(1) == 1).all()
    assert (nowhere.score(features, nowhere.remember(features, SUPPORT)).argmax(1) == 0).all()


def test_a_learned_threshold_does_not_lose_what_was_drawn() -> None:
    strict, features = trained(-20.1), features_of(SUPPORT, noise=0.3)
    assert dice(strict.score(features, strict.remember(features, SUPPORT)), SUPPORT) > 0.9
    wide = trained(-5.0)
    assert wide.remember(features, SUPPORT).threshold == -5


def test_faithful_starts_from_the_paper_s_threshold() -> None:
    assert Adnet(AdnetConfig(faithful=True)).remember(features_of(SUPPORT), SUPPORT).threshold == -10


def test_both_poolings_nearly_agree() -> None:
    features = features_of(SUPPORT, noise=0.3)
    ours, published = (trained(-10, faithful=f).remember(features, SUPPORT).prototype for f in (False, True))
    assert torch.cosine_similarity(ours, published, dim=0) > 0.99


def test_shots_are_averaged_and_a_slice_without_the_organ_is_no_shot() -> None:
    method, features = Adnet(), features_of(QUERY, noise=0.3)
    both = method.remember(features, QUERY).prototype
    each = [method.remember(features[i, None], QUERY[i, None]).prototype for i in range(2)]
    torch.testing.assert_close(both, (each[0] + each[1]) / 2)
    empty = torch.stack([QUERY[0], torch.zeros(128, 128)])
    torch.testing.assert_close(method.remember(features, empty).prototype, each[0])


def test_an_empty_support_gives_finite_scores() -> None:
    method, features = Adnet(), features_of(QUERY)
    assert method.score(features, method.remember(features, QUERY * 0)).isfinite().all()


def test_any_map_size_and_a_move_of_the_memory() -> None:
    method = Adnet()
    memory = method.remember(torch.randn(1, 4, 5, 7), torch.ones(1, 40, 56)).to("cpu")
    assert method.score(torch.randn(2, 4, 6, 3), memory).shape == (2, 2, 6, 3)


def test_parameters_of_something_else_are_refused() -> None:
    with pytest.raises(CheckpointError, match="do not fit Adnet"):
        Adnet().load_head(nn.Linear(2, 2).state_dict())
