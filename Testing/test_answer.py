"""From encoded supports and an encoded query to scores, whatever the method, the strategy and the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
import torch
from smooth_scans import ball, dice, encoded_of, random_field, scan_of
from torch import Tensor

from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import cell_fractions
from FewShotSegLib.methods import create_method
from FewShotSegLib.methods.match import Match, MatchConfig
from FewShotSegLib.strategies import Task, answer
from FewShotSegLib.strategies.answer import completed
from FewShotSegLib.strategies.heads import OUTSIDE, HeadTask
from FewShotSegLib.strategies.same_scan import filled

MODULE = import_module("FewShotSegLib.strategies.answer")
SIZE = (8, 16, 16)
FIELD = random_field()
ORGANS = torch.stack([ball(SIZE, (3.5, 6.0, 5.0), 3.0), ball(SIZE, (4.0, 9.0, 11.0), 2.5)])
QUERY = encoded_of(scan_of(FIELD, SIZE))  # so that the support's drawing is also the truth
CELLS = cell_fractions(ORGANS) > 0.5
MATCH = Match(MatchConfig(temperature=80.0))


def support(*drawn: list[int], seed: int = 0) -> EncodedSupport:
    """Both organs, each drawn on these slices; without any, on all."""
    rows = np.zeros((2, SIZE[0]), bool)
    for row, slices in zip(rows, drawn or (range(SIZE[0]),) * 2, strict=True):
        row[list(slices)] = True
    masks = ORGANS.half() * torch.from_numpy(rows)[:, :, None, None]
    return EncodedSupport(encoded_of(scan_of(random_field(seed), SIZE)), masks, rows)


def task(*supports: EncodedSupport, told: Mapping[int, tuple[int, int]] | None = None, same: bool = False) -> Task:
    return Task(supports or (support(),), QUERY, told or {}, same)


def overlap(scores: Tensor, organ: int) -> float:
    return dice(scores.argmax(1) == organ + 1, CELLS[organ])


# ---------------------------------------------------------------------------------------------- filling a drawing
def test_a_whole_drawing_is_its_own_answer() -> None:
    found = filled(support(), MATCH.config, lambda part: None)
    torch.testing.assert_close(found.values, support().values([0, 1]))
    assert (found.best == 1).all()


def test_a_sparse_drawing_is_completed_and_kept_where_it_was_drawn() -> None:
    given = support([2, 5], [2, 5])
    found = filled(given, MATCH.config, lambda part: None)
    torch.testing.assert_close(found.values[[2, 5]], given.values([0, 1])[[2, 5]])
    assert min(overlap(found.values, organ) for organ in (0, 1)) > 0.6
    assert found.values.shape == (8, 3, 16, 16)


def test_organs_drawn_on_slices_of_their_own_are_completed_apart() -> None:
    given, parts = support([3], [4, 5]), []
    found = filled(given, MATCH.config, parts.append)
    fractions = given.values([0, 1])
    torch.testing.assert_close(found.values[3, 1], fractions[3, 1])
    torch.testing.assert_close(found.values[4:6, 2], fractions[4:6, 2])
    assert (found.values[3, 2] > 0.5).any()  # the second organ was not drawn there, and is there
    assert parts == sorted(parts) and parts[-1] == 1.0


def test_what_was_drawn_as_one_organ_is_not_carried_as_another() -> None:
    """The first organ's drawing on slice 3 covers what looks like the second one, as drawn on slice 5, and keeps it."""
    given = support([3], [5])
    given.masks[1] = 0
    given.masks[1, 5] = given.masks[0, 3]
    values = filled(given, MATCH.config, lambda part: None).values
    assert values[3, 2].max() < 0.5
    given.masks[0] = 0
    assert filled(given, MATCH.config, lambda part: None).values[3, 2].max() > 0.5


def test_an_organ_drawn_everywhere_stays_beside_a_sparse_one() -> None:
    given = support(list(range(8)), [4])
    found = filled(given, MATCH.config, lambda part: None)
    torch.testing.assert_close(found.values[:, 1], given.values([0])[:, 1])


def test_a_support_is_completed_once_for_all_scans_it_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, work = [], MODULE.filled
    monkeypatch.setattr(MODULE, "filled", lambda *given: asked.append(given[1]) or work(*given))
    given, parts = support([2, 5], [3]), []
    first = completed(given, MATCH, None, parts.append)
    assert completed(given, MATCH) is first and asked == [MATCH.config] and parts[-1] == 1
    sharper = Match(replace(MATCH.config, temperature=20.0))
    assert not torch.equal(completed(given, sharper), first) and asked == [MATCH.config, sharper.config]


def test_a_completed_support_holds_what_was_drawn_and_whole_organs_elsewhere() -> None:
    given, drawn = support([2, 5], [3]), support().values([0, 1])
    values = completed(given, MATCH)
    torch.testing.assert_close(values[[2, 5], 1], drawn[[2, 5], 1])
    torch.testing.assert_close(values[3, 2], drawn[3, 2])
    assert values.shape == drawn.shape and values.min() >= 0
    pixels = (given.scan.grid.shape[1] // values.shape[2]) ** 2
    torch.testing.assert_close(values * pixels, (values * pixels).round(), atol=0.02, rtol=0)
    assert torch.equal(completed(support(), MATCH), drawn), "of a support drawn everywhere, nothing is found anew"


def test_pieces_that_no_drawing_touches_teach_nothing() -> None:
    given = support([2, 5], [2, 5])
    index = np.zeros(given.masks.shape[1:], np.uint8)
    index[2:6, 40:60, 40:60], index[4, 100:110, 100:110] = 1, 1
    given.masks[0] = 0
    given.masks[0, [2, 5], 40:60, 40:60] = 1
    found = MODULE._with_drawings(index, given)[:, 1]
    assert found[4, 5:8, 5:8].min() > 0 and not found[4, 12:].any()
    torch.testing.assert_close(found[[2, 5]], cell_fractions(given.masks[0, [2, 5]].float()))


# ---------------------------------------------------------------------------------------------- match
def test_match_answers_with_fractions() -> None:
    found = answer(MATCH, "auto", task())
    assert not found.margins and found.scores is found.carried.values
    assert min(overlap(found.scores, organ) for organ in (0, 1)) > 0.9


def test_in_the_same_scan_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Match, "carry", lambda *args: pytest.fail("registered"))
    found = answer(MATCH, "auto", task(support([2, 5], [2, 5]), same=True))
    assert torch.equal(found.scores, filled(support([2, 5], [2, 5]), MATCH.config, lambda part: None).values)


def test_a_sparse_drawing_serves_a_new_scan() -> None:
    assert overlap(answer(MATCH, "auto", task(support([3], [3]))).scores, 0) > 0.6


def test_several_supports_answer_together() -> None:
    """The second support is of another body: the first, which is like the query, has the say."""
    parts: list[float] = []
    found = answer(MATCH, "auto", task(support(), support(seed=5)), parts.append)
    assert min(overlap(found.scores, organ) for organ in (0, 1)) > 0.9
    assert parts == sorted(parts)


# ---------------------------------------------------------------------------------------------- prototype heads
@pytest.mark.parametrize("name", ["alpnet", "visa"])
def test_heads_answer_with_margins_over_background(name: str) -> None:
    found = answer(create_method(name), "auto", task())
    assert found.margins and found.scores.shape == (8, 3, 16, 16)
    assert (found.scores[:, 0] == 0).all()
    assert (found.scores[:, 1:] > 0).any()


@pytest.fixture()
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, HeadTask]]:
    """Which strategy was asked with which task; the answers are zero."""
    calls: list[tuple[str, HeadTask]] = []

    def recorder(name: str) -> Callable[[object, HeadTask], Tensor]:
        def ask(method: object, given: HeadTask) -> Tensor:
            calls.append((name, given))
            return torch.zeros(8, 16, 16)

        return ask

    for name in ("direct", "propagate"):
        monkeypatch.setattr(MODULE, name, recorder(name))
    return calls


@pytest.mark.parametrize(
    ("method", "strategy", "expected"),
    [
        ("alpnet", "auto", "direct"),
        ("visa", "auto", "propagate"),
        ("visa", "direct", "direct"),
        ("alpnet", "propagate", "propagate"),
    ],
)
def test_the_strategy_is_the_wanted_or_the_methods_own(
    asked: list[tuple[str, HeadTask]], method: str, strategy: str, expected: str
) -> None:
    answer(create_method(method), strategy, task())
    assert [name for name, _ in asked] == [expected] * 2


def test_match_tells_a_head_where_to_look(asked: list[tuple[str, HeadTask]]) -> None:
    answer(create_method("alpnet"), "auto", task())
    for organ, (_, given) in enumerate(asked):
        shown = CELLS[organ].flatten(1).any(1).nonzero()
        assert abs(given.extent[0] - int(shown[0])) <= 1 and abs(given.extent[1] - int(shown[-1])) <= 1
        assert given.allowed is not None and given.allowed[CELLS[organ]].float().mean() > 0.95
        assert given.allowed.float().mean() < 0.5


def test_match_tells_where_to_look_within_a_told_extent(asked: list[tuple[str, HeadTask]]) -> None:
    answer(create_method("alpnet"), "auto", task(told={1: (0, 7)}))
    given = asked[1][1]
    assert given.extent == (0, 7) and given.allowed is not None
    assert given.allowed.flatten(1).any(1)[:8].all() and given.allowed[:8].float().mean() < 0.5


@pytest.mark.parametrize(("options", "place"), [({}, False), ({"faithful": True}, True)])
def test_a_told_extent_is_all_that_a_published_method_knows(
    asked: list[tuple[str, HeadTask]], options: dict[str, bool], place: bool
) -> None:
    answer(create_method("alpnet", **options), "auto", replace(task(told={1: (0, 7)}), place=place))
    assert asked[0][1].allowed is not None
    assert asked[1][1].extent == (0, 7) and asked[1][1].allowed is None


def test_only_drawn_slices_teach(asked: list[tuple[str, HeadTask]]) -> None:
    given = support([2, 5], [3])
    answer(create_method("alpnet"), "auto", task(given, same=True))
    first, second = (t for _, t in asked)
    assert torch.equal(first.shots[0].masks, given.masks[0][[2, 5]].float())
    assert torch.equal(second.shots[0].features, given.scan.features[[3]])


def test_an_organ_that_match_does_not_see_is_nowhere(asked: list[tuple[str, HeadTask]]) -> None:
    given = support()
    given.masks[1] = 0
    found = answer(create_method("alpnet"), "auto", task(given))
    assert (found.scores[:, 2] == OUTSIDE).all()
    assert len(asked) == 1
