"""Prototype heads on a scan about which nothing is told."""

from __future__ import annotations

import pytest
import torch
from test_alpnet import disc, features_of
from torch import Tensor

from FewShotSegLib.errors import SupportError
from FewShotSegLib.methods.alpnet import Alpnet
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.methods.visa import Visa, VisaConfig
from FewShotSegLib.strategies.heads import (
    OUTSIDE,
    HeadTask,
    Shot,
    direct,
    extent_of,
    margin_within,
    memories,
    place_margin,
    propagate,
    same_size,
    teachers,
)

RADII = (0, 18, 26, 32, 34, 32, 26, 18, 0, 0)
SUPPORT = torch.stack([disc((60, 64), r) if r else torch.zeros(128, 128) for r in RADII])
QUERY = torch.stack([disc((70, 56), r) if r else torch.zeros(128, 128) for r in (0, 0, *RADII[1:9])])
EXTENT = (2, 8)


def task(extent: tuple[int, int] = EXTENT, allowed: Tensor | None = None, noise: float = 0.3) -> HeadTask:
    return HeadTask([shot(noise)], features_of(QUERY, noise=noise, seed=1), extent, allowed)


def shot(noise: float = 0.3) -> Shot:
    return Shot(features_of(SUPPORT, noise=noise), SUPPORT)


def dice(margins: Tensor, masks: Tensor) -> float:
    found = upsample(margins[:, None], (128, 128))[:, 0] > 0
    return float(2 * (found * masks).sum() / (found.sum() + masks.sum()))


# ---------------------------------------------------------------------------------------------- extent and margin
def shown(*cells: float) -> Tensor:
    """Slices with this many cells of organ each."""
    fractions = torch.zeros(len(cells), 4, 4)
    for z, count in enumerate(cells):
        fractions[z].view(-1)[: int(count)] = 1
        if count % 1:
            fractions[z, -1, -1] = count % 1
    return fractions


@pytest.mark.parametrize(
    ("fractions", "extent"),
    [
        (shown(0, 0, 3, 4, 2, 0), (2, 4)),
        (shown(1, 0, 3, 4, 0, 1), (2, 3)),
        (shown(1, 1, 0, 3, 4), (0, 1)),
        (shown(0, 0, 1), (2, 2)),
        (shown(5, 5), (0, 1)),
        (shown(0, 0.4, 0.6, 0.2), (2, 2)),
        (shown(0, 0), None),
        (torch.full((3, 4, 4), 0.25), None),
    ],
)
def test_the_extent_is_the_longest_run_of_slices_that_show_the_organ(fractions: Tensor, extent: tuple[int, int] | None) -> None:
    assert extent_of(fractions) == extent


def test_the_margin_reaches_two_cells_around_the_organ() -> None:
    fractions = torch.zeros(2, 9, 9)
    fractions[0, 4, 4], fractions[1, 0, 0] = 1.0, 0.2
    margin = place_margin(fractions)
    assert margin.dtype == torch.bool
    expected = torch.zeros(9, 9, dtype=torch.bool)
    expected[2:7, 2:7] = True
    assert torch.equal(margin[0], expected) and not margin[1].any()


def test_a_slice_without_margin_gets_that_of_the_nearest_slice_of_its_extent() -> None:
    allowed = torch.zeros(6, 1, 6, dtype=torch.bool)
    for z in (0, 2, 4):
        allowed[z, 0, z] = True
    whole = margin_within(allowed, (1, 5))
    assert whole is not None and whole.flatten(1).float().argmax(1).tolist() == [0, 2, 2, 2, 4, 4]
    assert torch.equal(whole.flatten(1).sum(1), torch.ones(6, dtype=torch.long))
    assert margin_within(allowed, (1, 1)) is None


def test_teachers_are_slices_that_show_the_organ() -> None:
    assert teachers(SUPPORT) == (2, 4, 6)
    assert teachers(SUPPORT[:2]) == (1, 1, 1)
    with pytest.raises(SupportError):
        teachers(SUPPORT * 0)


# ---------------------------------------------------------------------------------------------- the two strategies
@pytest.mark.parametrize("strategy", [direct, propagate])
@pytest.mark.parametrize("method", [Alpnet(), Visa()])
def test_the_organ_is_found_inside_its_extent_only(strategy: object, method: Alpnet) -> None:
    margins = strategy(method, task())  # type: ignore[operator]
    assert margins.shape == (10, 16, 16)
    assert (margins[[0, 1, 9]] == OUTSIDE).all() and (margins[2:9] > OUTSIDE).any(2).any(1).all()
    assert dice(margins[2:9], QUERY[2:9]) > 0.9


@pytest.mark.parametrize("strategy", [direct, propagate])
def test_what_is_not_allowed_is_outside(strategy: object) -> None:
    allowed = torch.ones(10, 16, 16, dtype=torch.bool)
    allowed[:, :, 8:] = False
    margins = strategy(Alpnet(), task(allowed=allowed))  # type: ignore[operator]
    assert (margins[:, :, 8:] == OUTSIDE).all()
    assert (margins[2:9, :, :8] > 0).any()


def test_each_chunk_has_one_teacher() -> None:
    method, given = Alpnet(), task()
    margins = direct(method, given)
    for slices, teacher in (([2, 3], 2), ([4, 5], 4), ([6, 7, 8], 6)):
        memory = method.remember(given.shots[0].features[teacher, None], SUPPORT[teacher, None])
        logits = method.score(given.query_features[slices], memory)
        torch.testing.assert_close(margins[slices], logits[:, 1] - logits[:, 0])


@pytest.mark.parametrize("strategy", [direct, propagate])
def test_an_extent_of_one_slice(strategy: object) -> None:
    margins = strategy(Alpnet(), task((5, 5)))  # type: ignore[operator]
    assert (margins[:5] == OUTSIDE).all() and (margins[6:] == OUTSIDE).all()
    assert dice(margins[5:6], QUERY[5:6]) > 0.85


def test_propagation_teaches_with_what_was_found_in_the_query(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[float] = []
    remember = Alpnet.remember

    def watched(self: Alpnet, features: Tensor, masks: Tensor) -> object:
        taught.append(float(masks.sum()))
        return remember(self, features, masks)

    monkeypatch.setattr(Alpnet, "remember", watched)
    propagate(Alpnet(), task())
    assert taught[:3] == [float(SUPPORT[z].sum()) for z in (2, 4, 6)]
    assert len(taught) > 3 and all(area > 0 for area in taught[3:])


@pytest.mark.parametrize(
    ("config", "slices"),
    [(VisaConfig(), 2), (VisaConfig(anchored=False), 1), (VisaConfig(faithful=True), 1)],
    ids=["anchored", "not anchored", "faithful"],
)
def test_the_drawn_slice_teaches_beside_the_neighbour(monkeypatch: pytest.MonkeyPatch, config: VisaConfig, slices: int) -> None:
    """Of its own chunk; also where support and query differ in size."""
    taught: list[Tensor] = []
    remember = Visa.remember

    def watched(self: Visa, features: Tensor, masks: Tensor) -> object:
        taught.append(masks)
        return remember(self, features, masks)

    monkeypatch.setattr(Visa, "remember", watched)
    given = HeadTask([shot()], features_of(QUERY, noise=0.3, seed=1)[:, :, :14], EXTENT)
    margins = propagate(Visa(config), given)
    assert margins.shape == (10, 14, 16) and {len(masks) for masks in taught[3:]} == {slices}
    if slices == 2:
        drawn = {next(z for z in range(10) if torch.equal(masks[1], SUPPORT[z])) for masks in taught[3:]}
        assert drawn and drawn <= {2, 4, 6}


# ---------------------------------------------------------------------------------------------- several supports
def test_every_shot_gives_one_slice_to_each_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[Tensor] = []
    monkeypatch.setattr(Alpnet, "remember", lambda self, features, masks: taught.append(masks))
    memories(Alpnet(), [shot(), Shot(features_of(QUERY), QUERY)])
    assert len(taught) == 3
    for (first, second), masks in zip(((2, 3), (4, 5), (6, 7)), taught, strict=True):
        assert torch.equal(masks, torch.stack([SUPPORT[first], QUERY[second]]))


@pytest.mark.parametrize("strategy", [direct, propagate])
def test_two_equal_shots_are_one(strategy: object) -> None:
    one, query = shot(), features_of(QUERY, noise=0.3, seed=1)
    alone = strategy(Alpnet(), HeadTask([one], query, EXTENT))  # type: ignore[operator]
    torch.testing.assert_close(strategy(Alpnet(), HeadTask([one, one], query, EXTENT)), alone)  # type: ignore[operator]


def test_shots_of_different_size_go_on_with_their_last_cells_and_without_organ() -> None:
    small = Shot(features_of(SUPPORT)[:, :, :14, :12], SUPPORT[:, :112, :96])
    wide, narrow = same_size([shot(), small])
    assert torch.equal(wide.features, shot().features) and torch.equal(wide.masks, SUPPORT)
    assert narrow.features.shape == wide.features.shape and narrow.masks.shape == wide.masks.shape
    assert torch.equal(narrow.features[:, :, 15, 13], small.features[:, :, 13, 11])
    assert torch.equal(narrow.masks[:, :112, :96], small.masks) and not narrow.masks[:, 112:].any()
