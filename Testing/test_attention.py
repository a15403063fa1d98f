from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from FewShotSegLib.attention import RegionAttention, RegionMlp, affinity, region_weights

CHANNELS = 12


def prototypes(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, CHANNELS, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def attention() -> RegionAttention:
    torch.manual_seed(0)
    return RegionAttention(CHANNELS).eval()


def test_attention_equals_the_formula(attention: RegionAttention) -> None:
    asking, asked = prototypes(5), prototypes(7, seed=1)
    found = []
    for head in range(attention.heads):
        rows = slice(head * CHANNELS, (head + 1) * CHANNELS)

        def project(layer: torch.nn.Linear, x: torch.Tensor, rows: slice = rows) -> torch.Tensor:
            return F.relu(x @ layer.weight[rows].T + layer.bias[rows])

        weights = (project(attention.query, asking) @ project(attention.key, asked).T / CHANNELS**0.5).softmax(1)
        found.append(weights @ project(attention.value, asked))
    expected = attention.norm(F.relu(attention.join(torch.cat(found, 1))) + asking)
    torch.testing.assert_close(attention(asking, asked), expected)


def test_batches_are_independent(attention: RegionAttention) -> None:
    batch = prototypes(2, 3, 5)
    torch.testing.assert_close(attention(batch, batch)[1, 2], attention(batch[1, 2], batch[1, 2]))


def test_the_order_of_the_regions_does_not_matter(attention: RegionAttention) -> None:
    x, order = prototypes(5), [3, 1, 4, 0, 2]
    torch.testing.assert_close(attention(x[order], x[order]), attention(x, x)[order])


def test_dropout_only_in_training(attention: RegionAttention) -> None:
    x = prototypes(5)
    assert torch.equal(attention(x, x), attention(x, x))
    attention.train()
    assert not torch.equal(attention(x, x), attention(x, x))


def test_the_mlp_treats_every_prototype_alone() -> None:
    mlp, x = RegionMlp(CHANNELS), prototypes(5)
    torch.testing.assert_close(mlp(x)[2], mlp(x[2]))
    torch.testing.assert_close(mlp(x).mean(1), torch.zeros(5), atol=1e-5, rtol=0)


def test_affinity_is_the_dot_product_or_the_cosine() -> None:
    p, q = prototypes(2, 5), prototypes(2, 1, seed=1)
    torch.testing.assert_close(affinity(p, q)[1, 3, 0], p[1, 3] @ q[1, 0])
    torch.testing.assert_close(affinity(p, q, 20.0)[1, 3, 0], 20 * F.cosine_similarity(p[1, 3], q[1, 0], dim=0))
    torch.testing.assert_close(affinity(3 * p, q, 20.0), affinity(p, q, 20.0))


def test_regions_unlike_the_query_are_eliminated() -> None:
    scores = torch.tensor([0.9, 0.8, 0.1, 0.7])[:, None]  # mean 0.625, middle to the minimum 0.3625
    weights = region_weights(scores, faithful=False)
    assert weights[2] == 0 and weights.sum() == pytest.approx(1.0)
    assert (region_weights(scores, faithful=True) > 0).all()  # rounded down to 0: nothing is eliminated


def test_equal_regions_share_equally() -> None:
    torch.testing.assert_close(region_weights(torch.full((3, 4, 1), 0.5), faithful=False), torch.full((3, 4, 1), 0.25))
