from __future__ import annotations

import torch

from FewShotSegLib.regions import (
    cut,
    farthest_points,
    middle_cell,
    organ_cells,
    regional_prototypes,
    touched_cells,
    voronoi,
)


def box(rows: slice, columns: slice, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    mask = torch.zeros(size)
    mask[rows, columns] = 1
    return mask


def test_cells_half_covered_or_more_belong_to_the_organ() -> None:
    cells = organ_cells(box(slice(8, 28), slice(16, 35)), (8, 8))  # the 4th row of cells is half covered, column 4 is not
    assert cells.nonzero().tolist() == [[r, c] for r in (1, 2, 3) for c in (2, 3)]


def test_an_organ_smaller_than_half_a_cell_still_has_one() -> None:
    assert organ_cells(box(slice(20, 22), slice(41, 42)), (8, 8)).nonzero().tolist() == [[2, 5]]


def test_an_empty_mask_has_no_cells_and_no_regions() -> None:
    cells = organ_cells(torch.zeros(64, 64), (8, 8))
    assert not cells.any()
    assert (cut(cells, 5) == -1).all()


def test_cells_of_a_map_that_does_not_divide_the_image() -> None:
    cells = organ_cells(box(slice(30, 50), slice(0, 90), (50, 90)), (7, 13))
    assert cells[5:].all() and not cells[:4].any()


def test_the_published_choice_takes_every_touched_cell_and_fills_up_from_the_top() -> None:
    mask = box(slice(11, 13), slice(19, 21))  # the middle of one cell of 8 x 8
    assert touched_cells(mask, (8, 8), at_least=1).nonzero().tolist() == [[1, 2]]
    filled = touched_cells(mask, (8, 8), at_least=3)
    assert filled.flatten().nonzero().flatten().tolist() == [0, 1, 2, 10]


def test_farthest_points_on_a_line() -> None:
    line = torch.stack([torch.zeros(9, dtype=torch.int64), torch.arange(9)], 1)
    assert farthest_points(line, 4, first=0).tolist() == [0, 8, 4, 2]
    assert farthest_points(line[:2], 3, first=1).tolist() == [1, 0, 0]


def test_the_middle_cell_is_nearest_to_the_centre() -> None:
    assert middle_cell(torch.tensor([[0, 0], [0, 1], [0, 2], [0, 7]])) == 2


def test_voronoi_ties_go_to_the_first_seed_and_the_outside_to_nobody() -> None:
    cells = torch.tensor([[True, True, True, True, True, False]])
    assert voronoi(cells, torch.tensor([[0, 4], [0, 0]])).tolist() == [[1, 1, 0, 0, 0, -1]]


def test_fewer_cells_than_regions_are_regions_of_one_cell() -> None:
    cells = torch.zeros(4, 5, dtype=torch.bool)
    cells[1, 2] = cells[3, 0] = cells[0, 4] = True
    assert sorted(cut(cells, 10)[cells].tolist()) == [0, 1, 2]


def test_regions_cover_the_organ_once_and_are_the_same_every_time() -> None:
    cells = torch.ones(9, 13, dtype=torch.bool)
    regions = cut(cells, 10)
    assert regions.unique().tolist() == list(range(10))
    assert torch.equal(regions, cut(cells, 10))


def test_prototypes_are_plain_means() -> None:
    features = torch.arange(12.0).reshape(2, 2, 3)
    regions = torch.tensor([[0, 0, 1], [-1, 1, 0]])
    expected = torch.tensor([[(0 + 1 + 5) / 3, (6 + 7 + 11) / 3], [(2 + 4) / 2, (8 + 10) / 2]])
    torch.testing.assert_close(regional_prototypes(features, regions), expected)
