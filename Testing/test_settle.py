"""Labels settle among the query's own cells."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.correspondence import ScanFeatures
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.match import MatchConfig
from FewShotSegLib.strategies.settle import CLEARED, _without_losses, settle


def two_kinds() -> tuple[ScanFeatures, Tensor]:
    """4 slices of 12 x 12 cells: a block of one kind amid another, and how much of the block each cell is (n, h, w)."""
    block = torch.zeros(4, 12, 12)
    block[:, 3:9, 3:9] = 1
    noise = torch.randn(4, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    kind = torch.stack([block, 1 - block], 1)
    features = F.normalize(torch.cat([4 * kind, noise], 1), dim=1)
    return ScanFeatures(features, torch.ones(4, 12, 12), 5.0, 10.0), block


def carried(block: Tensor) -> Tensor:
    """Fractions (n, 2, h, w) of background and block, with a hole in the block and a false piece beside it."""
    organ = 0.7 * block + 0.1
    organ[1, 5, 5] = 0.2
    organ[2, 4, 10] = 0.7
    return torch.stack([1 - organ, organ], 1)


def test_cells_that_look_alike_agree_after_it() -> None:
    query, block = two_kinds()
    before = carried(block)
    after = settle(query, before, MatchConfig())
    assert not torch.equal(before.argmax(1), block.long()), "what was carried is wrong in two cells"
    assert torch.equal(after.argmax(1), block.long())
    assert torch.allclose(after.sum(1), torch.ones(()), atol=1e-5)


def test_more_passes_make_it_surer_and_none_changes_nothing() -> None:
    query, block = two_kinds()
    before = carried(block)
    assert torch.equal(settle(query, before, MatchConfig(settle_passes=0)), before)
    one, two = (settle(query, before, MatchConfig(settle_passes=k))[:, 1][block.bool()].mean() for k in (1, 2))
    assert two > one > before[:, 1][block.bool()].mean()


def test_thin_organs_keep_what_they_have() -> None:
    query, block = two_kinds()
    thin = torch.zeros(4, 12, 12)
    thin[:, 6, 3:9] = 0.3  # alone, it would be outvoted
    before = carried(block)
    before = torch.cat([before * (1 - thin[:, None]), thin[:, None]], 1)
    after = settle(query, before, MatchConfig(), thin=(1,))
    assert torch.equal(after[:, 2], thin)
    assert torch.allclose(after.sum(1), torch.ones(()), atol=1e-5)
    outvoted = settle(query, before, MatchConfig())
    assert outvoted[:, 2].sum() < 0.8 * thin.sum()


def test_far_from_organs_and_outside_the_body_nothing_is_touched() -> None:
    query, block = two_kinds()
    body = torch.ones_like(block)
    body[:, :, 9:] = 0
    before = carried(block)
    after = settle(replace(query, body=body), before, MatchConfig())
    assert torch.equal(after[..., 9:], before[..., 9:])
    empty = torch.stack([torch.ones_like(block), torch.zeros_like(block)], 1)
    assert torch.equal(settle(query, empty, MatchConfig()), empty)


@pytest.mark.parametrize("options", [{"settle_passes": -1}, {"settle_temperature": 0.0}, {"settle_temperature": float("nan")}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="passes from 0"):
        MatchConfig(**options)  # type: ignore[arg-type]


def test_an_island_is_cleared_where_there_should_be_one_piece() -> None:
    query, block = two_kinds()
    block = block.clone()
    block[:, 0:2, 0:2] = 1  # looks like the organ
    features = query.features.clone()
    features[:, :, 0:2, 0:2] = features[:, :, 5:7, 5:7]
    query, before = replace(query, features=features), carried(block)
    island = (slice(None), slice(0, 2), slice(0, 2))
    config = MatchConfig(settle_passes=CLEARED[0] + 1)
    found = {count: settle(query, before, config, pieces=(count,)).argmax(1) for count in (1, 2)}
    assert not found[1][island].any() and found[1][:, 4:8, 4:8].all()
    assert found[2][island].all()


def test_what_somebody_drew_stays() -> None:
    query, block = two_kinds()
    before, drawn = carried(block), torch.zeros(4, 2, dtype=torch.bool)
    drawn[1] = True  # with its hole
    after = settle(query, before, MatchConfig(), drawn=drawn)
    assert torch.equal(after[1], before[1]) and not torch.equal(after[0], before[0])


def test_cells_beside_thin_organs_stay_too() -> None:
    query, block = two_kinds()
    thin = torch.zeros(4, 12, 12)
    thin[:, 5, 3:9] = 0.3
    before = carried(block)
    before = torch.cat([before * (1 - thin[:, None]), thin[:, None]], 1)
    after = settle(query, before, MatchConfig(), thin=(1,))
    assert torch.equal(after[:, :, 3:8, 3:9], before[:, :, 3:8, 3:9])
    assert not torch.equal(after, before)


def test_what_nothing_sets_apart_is_not_wiped_out() -> None:
    """One cell amid others of its look is outvoted; no organ is left without any cell."""
    query, block = two_kinds()
    organ = torch.zeros(4, 12, 12)
    organ[1:3, 5, 5] = 0.9
    before = torch.stack([1 - organ, organ], 1)
    after = settle(query, before, MatchConfig())
    assert torch.equal(after.argmax(1), before.argmax(1))


@pytest.mark.parametrize("chosen", [True, False])
def test_only_the_piece_that_would_be_kept_tells_whether_an_organ_was_wiped_out(chosen: bool) -> None:
    """Of a piece of four cells and one of sixteen, settling leaves one cell each; given back is the one with the votes."""
    before, after, votes = torch.zeros(1, 12, 12), torch.zeros(1, 12, 12), torch.zeros(1, 1, 12, 12)
    before[0, 1:3, 1:3] = before[0, 6:10, 6:10] = 0.9
    after[0, 1, 1] = after[0, 6, 6] = 0.9
    votes[:, :, 1, 1] = float(chosen)
    votes[:, :, 6, 6] = float(not chosen)
    given = _without_losses(torch.stack([1 - after, after], 1), torch.stack([1 - before, before], 1), [1], votes)
    found = given[0, 1] > 0.5
    assert bool(found[1:3, 1:3].all()) == chosen and bool(found[6:10, 6:10].all()) != chosen
    assert found.sum() == (5 if chosen else 17)


def test_a_piece_that_is_cleared_with_good_reason_is_not_given_back() -> None:
    """The larger piece is gone, the one with the votes has half of its cells left."""
    before, after, votes = torch.zeros(1, 12, 12), torch.zeros(1, 12, 12), torch.zeros(1, 1, 12, 12)
    before[0, 1:3, 1:3] = before[0, 6:10, 6:10] = 0.9
    after[0, 1, 1:3] = 0.9
    votes[0, 0, 1, 1] = 1
    left = torch.stack([1 - after, after], 1)
    assert torch.equal(_without_losses(left, torch.stack([1 - before, before], 1), [1], votes), left)
