"""Whether an organ goes on to where it was carried."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from smooth_scans import encoded_of, random_field, scan_of
from torch.nn import functional as F

from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.strategies.doubt import DOUBT, Resemblance, trust_beyond


# ---------------------------------------------------------------------------------------------- slices that are spread
def spread_support(drawn: list[int], width: int) -> EncodedSupport:
    """Eleven slices, 8 mm apart; a square organ, `width` pixels of 1.25 mm, on the drawn ones."""
    scan = encoded_of(scan_of(random_field(), (11, 16, 16)))
    masks = torch.zeros(1, 11, 128, 128, dtype=torch.float16)
    masks[0, drawn, 20 : 20 + width, 20 : 20 + width] = 1
    known = np.zeros((1, 11), bool)
    known[0, drawn] = True
    return EncodedSupport(scan, masks, known)


@pytest.mark.parametrize(
    ("drawn", "width", "doubted"),
    [([3, 5, 7], 36, True), ([3, 5, 7], 60, False), ([4, 5, 6], 10, False), ([3, 7], 10, False), ([5], 10, False)],
    ids=["spread", "close together for a wide organ", "close together in the scan", "two", "one"],
)
def test_an_organ_is_doubted_beyond_slices_that_are_spread_over_it(drawn: list[int], width: int, doubted: bool) -> None:
    support = spread_support(drawn, width)
    assert support.scan.grid.slice_mm * 4 >= 0.25 * support.scan.z_mm[-1]
    trust = trust_beyond(support, [0], np.array(drawn))[:, 0]
    assert trust.shape == (11,) and (trust[2:9] == 1).all()
    assert bool((trust < 1).any()) == doubted
    if doubted:
        assert torch.allclose(trust[[0, 1, 9, 10]], torch.tensor(DOUBT)) and 0 < DOUBT < 1


# ---------------------------------------------------------------------------------------------- what cells resemble
ORGAN, BESIDE = torch.eye(4)[:2]


def resemblance(
    organ: float = 1.0, beside: float = 1.0, thin: tuple[int, ...] = (), others: bool = False, far: float = 0.0
) -> Resemblance:
    """Two slices of 1 x 4 cells; the first is drawn: organ, background, and two cells of nothing in particular.

    On the second, cells are like the organ, like the background, like both, and like neither.
    """
    rows = torch.stack(
        [torch.stack([ORGAN, BESIDE, *torch.eye(4)[2:]]), torch.stack([ORGAN, BESIDE, ORGAN + BESIDE, torch.eye(4)[2]])]
    )
    features = F.normalize(rows, dim=2).permute(0, 2, 1)[:, :, None]
    drawn = torch.tensor([[1 - organ, beside, 0.5, 0.5], [organ, 1 - beside, 0.4, 0.4]])[:, None]
    known = {1: torch.tensor([[1.0, 0.0, 0.0, 0.0]])} if others else {}
    return Resemblance(features, torch.tensor([[0.0, far], [far, 0.0]]), {0: drawn}, known, 40.0, thin)


def values(first: float = 0.8) -> torch.Tensor:
    """Fractions (2, 1, 4) that were carried to the second slice."""
    organ = torch.tensor([first, 0.8, 0.8, 0.8])
    return torch.stack([1 - organ, organ])[:, None]


def test_a_cell_is_believed_if_it_resembles_the_organ_more_than_what_lies_beside_it() -> None:
    trust = resemblance().trust(1, values())
    assert trust.shape == (1, 1, 4)
    torch.testing.assert_close(trust[0, 0], torch.tensor([1.0, 0.0, 0.5, 0.5]), atol=1e-6, rtol=0)


def test_where_the_organ_was_not_carried_nothing_is_asked() -> None:
    assert resemblance().trust(1, values(first=0.01))[0, 0, 0] == 1
    torch.testing.assert_close(resemblance(thin=(0,)).trust(1, values()), torch.ones(1, 1, 4))


@pytest.mark.parametrize("missing", ["organ", "beside"])
def test_nothing_is_doubted_where_no_drawn_cell_stands_for_either(missing: str) -> None:
    judge = resemblance(organ=0.3) if missing == "organ" else resemblance(beside=0.8)
    torch.testing.assert_close(judge.trust(1, values()), torch.ones(1, 1, 4))


def test_what_is_drawn_as_another_organ_counts_as_lying_beside() -> None:
    """The first cell of the second slice is known to be another organ there, though it looks like this one."""
    assert resemblance(others=True).trust(1, values())[0, 0, 0] == pytest.approx(0.5, abs=1e-6)


def test_of_equal_drawings_the_nearer_one_has_the_say() -> None:
    assert resemblance(others=True, far=4.0).trust(1, values())[0, 0, 0] == pytest.approx(float(torch.tensor(-4.0).sigmoid()))
