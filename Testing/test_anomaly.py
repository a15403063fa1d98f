"""ADNet's anomaly score and its thresholds."""

from __future__ import annotations

import pytest
import torch

from FewShotSegLib.anomaly import (
    ALLOWANCE,
    START,
    ConstantThreshold,
    ImageThreshold,
    anomaly,
    calibrated_threshold,
    lenient_threshold,
    margin,
    probabilities,
    two_class,
)


def test_the_score_goes_from_20_for_the_opposite_to_minus_20_for_the_same() -> None:
    features = torch.tensor([[2.0, 0.0], [-3.0, 0.0], [0.0, 1.0]])[:, :, None, None]
    torch.testing.assert_close(anomaly(features, torch.tensor([0.5, 0.0]))[:, 0, 0], torch.tensor([-20.0, 20.0, 0.0]))


def test_every_slice_may_have_a_prototype_of_its_own() -> None:
    features, prototypes = torch.randn(3, 4, 2, 2), torch.randn(3, 4)
    each = torch.cat([anomaly(features[i, None], prototypes[i]) for i in range(3)])
    torch.testing.assert_close(anomaly(features, prototypes), each)


def test_the_organ_lies_below_the_threshold() -> None:
    scores = torch.tensor([[[-12.0, -10.0, -9.0]], [[-12.0, -10.0, -9.0]]])
    assert (margin(scores, torch.tensor(-10.0)) > 0).tolist() == [[[True, False, False]]] * 2
    assert (margin(scores, torch.tensor([-11.0, -9.5])) > 0).tolist() == [[[True, False, False]], [[True, True, False]]]


def test_the_margin_is_the_logit_of_the_published_probability() -> None:
    scores, threshold = torch.randn(2, 3, 3) * 10, torch.tensor(-4.0)
    expected = 1 - torch.sigmoid(0.5 * (scores - threshold))
    torch.testing.assert_close(two_class(margin(scores, threshold)).softmax(1)[:, 1], expected)
    torch.testing.assert_close(probabilities(margin(scores, threshold), (3, 3))[:, 1], expected)


def test_the_calibrated_threshold_separates_what_can_be_separated() -> None:
    scores = torch.tensor([[[-18.0, -17.0, -9.0, 3.0]]])
    assert calibrated_threshold(scores, torch.tensor([[[1.0, 1.0, 0.0, 0.0]]])) == -13
    assert calibrated_threshold(scores, torch.zeros(1, 1, 4)) == START
    assert calibrated_threshold(scores, torch.ones(1, 1, 4)) == 3


def test_the_calibrated_threshold_has_the_best_dice() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 8, 8, generator=generator)
    fractions = ((scores + torch.randn(2, 8, 8, generator=generator)) < 0).float()

    def dice(threshold: torch.Tensor) -> float:
        found = (scores < threshold).float()
        return float(2 * (found * fractions).sum() / (found.sum() + fractions.sum()))

    best = dice(calibrated_threshold(scores, fractions))
    assert best == pytest.approx(max(dice(t + 1e-6) for t in scores.flatten()))


def test_a_predicted_threshold_starts_as_the_constant_one() -> None:
    features = torch.randn(3, 8, 4, 4)
    for head in (ConstantThreshold(), ImageThreshold(8)):
        assert head(features).tolist() == [START] * 3
    published = ImageThreshold(8, hidden=1000)(features)
    assert published.shape == (3,) and len(set(published.tolist())) == 3


def test_a_learned_threshold_is_never_stricter_than_the_drawing_asks_for() -> None:
    found = lenient_threshold(torch.tensor([-18.0, -12.0]), torch.tensor(-16.0))
    assert found.tolist() == [-16 + ALLOWANCE, -12]
