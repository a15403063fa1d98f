from __future__ import annotations

import pytest
import torch
from test_alpnet import disc, features_of

from fewshotseg_training.objectives.alpnet import alignment_loss, episode_loss, query_loss, training_window
from FewShotSegLib.errors import SupportError
from FewShotSegLib.methods.alpnet import Alpnet, AlpnetConfig

METHOD = Alpnet(AlpnetConfig(window=4))
SUPPORT, QUERY = disc((50, 60), 34)[None], disc((70, 64), 30)[None]


def test_training_window() -> None:
    assert (training_window(32), training_window(16), training_window(4)) == (4, 2, 1)


def test_background_weighs_a_twentieth_and_ignored_pixels_nothing() -> None:
    logits = torch.zeros(1, 2, 1, 3)
    logits[0, 1, 0] = torch.tensor([2.0, 1.0, 50.0])
    labels = torch.tensor([[[1, 0, 255]]])
    organ, background = torch.log1p(torch.exp(torch.tensor(-2.0))), torch.log1p(torch.exp(torch.tensor(1.0)))
    torch.testing.assert_close(query_loss(logits, labels), (organ + 0.05 * background) / 1.05)


def test_losses_fall_when_the_features_separate_the_organ() -> None:
    def total(noise: float) -> float:
        support, query = features_of(SUPPORT, noise=noise), features_of(QUERY, noise=noise, seed=1)
        return float(episode_loss(METHOD, support, SUPPORT, query, QUERY).total)

    assert total(0.1) < 0.5 * total(3.0)


def test_both_losses_reach_both_features() -> None:
    support, query = features_of(SUPPORT).requires_grad_(), features_of(QUERY, seed=1).requires_grad_()
    loss = episode_loss(METHOD, support, SUPPORT, query, QUERY)
    for part in (loss.query, loss.alignment):
        gradients = torch.autograd.grad(part, (support, query), retain_graph=True)
        assert all(g.abs().sum() > 0 for g in gradients)


def test_partly_covered_pixels_are_ignored_in_alignment() -> None:
    features, scores = features_of(SUPPORT), torch.stack([1 - features_of(SUPPORT)[:, 0], features_of(SUPPORT)[:, 0]], 1)
    soft = SUPPORT.clone()
    soft[:, :4] = 0.5
    changed = features.clone()
    loss = alignment_loss(METHOD, changed, features, soft, scores)
    assert torch.isfinite(loss)
    everything_soft_but_one = torch.full_like(SUPPORT, 0.5)
    everything_soft_but_one[0, 50, 60] = 1.0
    single = alignment_loss(METHOD, features, features, everything_soft_but_one, scores)
    assert torch.isfinite(single) and not torch.isclose(single, loss)


def test_a_prediction_without_background_falls_back_or_stops() -> None:
    features = features_of(SUPPORT)
    all_organ = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)], 1)
    assert torch.isfinite(alignment_loss(METHOD, features, features, SUPPORT, all_organ))
    with pytest.raises(SupportError):
        alignment_loss(Alpnet(AlpnetConfig(window=4, faithful=True)), features, features, SUPPORT, all_organ)
