from __future__ import annotations

import pytest

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.adnet_protocol import chunk_bounds, overlapping_folds, support_positions, taught_by


def test_neighbouring_folds_share_a_scan_and_the_last_one_the_first() -> None:
    folds = overlapping_folds("abcdefghij")
    assert ["".join(fold) for fold in folds] == ["abc", "cde", "efg", "ghi", "aij"]


def test_more_folds_than_scans_are_refused() -> None:
    with pytest.raises(ConfigError, match="fewer folds"):
        overlapping_folds("abc")


def test_supports_lie_in_the_middle_of_equal_parts() -> None:
    assert support_positions(12, 3) == [2, 6, 10] and support_positions(12, 1) == [6] and support_positions(1, 3) == [0, 0, 0]


def test_every_query_slice_has_one_teacher() -> None:
    assert chunk_bounds(7, 3) == [0, 2, 4, 7]
    assert taught_by(7, 3) == [0, 0, 1, 1, 2, 2, 2] and taught_by(1, 3) == [2]
