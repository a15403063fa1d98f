from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from FewShotSegLib.confidence import GOOD, POOR, Confidence, confidence_of
from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.grid import AxialGrid
from FewShotSegLib.methods.match import Carried
from FewShotSegLib.strategies import Answer
from FewShotSegLib.volume import Geometry

SIZE, SPACING = (32, 32, 7), (4.0, 4.0, 5.0)
AXIAL = Geometry(SIZE, SPACING)
FEET_FIRST = Geometry(SIZE, SPACING, direction=(1, 0, 0, 0, 1, 0, 0, 0, -1))
CORONAL = Geometry(SIZE, SPACING, direction=(1, 0, 0, 0, 0, 1, 0, -1, 0))


def scan(geometry: Geometry = AXIAL, slices: tuple[int, ...] = (0, 2, 4, 6)) -> EncodedScan:
    shape = (len(slices), 4, 4)
    return EncodedScan(
        AxialGrid.of(geometry, pixel_mm=4.0), np.array(slices), torch.zeros(len(slices), 1, 4, 4), torch.ones(shape)
    )


def answer(scores: Tensor, best: float | Tensor = GOOD, margins: bool = False) -> Answer:
    quality = torch.as_tensor(best, dtype=torch.float32).expand(len(scores), 4, 4)
    return Answer(scores, margins, Carried(scores, quality))


def sure(fraction: float, slices: int = 4) -> Tensor:
    """One organ, with this fraction in the upper half of every slice; a second one that is nowhere."""
    scores = torch.zeros(slices, 3, 4, 4)
    scores[:, 1, :2] = fraction
    scores[:, 0] = 1 - scores[:, 1]
    return scores


def labels_of(geometry: Geometry = AXIAL) -> np.ndarray:
    index = np.zeros(geometry.shape, np.uint8)
    index[1:6, :16] = 1
    return index


def confidence(scores: Tensor, geometry: Geometry = AXIAL, **options: float) -> Confidence:
    return confidence_of(answer(scores, **options), scan(geometry), labels_of(geometry))  # type: ignore[arg-type]


def test_full_share_and_a_good_match_are_certain() -> None:
    found = confidence(sure(1.0))
    assert found.organs[0] == pytest.approx(1.0)
    assert found.slices.shape == (2, 7)
    np.testing.assert_allclose(found.slices[0, 1:6], 1.0, rtol=1e-6)


def test_an_absent_organ_has_no_confidence() -> None:
    found = confidence(sure(1.0))
    assert np.isnan(found.organs[1]) and np.isnan(found.slices[1]).all()
    assert np.isnan(found.slices[0, [0, 6]]).all()


def test_confidence_falls_with_the_share_and_with_the_match() -> None:
    assert confidence(sure(0.7)).organs[0] == pytest.approx(0.7)
    middle = (POOR + GOOD) / 2
    assert confidence(sure(0.7), best=middle).organs[0] == pytest.approx(0.35)
    assert confidence(sure(0.7), best=POOR).organs[0] == 0.0
    assert confidence(sure(0.7), best=-1.0).organs[0] == 0.0


def test_a_doubtful_slice_is_named() -> None:
    best = torch.full((4, 4, 4), GOOD)
    best[2] = POOR
    found = confidence_of(answer(sure(1.0), best), scan(), labels_of())
    np.testing.assert_allclose(found.slices[0, 1:6], [1.0, 1.0, 0.5, 0.0, 0.5], atol=1e-6)
    assert found.organs[0] == pytest.approx(0.75)


def test_slices_of_a_scan_from_head_to_feet_are_counted_its_own_way() -> None:
    best = torch.full((4, 4, 4), GOOD)
    best[2] = POOR
    found = confidence_of(answer(sure(1.0), best), scan(FEET_FIRST), labels_of(FEET_FIRST))
    np.testing.assert_allclose(found.slices[0, 1:6], [0.5, 0.0, 0.5, 1.0, 1.0], atol=1e-6)


def test_slices_that_are_not_axial_have_the_confidence_of_the_organ() -> None:
    found = confidence_of(answer(sure(0.8, 32)), scan(CORONAL, tuple(range(32))), labels_of(CORONAL))
    np.testing.assert_allclose(found.slices[0, 1:6], found.organs[0])
    assert np.isnan(found.slices[0, [0, 6]]).all()


def test_an_organ_thinner_than_a_cell_is_judged_by_its_fractions() -> None:
    found = confidence(sure(0.3))  # background wins every cell, though some voxels are the organ's
    assert found.organs[0] == pytest.approx(0.3)


def test_margins_of_prototype_heads_are_logits() -> None:
    scores = torch.zeros(4, 3, 4, 4)
    scores[:, 1:] = -20.0
    scores[:, 1, :2] = 2.0
    carried = Carried(sure(1.0), torch.full((4, 4, 4), GOOD))
    found = confidence_of(Answer(scores, True, carried), scan(), labels_of())
    assert found.organs[0] == pytest.approx(1 / (1 + np.exp(-2.0)), rel=1e-5)
