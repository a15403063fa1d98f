from __future__ import annotations

import pytest
import torch

from FewShotSegLib.methods.qamp_banks import (
    OURS,
    PUBLISHED,
    Decoder,
    PixelMix,
    TokenMix,
    at_random,
    drawn,
    edges,
    evenly,
    mean_feature,
    picked,
    similarities,
)


def first(available: int, wanted: int) -> list[int]:
    return list(range(wanted))


def test_the_banks_have_the_published_number_of_prototypes() -> None:
    assert [size.total for size in PUBLISHED] == [size.total for size in OURS] == [152, 652]


@pytest.mark.parametrize(
    ("available", "wanted", "expected"),
    [(10, 5, [1, 3, 5, 7, 9]), (3, 3, [0, 1, 2]), (2, 5, [0, 0, 1, 1, 1]), (1, 2, [0, 0]), (100, 1, [50])],
)
def test_even_picks(available: int, wanted: int, expected: list[int]) -> None:
    assert evenly(available, wanted) == expected


def test_published_picks_repeat_too_few_as_a_whole() -> None:
    assert drawn(3, 8, first) == [0, 1, 0, 1, 2, 0, 1, 2]
    assert drawn(9, 4, first) == [0, 1, 2, 3]
    assert drawn(4, 8, first) == [0, 1, 2, 3, 0, 1, 2, 3]


def test_random_picks_follow_the_seed_and_do_not_repeat() -> None:
    one, same = at_random(1), at_random(1)
    assert one(50, 20) == same(50, 20)
    assert len(set(one(50, 20))) == 20
    assert one(50, 20) != same(50, 20)[::-1]


def test_nothing_to_pick_from_gives_zeros() -> None:
    features = torch.ones(3, 4)
    assert picked(features, torch.zeros(4, dtype=torch.bool), 2, evenly).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert mean_feature(features, torch.zeros(4)).tolist() == [[0, 0, 0]]


def test_edges_are_two_pixels_wide_and_not_at_the_image_border() -> None:
    mask = torch.zeros(12, 12)
    mask[:7, 3:10] = 1
    inner, outer = edges(mask)
    expected = mask.clone()
    expected[:5, 5:8] = 0
    assert torch.equal(inner, expected)
    wide = torch.zeros(12, 12)
    wide[:9, 1:12] = 1
    assert torch.equal(outer, wide - mask)


def test_the_pixel_mix_puts_organ_features_everywhere() -> None:
    mix = PixelMix(5, 2).eval()
    features = torch.tensor([[1.0, 9.0, 2.0, 9.0, 9.0]])
    inside = torch.tensor([True, False, True, False, False])
    picks = [1, 0, 1]  # of the organ's features 1 and 2
    filled = torch.tensor([[1.0, 2.0, 2.0, 1.0, 2.0]])
    with torch.no_grad():
        found = mix(features, inside, lambda available, wanted: picks[:wanted])
        torch.testing.assert_close(found, mix.second(mix.first(filled)).T)


def test_the_token_mix_stays_within_the_organ_at_any_size() -> None:
    torch.manual_seed(0)
    mix = TokenMix(4, 6)
    for cells in (1, 7, 30):
        features, weights = torch.randn(4, cells), torch.zeros(cells)
        features[:, 0], weights[0] = 3.0, 1.0
        torch.testing.assert_close(mix(features, weights), torch.full((6, 4), 3.0), atol=1e-2, rtol=0)
    spread = mix(torch.randn(4, 30), torch.ones(30))
    assert spread.std(0).min() > 0.05  # the tokens look at different things


def test_decoders_keep_the_size_of_the_map() -> None:
    assert Decoder(6, 4).eval()(torch.randn(2, 6, 7, 13)).shape == (2, 7, 13)


def test_similarities_are_cosines_with_the_slices_own_bank() -> None:
    features, bank = torch.randn(2, 4, 3, 3), torch.randn(2, 5, 4)
    found = similarities(features, bank)
    expected = torch.nn.functional.cosine_similarity(features[1, :, 2, 0], bank[1, 3], dim=0)
    torch.testing.assert_close(found[1, 3, 2, 0], expected)
