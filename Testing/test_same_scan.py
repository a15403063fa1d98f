"""From a few drawn slices through the same scan."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from smooth_scans import ball, dice, encoded_of, random_field, scan_of
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.encoding import EncodedScan, cell_fractions
from FewShotSegLib.methods.match import MatchConfig
from FewShotSegLib.strategies import same_scan
from FewShotSegLib.strategies.same_scan import complete, harden

SIZE = (9, 16, 16)
CONFIG = MatchConfig()


def fractions(mask: Tensor) -> Tensor:
    """Background and organ (n, 2, h, w) of a mask (n, H, W)."""
    organ = cell_fractions(mask)[:, None]
    return torch.cat([1 - organ, organ], 1)


def block(n: int) -> Tensor:
    """The same whole cells on every slice: (n, H, W)."""
    mask = torch.zeros(n, 128, 128)
    mask[:, 40:80, 48:96] = 1
    return mask


def alike(n: int = 9, slices: list[int] | None = None) -> EncodedScan:
    """Every slice shows the same, and every cell something else."""
    return encoded_of(scan_of(random_field(length_mm=8.0), (n, 16, 16), lambda mm: mm * torch.tensor([0.0, 1.0, 1.0])), slices)


# ---------------------------------------------------------------------------------------------- what is carried
def test_drawn_slices_stay_as_drawn() -> None:
    scan = encoded_of(scan_of(random_field(), SIZE))
    drawn = {z: fractions(ball(SIZE, (4.0, 8.0, 8.0), 4.0).float())[z] for z in (2, 6)}
    carried = complete(scan, drawn, CONFIG)
    assert carried.values.shape == (9, 2, 16, 16) and carried.best.shape == (9, 16, 16)
    for z, expected in drawn.items():
        assert torch.equal(carried.values[z], expected)
        assert (carried.best[z] == 1).all()


@pytest.mark.parametrize("drawn", [[4], [0], [1, 7]])
def test_equal_slices_carry_the_mask_exactly(drawn: list[int]) -> None:
    truth = fractions(block(9))
    carried = complete(alike(), {z: truth[z] for z in drawn}, CONFIG)
    assert torch.equal(carried.values.argmax(1), truth.argmax(1))
    torch.testing.assert_close(carried.best, torch.ones(SIZE))
    torch.testing.assert_close(carried.values.sum(1), torch.ones(SIZE))


@pytest.mark.parametrize("thin", [(), (0,)])
def test_what_is_thinner_than_a_cell_stays_only_if_it_is_not_hardened(thin: tuple[int, ...]) -> None:
    line = torch.zeros(9, 128, 128)
    line[:, 64:67, 32:96] = 1
    truth = fractions(line)
    carried = complete(alike(), {0: truth[0]}, CONFIG, thin=thin)
    assert (float(carried.values[8, 1].sum()) > 0.5 * float(truth[8, 1].sum())) == bool(thin)


def test_an_organ_is_followed_as_it_moves() -> None:
    """Features and organ wander together by half a cell a slice."""
    wander = torch.tensor([0.0, 5.0, -2.5])
    scan = encoded_of(scan_of(random_field(), SIZE, lambda mm: mm * torch.tensor([0.0, 1, 1]) + mm[:, :1] / 8.0 * wander))
    masks = torch.stack([ball((1, 16, 16), (0.0, 10.0 - 0.5 * z, 6.0 + 0.25 * z), 3.0)[0] for z in range(9)]).float()
    truth = fractions(masks)
    carried = complete(scan, {4: truth[4]}, CONFIG)
    for z in range(9):
        assert dice(carried.values[z].argmax(0) == 1, truth[z].argmax(0) == 1) > 0.85


def test_it_stops_where_nothing_looks_like_the_organ() -> None:
    """From slice 6 on the organ's tissue is gone; its surroundings are still there."""
    scan = alike()
    organ = block(1)[0, ::8, ::8].bool()
    elsewhere = alike().features[0][:, 0, 0]  # a cell of the background
    scan.features[6:, :, organ] = elsewhere[None, :, None]
    truth = fractions(block(9))
    found = complete(scan, {3: truth[3]}, CONFIG).values.argmax(1).bool()
    assert torch.equal(found[:6], truth[:6].argmax(1).bool())
    assert not found[6:].any()


def test_the_nearer_of_two_drawings_has_the_say() -> None:
    one, other = block(9), torch.zeros(9, 128, 128)
    other[:, 40:80, 96:120] = 1
    carried = complete(alike(), {0: fractions(one)[0], 8: fractions(other)[8]}, CONFIG)
    found = carried.values.argmax(1)
    assert torch.equal(found[:4], fractions(one).argmax(1)[:4])
    assert torch.equal(found[5:], fractions(other).argmax(1)[5:])


def test_several_organs_are_carried_together() -> None:
    values = torch.zeros(3, 16, 16)
    values[1, 3:6, 3:6], values[2, 3:6, 6:9] = 1, 1
    values[0] = 1 - values.sum(0)
    carried = complete(alike(), {4: values}, CONFIG)
    assert torch.equal(carried.values.argmax(1), values.argmax(0).expand(9, -1, -1))


def test_what_is_drawn_as_another_organ_is_not_taken() -> None:
    """One organ is drawn on slice 2; on slice 6 half of its place is known to be another organ's."""
    truth, other = fractions(block(9)), torch.zeros(16, 16)
    other[5:10, 9:12] = 1
    carried = complete(alike(), {2: truth[2]}, CONFIG, others={6: other})
    found = carried.values.argmax(1).bool()
    assert torch.equal(found[3], truth[3].argmax(0).bool())
    assert torch.equal(found[6], truth[6].argmax(0).bool() & ~other.bool())


def test_where_nothing_is_known_another_drawing_says_nothing() -> None:
    truth = fractions(block(9))
    alone = complete(alike(), {2: truth[2]}, CONFIG).values
    with_nothing = complete(alike(), {2: truth[2]}, CONFIG, others={6: torch.zeros(16, 16)}).values
    torch.testing.assert_close(with_nothing, alone, rtol=0, atol=1e-4)


def test_where_every_slice_is_drawn_nothing_is_left_to_do() -> None:
    truth = fractions(ball(SIZE, (4.0, 8.0, 8.0), 4.0).float())
    carried = complete(encoded_of(scan_of(random_field(), SIZE)), {z: truth[z] for z in range(9)}, CONFIG)
    assert torch.equal(carried.values, truth)


# ---------------------------------------------------------------------------------------------- order
def looks(monkeypatch: pytest.MonkeyPatch, scan: EncodedScan, drawn: list[int]) -> list[tuple[int, list[int]]]:
    """Which slice is taken when, and which slices it looks at."""
    seen: list[tuple[int, list[int]]] = []

    def look(scan: EncodedScan, i: int, keys: list[same_scan._Key], *rest: object) -> tuple[Tensor, Tensor]:
        seen.append((i, [key.index for key in keys]))
        return torch.zeros(2, 16, 16), torch.ones(16, 16)

    monkeypatch.setattr(same_scan, "_look", look)
    complete(scan, {z: fractions(block(1))[0] for z in drawn}, CONFIG)
    return seen


def test_the_nearest_slices_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    order = [i for i, _ in looks(monkeypatch, alike(), [2, 7])]
    assert sorted(order) == [0, 1, 3, 4, 5, 6, 8]
    distance = [min(abs(i - 2), abs(i - 7)) for i in order]
    assert distance == sorted(distance)


def test_distance_is_in_mm_not_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    order = [i for i, _ in looks(monkeypatch, alike(4, [0, 6, 7, 8]), [6])]
    assert order == [2, 3, 0]


def test_a_slice_looks_at_the_drawn_and_at_the_two_nearest_finished_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = dict(looks(monkeypatch, alike(), [4]))
    assert seen[3] == [4] and seen[5] == [3, 4]  # 3 was the first to be finished, and 4 is drawn
    assert seen[2] == [3, 4] and seen[6] == [5, 4]
    assert seen[1] == [2, 3, 4] and seen[0] == [1, 2, 4]
    assert seen[8] == [7, 6, 4]


def test_every_slice_is_reported() -> None:
    parts: list[float] = []
    complete(alike(), {4: fractions(block(1))[0]}, CONFIG, parts.append)
    np.testing.assert_allclose(parts, np.arange(1, 9) / 8)


# ---------------------------------------------------------------------------------------------- hardening
def test_hardened_fractions_are_those_of_the_winners() -> None:
    scores = torch.rand(3, 6, 5, generator=torch.Generator().manual_seed(0))
    hard = harden(scores)
    winner = F.interpolate(scores[None], scale_factor=8, mode="bilinear")[0].argmax(0)
    torch.testing.assert_close(hard, torch.stack([cell_fractions(winner == v) for v in range(3)]))
    torch.testing.assert_close(hard.sum(0), torch.ones(6, 5))


def test_whole_cells_stay_what_they_are() -> None:
    scores = torch.zeros(2, 8, 8)
    scores[1, 2:6, 2:6] = 1
    scores[0] = 1 - scores[1]
    assert torch.equal(harden(scores).argmax(0), scores.argmax(0))
    assert torch.equal(harden(scores)[1, 3:5, 3:5], torch.ones(2, 2))


# ---------------------------------------------------------------------------------------------- where an organ ends
def test_what_is_not_trusted_is_background() -> None:
    truth, trust = fractions(block(9)), torch.ones(9, 1)
    trust[7:] = 0.25
    found = complete(alike(), {3: truth[3]}, CONFIG, thin=[0], trust=trust).values
    torch.testing.assert_close(found.sum(1), torch.ones(SIZE))
    assert torch.equal(found.argmax(1)[:7], truth.argmax(1)[:7]) and not found.argmax(1)[7:].any()


@pytest.mark.parametrize("doubt", [True, False])
def test_an_organ_ends_where_its_place_holds_what_resembles_its_surroundings(doubt: bool) -> None:
    """Beyond slice 5 another tissue lies in the organ's place, a little more like what is far from it than like the organ."""
    organ, around, beyond = torch.eye(3)
    beyond = F.normalize(0.55 * organ + 0.6 * around + 0.58 * beyond, dim=0)
    inside = torch.zeros(9, 16, 16, dtype=torch.bool)
    inside[:, 4:12, 4:12] = True
    features = torch.where(inside[:, None], organ[:, None, None], around[:, None, None].expand(9, 3, 1, 1))
    features[6:] = torch.where(inside[6:, None], beyond[:, None, None], features[6:])
    scan = replace(alike(), features=features)
    truth = torch.stack([~inside, inside], 1).float()
    found = complete(scan, {3: truth[3]}, replace(CONFIG, doubt=doubt)).values.argmax(1).bool()
    assert torch.equal(found[:6], inside[:6])
    assert bool(found[6:].any()) != doubt


def test_between_drawn_slices_an_organ_goes_on_whatever_it_resembles() -> None:
    organ, around, strange = torch.eye(3)
    strange = F.normalize(0.58 * organ + 0.6 * around + 0.55 * strange, dim=0)
    inside = torch.zeros(9, 16, 16, dtype=torch.bool)
    inside[:, 4:12, 4:12] = True
    features = torch.where(inside[:, None], organ[:, None, None], around[:, None, None].expand(9, 3, 1, 1))
    features[4] = torch.where(inside[4], strange[:, None, None], features[4])
    truth = torch.stack([~inside, inside], 1).float()
    scan = replace(alike(), features=features)
    doubted, believed = (complete(scan, {1: truth[1], 7: truth[7]}, replace(CONFIG, doubt=d)).values for d in (True, False))
    assert torch.equal(doubted[1:8], believed[1:8]) and believed[4].argmax(0)[7, 7] == 1
    alone = complete(scan, {1: truth[1]}, CONFIG).values
    assert alone[4].argmax(0)[7, 7] == 0
