"""The default method on fields whose truth is known."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from smooth_scans import SLICE_MM, ball, dice, random_field, scan_of
from torch import Tensor

from FewShotSegLib import windows
from FewShotSegLib.correspondence import Window, attend, cell_positions
from FewShotSegLib.encoding import cell_fractions
from FewShotSegLib.methods.match import Match, MatchConfig, join

SIZE = (8, 20, 20)
FIELD = random_field()
CENTRES, RADII = ((3.5, 8.0, 6.0), (4.0, 11.0, 13.0)), (3.0, 2.5)
SHIFT = torch.tensor([SLICE_MM, 20.0, -10.0])  # one slice, two rows, one column


def fractions(shift: tuple[float, float, float] = (0, 0, 0)) -> Tensor:
    """Area fractions (n, 3, h, w) of background and two balls, moved by (slices, rows, columns)."""
    moved = [tuple(c - s for c, s in zip(centre, shift, strict=True)) for centre in CENTRES]
    organs = cell_fractions(torch.stack([ball(SIZE, (c[0], c[1], c[2]), r) for c, r in zip(moved, RADII, strict=True)], 1))
    return torch.cat([1 - organs.sum(1, keepdim=True), organs], 1)


def identity(size: tuple[int, int, int]) -> Tensor:
    return cell_positions(*size).T.reshape(3, *size)


# ---------------------------------------------------------------------------------------------- volume to volume
def test_all_organs_are_carried_to_a_shifted_scan_at_once() -> None:
    query = scan_of(FIELD, SIZE, lambda mm: mm + SHIFT)
    carried = Match().carry(query, [(scan_of(FIELD, SIZE), fractions())])
    assert carried.values.shape == (8, 3, 20, 20) and [place.shape for place in carried.places] == [(3, 8, 20, 20)]
    torch.testing.assert_close(carried.values.sum(1), torch.ones(8, 20, 20))
    truth = fractions((1, 2, -1)).argmax(1)
    for organ in (1, 2):
        assert dice(carried.values.argmax(1) == organ, truth == organ) > 0.85


def test_the_best_similarity_tells_a_scan_that_is_like_from_one_that_is_not() -> None:
    support = (scan_of(FIELD, SIZE), fractions())
    like = Match().carry(scan_of(FIELD, SIZE, lambda mm: mm + SHIFT), [support]).best
    other = Match().carry(scan_of(random_field(seed=5), SIZE), [support]).best
    assert like.shape == (8, 20, 20)
    assert like.median() > 0.95 and other.median() < 0.8


def test_the_support_that_looks_alike_has_the_say() -> None:
    query = scan_of(FIELD, SIZE, lambda mm: mm + SHIFT)
    good = (scan_of(FIELD, SIZE), fractions())
    misleading = (scan_of(random_field(seed=5), SIZE), fractions().flip(1))
    alone = Match().carry(query, [good])
    for supports in ([good, misleading], [misleading, good]):
        both = Match().carry(query, supports)
        assert (both.values.argmax(1) == alone.values.argmax(1)).float().mean() > 0.97
        assert (both.best >= alone.best).all()


def test_the_same_support_twice_changes_nothing() -> None:
    query, support = scan_of(FIELD, SIZE, lambda mm: mm + SHIFT), (scan_of(FIELD, SIZE), fractions())
    torch.testing.assert_close(Match().carry(query, [support] * 2).values, Match().carry(query, [support]).values)


def test_outside_the_body_is_background() -> None:
    query, support = scan_of(FIELD, SIZE), scan_of(FIELD, SIZE)
    body = query.body.clone()
    body[:, :8] = 0
    values = torch.zeros(8, 3, 20, 20)
    values[:, 1] = 1  # the organ is everywhere
    for supports in ([(support, values)], [(support, values)] * 2):
        carried = Match().carry(dataclasses.replace(query, body=body), supports)
        assert (carried.values[:, 0, :8] == 1).all() and (carried.values[:, 1:, :8] == 0).all()
        assert (carried.values[:, 1, 8:12] > 0.99).all()
        assert (carried.best[:, :8] == -1).all()


@pytest.mark.parametrize(
    ("kind", "close", "alike"),
    [
        (torch.float32, {"rtol": 0, "atol": 1e-4}, {"rtol": 1e-4, "atol": 1e-4}),
        (None, {"rtol": 0, "atol": 5e-3}, {"rtol": 0, "atol": 2e-3}),
    ],
    ids=["float32", "where it is fast bfloat16"],
)
def test_joined_answers_are_one_softmax_over_all_supports(
    monkeypatch: pytest.MonkeyPatch, kind: torch.dtype | None, close: dict[str, float], alike: dict[str, float]
) -> None:
    if kind:
        monkeypatch.setattr(windows, "fast_type", lambda device: kind)
    scan, values = scan_of(FIELD, SIZE), fractions()
    window = Window(20.0, 3.0, 4, 99.0, scan.slice_mm, scan.cell_mm)
    place = identity(SIZE) + 0.3
    whole = attend(scan.features, scan.features, place, values, window)
    below = place - torch.tensor([3.0, 0.0, 0.0])[:, None, None, None]
    parts = [
        attend(scan.features, scan.features[:3], place, values[:3], window),
        attend(scan.features, scan.features[3:], below, values[3:], window),
    ]
    joined = join(parts)
    torch.testing.assert_close(joined.values, whole.values, **close)
    torch.testing.assert_close(joined.best, whole.best, **alike)


def test_the_window_is_that_of_the_support() -> None:
    window = Match(MatchConfig(temperature=7.0, sigma=2.0, radius=5)).window(4.0, 9.0, 10.0)
    assert window == Window(7.0, 2.0, 5, 10.0, 4.0, 9.0)
    assert window.depth == 3


# ---------------------------------------------------------------------------------------------- the two verbs
def test_what_is_remembered_are_the_slices_themselves() -> None:
    features, mask = scan_of(FIELD, SIZE).features, ball(SIZE, CENTRES[0], RADII[0]).float()
    memory = Match().remember(features, mask)
    assert memory.features is features
    torch.testing.assert_close(memory.values[:, 1], cell_fractions(mask))
    torch.testing.assert_close(memory.values.sum(1), torch.ones(8, 20, 20))
    assert memory.to("cpu").values is memory.values


@pytest.mark.parametrize("slices", [[3], [2, 5], [0, 3, 4, 7]])
def test_scores_find_the_organ_on_the_slices_it_was_drawn_on(slices: list[int]) -> None:
    features, mask = scan_of(FIELD, SIZE).features, ball(SIZE, CENTRES[0], RADII[0]).float()
    method = Match(MatchConfig(temperature=100.0))
    logits = method.score(features[slices], method.remember(features[slices], mask[slices]))
    assert logits.shape == (len(slices), 2, 20, 20)
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(len(slices), 20, 20), rtol=0, atol=1e-3)
    assert dice(logits.argmax(1) == 1, cell_fractions(mask[slices]) > 0.5) > 0.9


def test_every_remembered_slice_is_asked() -> None:
    """The query equals the last slice only, far from the middle of the memory."""
    features, mask = scan_of(FIELD, SIZE).features, torch.zeros(8, 160, 160)
    mask[7, 40:80, 40:80] = 1
    method = Match(MatchConfig(temperature=100.0))
    memory = method.remember(features, mask)
    assert dice(method.score(features[7:], memory).argmax(1) == 1, cell_fractions(mask[7:]) > 0.5) > 0.95
    assert not (method.score(features[:1], memory).argmax(1) == 1).any()


def test_the_registration_is_an_option() -> None:
    config = MatchConfig()
    coarse = dataclasses.replace(config, registration=dataclasses.replace(config.registration, fine_mm=()))
    query, support = scan_of(FIELD, SIZE, lambda mm: mm + SHIFT), (scan_of(FIELD, SIZE), fractions())
    assert not torch.equal(Match(coarse).carry(query, [support]).places[0], Match(config).carry(query, [support]).places[0])
