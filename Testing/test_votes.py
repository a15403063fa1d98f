"""The support's cells choose which piece of an organ is the organ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from smooth_scans import random_field, scan_of

from FewShotSegLib.correspondence import ScanFeatures
from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.grid import AxialGrid
from FewShotSegLib.methods.match import MatchConfig
from FewShotSegLib.pieces import keep_largest
from FewShotSegLib.segmenter import _votes_for
from FewShotSegLib.strategies.settle import settle
from FewShotSegLib.strategies.votes import BY_SIZE, count_votes

SIZE = (6, 16, 16)
ORGAN, LARGER = (slice(1, 5), slice(1, 6), slice(1, 6)), (slice(1, 5), slice(8, 15), slice(8, 15))


def scan() -> ScanFeatures:
    return scan_of(random_field(), SIZE)


def values(*boxes: tuple[slice, ...], strength: float = 1.0) -> torch.Tensor:
    """Background and one organ (n, 2, h, w)."""
    organ = torch.zeros(SIZE)
    for box in boxes:
        organ[box] = strength
    return torch.stack([1 - organ, organ], 1)


def test_the_organ_finds_itself_beside_a_larger_piece() -> None:
    query = scan()
    votes = count_votes(query, [(query, values(ORGAN))], values(ORGAN, LARGER, strength=0.8))
    assert votes.shape == (6, 1, 16, 16)
    assert votes[:, 0][ORGAN].sum() > 0.99 and votes[:, 0][LARGER].sum() < BY_SIZE
    assert float(votes.sum()) == pytest.approx(1 + BY_SIZE, rel=1e-3)


def test_only_cells_to_which_some_was_carried_are_chosen() -> None:
    query = scan()
    votes = count_votes(query, [(query, values(ORGAN))], values(LARGER, strength=0.8))
    assert votes[:, 0][ORGAN].sum() == 0 and float(votes[:, 0][LARGER].sum()) == pytest.approx(1 + BY_SIZE, rel=1e-3)
    assert not count_votes(query, [(query, values(ORGAN))], values()).any()


def test_supports_share_the_votes_and_one_without_the_organ_gives_its_own_to_nobody() -> None:
    query = scan()
    votes = count_votes(query, [(query, values(ORGAN)), (query, values(LARGER))], values(ORGAN, LARGER, strength=0.8))
    assert float(votes[:, 0][ORGAN].sum()) == pytest.approx(0.5, abs=1e-3)
    alone = count_votes(query, [(query, values(ORGAN)), (query, values())], values(ORGAN, LARGER, strength=0.8))
    assert float(alone.sum()) == pytest.approx(0.5, abs=2e-3)


def test_settling_clears_the_larger_piece_when_nobody_voted_for_it() -> None:
    query, carried = scan(), values(ORGAN, LARGER, strength=0.8)
    votes = count_votes(query, [(query, values(ORGAN))], carried)
    by_size = settle(query, carried, MatchConfig(), pieces=[1]).argmax(1)
    by_votes = settle(query, carried, MatchConfig(), pieces=[1], votes=votes).argmax(1)
    assert by_size[LARGER].any() and not by_size[ORGAN].any()
    assert by_votes[ORGAN].any() and by_votes[LARGER].sum() < 0.1 * by_size[LARGER].sum()


def test_of_labels_on_voxels_the_piece_with_the_votes_is_kept() -> None:
    """Voxels half as wide as the grid's pixels, every second slice encoded; without votes, the larger piece."""
    grid = AxialGrid.of(Geometry((256, 256, 6), (1, 1, 5)), pixel_mm=2.0)
    assert grid.shape == (6, 128, 128)
    encoded = EncodedScan(grid, np.array([0, 2, 4]), torch.zeros(3, 4, 16, 16), torch.ones(3, 16, 16))
    index = np.zeros((6, 256, 256), np.uint8)
    index[2:4, 48:96, 48:96] = index[1:5, 128:224, 128:224] = 1
    by_size, by_votes, by_nobody = index.copy(), index.copy(), index.copy()
    votes = torch.zeros(3, 1, 16, 16)
    votes[1, 0, 3:6, 3:6] = 0.1
    keep_largest(by_size, [1])
    keep_largest(by_votes, [1], lambda organ, pieces: _votes_for(encoded, votes, organ, pieces))
    keep_largest(by_nobody, [1], lambda organ, pieces: _votes_for(encoded, 0 * votes, organ, pieces))
    assert by_size.sum() == by_nobody.sum() == 4 * 96 * 96 and by_votes.sum() == 2 * 48 * 48
    assert by_votes[2, 60, 60] == 1
