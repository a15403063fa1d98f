"""What the trainings of RPT, PAMI and QAMP share, on discs and with an encoder of one layer."""

from __future__ import annotations

import pytest
import torch
from test_alpnet import disc
from torch import Generator, Tensor, nn

from fewshotseg_training.episodes import Episodes
from fewshotseg_training.objectives import create_objective
from fewshotseg_training.objectives.regional import Pixels, Task, TaskObjective, alignment, shown_mean

SIZE = 64
CHANNELS = 16
OPTIONS = {"rpt": {"regions": 6}, "pami": {"regions": 6}, "qamp": {"width": 4}}
ALL = pytest.mark.parametrize("name", list(OPTIONS))


class OneLayer(nn.Module):
    """Grey slices (n H W) -> features (n c H/8 W/8)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, CHANNELS, 8, 8)

    def forward(self, slices: Tensor) -> Tensor:
        return self.layer(slices[:, None])


def episodes(supports: int = 1, queries: int = 1) -> Episodes:
    """Two episodes: bright discs on a dark noisy ground."""
    generator = Generator().manual_seed(0)

    def masks(count: int, shift: int) -> Tensor:
        return torch.stack([torch.stack([disc((28 + 4 * b, 30 + shift * i), 18, SIZE) for i in range(count)]) for b in range(2)])

    support, query = masks(supports, 2), masks(queries, 4)

    def images(masks: Tensor) -> Tensor:
        return 2 * masks - 0.5 + 0.2 * torch.randn(masks.shape, generator=generator)

    return Episodes(images(support), support, images(query), query, torch.zeros(2, dtype=torch.bool))


def made(name: str, **options: object) -> tuple[TaskObjective, OneLayer]:
    """The objective, in evaluation mode (no dropout), and an encoder."""
    torch.manual_seed(0)
    objective = create_objective(name, channels=CHANNELS, **{**OPTIONS[name], **options}).eval()
    assert isinstance(objective, TaskObjective)
    return objective, OneLayer()


def loss(objective: TaskObjective, encoder: nn.Module, given: Episodes) -> dict[str, Tensor]:
    return objective.loss(encoder, given, Generator())


@ALL
@pytest.mark.parametrize(("supports", "queries"), [(1, 1), (2, 3)])
def test_all_terms_are_there_and_teach_encoder_and_head(name: str, supports: int, queries: int) -> None:
    objective, encoder = made(name)
    terms = loss(objective, encoder, episodes(supports, queries))
    assert set(terms) == set(objective.term_names)
    sum(terms.values(), torch.zeros(())).backward()
    for module in (encoder, objective.head):
        for key, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    learned = [parameter.grad.abs().max() > 0 for parameter in objective.head.parameters() if parameter.grad is not None]
    assert sum(learned) > 0.9 * len(learned)


@ALL
def test_a_batch_is_the_mean_of_its_episodes(name: str) -> None:
    objective, encoder = made(name)
    given = episodes()
    both, one, two = (loss(objective, encoder, part) for part in (given, given[:1], given[1:]))
    for term in objective.term_names:
        torch.testing.assert_close(both[term], (one[term] + two[term]) / 2, atol=1e-5, rtol=1e-4)


@ALL
def test_an_episode_without_organ_in_the_support_counts_as_zero(name: str) -> None:
    objective, encoder = made(name)
    given = episodes()
    alone = loss(objective, encoder, given[1:])
    given.support_masks[0] = 0
    with_empty = loss(objective, encoder, given)
    for term in objective.term_names:
        torch.testing.assert_close(with_empty[term], alone[term] / 2, atol=1e-5, rtol=1e-4)
    sum(loss(objective, encoder, given[:1]).values(), torch.zeros(())).backward()
    assert not encoder.layer.weight.grad.any()


@ALL
def test_a_few_steps_lower_the_loss(name: str) -> None:
    objective, encoder = made(name)
    optimiser = torch.optim.SGD([*encoder.parameters(), *objective.head.parameters()], lr=0.01, momentum=0.9)
    totals = []
    for _ in range(8):
        total = sum(loss(objective, encoder, episodes()).values(), torch.zeros(()))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]


@ALL
def test_predictions_are_probabilities_of_the_queries(name: str) -> None:
    objective, encoder = made(name)
    found = objective.predict(encoder, episodes(1, 3))
    assert found is not None
    assert found.shape == (2, 3, SIZE, SIZE)
    assert found.min() >= 0 and found.max() <= 1


@ALL
def test_training_decides_like_use(name: str) -> None:
    """The probabilities of the training are those that `score` gives, upsampled."""
    objective, encoder = made(name)
    given = episodes()
    with torch.no_grad():
        supports, queries = objective.features(encoder, given)
        memory = objective.method.remember(supports[0], given.support_masks[0])
        logits = objective.method.score(queries[0], memory)
        wide = nn.functional.interpolate(logits, (SIZE, SIZE), mode="bilinear").softmax(1)[:, 1]
        torch.testing.assert_close(objective.predict(encoder, given)[0], wide, atol=1e-4, rtol=0)  # type: ignore[index]


def test_the_mean_is_over_shown_slices_only() -> None:
    masks = torch.stack([torch.ones(4, 4), torch.zeros(4, 4)])
    assert shown_mean(torch.tensor([[2.0], [9.0]]), masks).tolist() == [2.0]
    assert shown_mean(torch.tensor([[2.0], [9.0]]), torch.zeros(2, 4, 4)).tolist() == [0.0]


def test_alignment_without_a_predicted_organ_is_zero() -> None:
    features, masks = torch.randn(1, 4, 8, 8), disc((30, 30), 18, SIZE)[None]
    nothing = torch.stack([torch.ones(1, SIZE, SIZE), torch.zeros(1, SIZE, SIZE)], 1)
    prototype, found = alignment(Pixels(), Task(features, masks, features, masks), nothing, torch.tensor(-10.0))
    assert not prototype.any() and found == 0
