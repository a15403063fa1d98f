from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FewShotSegLib.errors import SupportError
from FewShotSegLib.strategies.chunks import chunk_centres, chunk_of, pick_slices

ROUNDED_DOWN = {5, 7, 10, 14, 17, 20, 23, 25, 28, 31, 34, 37, 40, 43, 46, 50, 53, 56, 59, 62, 65, 68, 71, 74, 77}


def test_centres() -> None:
    assert chunk_centres(3) == pytest.approx((1 / 6, 1 / 2, 5 / 6))
    assert chunk_centres(1) == (0.5,)


def test_support_slices_of_a_list_with_gaps() -> None:
    assert pick_slices([3, 4, 5, 9, 10, 11]) == (4, 9, 11)
    assert pick_slices([7]) == (7, 7, 7)


def test_no_slice_is_an_error() -> None:
    with pytest.raises(SupportError, match="No slice"):
        pick_slices([])


@given(st.lists(st.integers(0, 500), min_size=1, unique=True).map(sorted), st.integers(1, 7))
def test_picked_slices_are_in_order_and_from_the_list(slices: list[int], chunks: int) -> None:
    picked = pick_slices(slices, chunks)
    assert len(picked) == chunks
    assert list(picked) == sorted(picked)
    assert set(picked) <= set(slices)


def test_chunks_of_an_extent() -> None:
    assert [chunk_of(z, (2, 10)) for z in range(0, 13)] == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]
    assert chunk_of(4, (4, 4)) == 0


def test_unclipped_the_last_slice_has_no_chunk_unless_division_rounds_down() -> None:
    taught = {length for length in range(1, 78) if chunk_of(length, (0, length), clip=False) == 2}
    assert taught == ROUNDED_DOWN


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 6))
def test_clipped_chunks_rise_from_first_to_last(first: int, length: int, chunks: int) -> None:
    found = [chunk_of(z, (first, first + length), chunks) for z in range(first, first + length + 1)]
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == (chunks - 1 if length else 0)
