"""The trainings of ADNet, ADNet-3D and Q-Net: what they minimise gets smaller, and use follows training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("fewshotseg_training")

from tiny_encoder import TinyEncoder  # noqa: E402

from fewshotseg_training.episodes import Episodes  # noqa: E402
from fewshotseg_training.objectives import Objective, create_objective  # noqa: E402
from FewShotSegLib.methods import create_method, has_option  # noqa: E402
from FewShotSegLib.prototypes import unit  # noqa: E402

NAMES = ("adnet", "adnet3d", "qnet")


def episodes(count: int = 2, support: int = 2, query: int = 3) -> Episodes:
    """Bright squares on noise; the second episode's query shows none."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(count, support + query, 64, 64)
    masks[:, :, 16:44, 20:52] = 1
    grey = torch.randn(masks.shape, generator=generator) * 0.3 + 2 * masks
    masks[1:, support:] = 0
    sides = (slice(None, support), slice(support, None))
    (grey_s, grey_q), (mask_s, mask_q) = ([t[:, side] for side in sides] for t in (grey, masks))
    return Episodes(grey_s, mask_s, grey_q, mask_q, torch.zeros(count, dtype=torch.bool))


def objective(name: str, **options: object) -> Objective:
    return create_objective(name, channels=32, **options)


def test_nothing_drives_the_threshold_when_the_encoder_is_frozen() -> None:
    training = objective("adnet")
    driven = training.loss(TinyEncoder(), episodes(), torch.Generator())["threshold"]
    training.frozen = True
    assert driven < -0.1 and training.loss(TinyEncoder(), episodes(), torch.Generator())["threshold"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_every_term_is_a_finite_number_that_reaches_the_head(name: str) -> None:
    training = objective(name)
    terms = training.loss(TinyEncoder(), episodes(), torch.Generator(), step=0)
    assert set(terms) == {"query", "alignment"} | ({"threshold"} if name != "qnet" else set())
    assert all(term.shape == () and term.isfinite() for term in terms.values())
    sum(terms.values(), torch.zeros(())).backward()
    gradients = [p.grad for p in training.head.parameters()]
    assert gradients and all(g is not None and g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_learns_too(name: str) -> None:
    encoder = TinyEncoder()
    encoder.requires_grad_(True)
    sum(objective(name).loss(encoder, episodes(), torch.Generator()).values(), torch.zeros(())).backward()
    assert encoder.mixing.grad is not None and encoder.mixing.grad.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_segmentation_loss_falls(name: str) -> None:
    training, encoder, batch = objective(name), TinyEncoder(), episodes(1)
    nn.init.constant_(next(p for n, p in training.head.named_parameters() if n.rsplit(".")[-1] in ("t", "bias")), 5.0)
    optimiser = torch.optim.SGD(training.head.parameters(), 2.0)
    values = []
    for _ in range(12):
        loss = training.loss(encoder, batch, torch.Generator())["query"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize("name", NAMES)
def test_use_predicts_what_training_does(name: str) -> None:
    training, encoder, batch = objective(name), TinyEncoder(), episodes(1)
    with torch.no_grad():
        for parameter in training.head.parameters():
            parameter.add_(0.01)
    predicted = training.predict(encoder, batch)
    assert predicted is not None and predicted.shape == (1, 3, 64, 64)
    method = create_method(name, lenient=False, **({"channels": 32} if has_option(name, "channels") else {}))
    method.load_head(training.head.state_dict())
    memory = method.remember(unit(encoder(batch.support[0]), 1), batch.support_masks[0])
    found = method.score(unit(encoder(batch.query[0]), 1), memory).softmax(1)[:, 1]
    wide = nn.functional.interpolate(found[:, None], (64, 64), mode="bilinear", align_corners=True)[:, 0]
    assert ((predicted[0] > 0.5) == (wide > 0.5)).float().mean() > 0.97


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_without_region_is_no_exception(name: str) -> None:
    batch = episodes(1)
    empty = Episodes(batch.support, batch.support_masks * 0, batch.query, batch.query_masks * 0, batch.realistic)
    assert all(term.isfinite() for term in objective(name).loss(TinyEncoder(), empty, torch.Generator()).values())


def test_recipes_of_the_papers() -> None:
    recipes = {name: objective(name).recipe for name in NAMES}
    assert [recipes[name].steps for name in NAMES] == [50_000, 15_000, 30_000]
    assert [recipes[name].source for name in NAMES] == ["supervoxel", "volume", "supervoxel"]
    assert not recipes["adnet"].adjacent and recipes["qnet"].adjacent
