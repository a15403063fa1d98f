from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from FewShotSegLib.errors import SupportError
from FewShotSegLib.prototypes import (
    local_prototypes,
    masked_average,
    nearest_prototype,
    pool_cells,
    prototype_scores,
    resize_masks,
    unit,
)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scores_by_definition(query: torch.Tensor, prototypes: torch.Tensor, temperature: float) -> torch.Tensor:
    """The published formula, one cell after the other, in double precision."""
    n, _, h, w = query.shape
    out = torch.zeros(n, h, w, dtype=torch.float64)
    for i in range(n):
        for y in range(h):
            for x in range(w):
                cell = query[i, :, y, x].double()
                d = torch.stack([temperature * cell @ p / cell.norm() / p.norm() for p in prototypes.double()])
                out[i, y, x] = (d.softmax(0) * d).sum()
    return out


def test_unit_leaves_zero_and_shrinks_tiny_vectors_less() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [5e-5, 0.0]])
    torch.testing.assert_close(unit(vectors, 1), torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.5, 0.0]]))


def test_masks_are_resized_without_antialiasing() -> None:
    mask = (random(2, 64, 48) > 0).float()
    blocks = mask.reshape(2, 8, 8, 6, 8)
    torch.testing.assert_close(resize_masks(mask, (8, 6)), blocks[:, :, 3:5, :, 3:5].mean((2, 4)))


def test_masks_at_feature_size_stay_as_they_are() -> None:
    mask = torch.rand(1, 8, 8)
    assert torch.equal(resize_masks(mask, (8, 8)), mask)


def test_pooling_drops_the_remainder_and_accepts_small_maps() -> None:
    maps = torch.arange(35.0).reshape(1, 1, 5, 7)
    pooled = pool_cells(maps, 2)
    assert pooled.shape == (1, 1, 2, 3)
    assert pooled[0, 0, 0, 0] == maps[0, 0, :2, :2].mean()
    assert pool_cells(maps, 6).shape == (1, 1, 1, 1)


def test_masked_average_of_fractions_and_of_nothing() -> None:
    features, masks = random(2, 5, 4, 4), torch.zeros(2, 4, 4)
    masks[0, 1, 2], masks[0, 3, 3] = 1.0, 0.5
    expected = (features[0, :, 1, 2] + 0.5 * features[0, :, 3, 3]) / 1.5
    averages = masked_average(features, masks)
    torch.testing.assert_close(averages[0], expected, atol=1e-4, rtol=0)
    assert not averages[1].any()


def test_local_prototypes_are_plain_means_in_order_slice_row_column() -> None:
    features, masks = random(2, 3, 4, 4), torch.zeros(2, 4, 4)
    masks[0, 2:, :2], masks[1, :2, 2:], masks[1, 2:, 2:] = 1.0, 1.0, 1.0
    expected = [features[0, :, 2:, :2], features[1, :, :2, 2:], features[1, :, 2:, 2:]]
    torch.testing.assert_close(local_prototypes(features, masks, 2, 0.95), torch.stack([e.mean((1, 2)) for e in expected]))


def test_a_block_must_be_filled_by_more_than_tau() -> None:
    features, masks = random(1, 3, 2, 2), torch.full((1, 2, 2), 0.5)
    assert len(local_prototypes(features, masks, 2, 0.5)) == 0
    assert len(local_prototypes(features, masks, 2, 0.49)) == 1


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(2, 4), st.sampled_from([1.0, 20.0, 40.0]), st.integers(0, 99))
def test_scores_follow_the_definition(n: int, p: int, side: int, temperature: float, seed: int) -> None:
    query, prototypes = random(n, 8, side, side + 1, seed=seed), random(p, 8, seed=seed + 1)
    found = prototype_scores(query, prototypes, temperature)
    torch.testing.assert_close(found.double(), scores_by_definition(query, prototypes, temperature), atol=1e-4, rtol=0)


def test_one_prototype_gives_the_cosine_and_a_zero_one_gives_zero() -> None:
    query = random(2, 8, 3, 3)
    prototype = random(1, 8, seed=1)
    cosine = torch.cosine_similarity(query, prototype[:, :, None, None])
    torch.testing.assert_close(prototype_scores(query, prototype, 20.0), 20 * cosine)
    assert not prototype_scores(query, torch.zeros(1, 8), 20.0).any()


def test_no_prototype_is_an_error() -> None:
    with pytest.raises(SupportError, match="no prototype"):
        prototype_scores(random(1, 8, 3, 3), torch.zeros(0, 8), 20.0)


def test_gradients_reach_query_and_prototypes() -> None:
    query, prototypes = random(1, 4, 2, 2).double().requires_grad_(), random(3, 4, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, p: prototype_scores(q, p, 5.0), (query, prototypes))


def test_nearest_prototype_is_the_most_similar() -> None:
    prototypes = random(6, 8)
    query = (7 * prototypes[[3, 0, 5, 1]]).T.reshape(1, 8, 2, 2)
    assert nearest_prototype(query, prototypes).flatten().tolist() == [3, 0, 5, 1]
