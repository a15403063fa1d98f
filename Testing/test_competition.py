"""Pixels go to the label whose surroundings look like them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from test_refine import blurred, dice, image_and_truth

from FewShotSegLib.competition import LIMIT, NOISE, RADIUS, RARE, TINY, compete
from FewShotSegLib.refine import refine


def test_an_organ_takes_what_looks_like_it_even_under_shading() -> None:
    image, truth = image_and_truth()
    shaded = image * 0.3 + np.linspace(-1, 1, image.shape[2], dtype=np.float32)  # one side is as bright as the organ on the other
    scores = blurred(truth, shift=3)
    before = dice(scores[1] > scores[0], truth)
    found = compete(scores, shaded)
    after = dice(found[1] > found[0], truth)
    assert before < 0.88 and after > 0.95


def test_it_is_the_likelihood_of_local_gaussians() -> None:
    """At one pixel, by the definition."""
    image, truth = image_and_truth(48)
    scores = blurred(truth)
    y, x = 24, 46  # at the image's border, where the outermost pixels are repeated by reflection
    window = np.ix_(range(y - RADIUS, y + RADIUS + 1), [*range(x - RADIUS, 48), *range(47, 47 - (x + RADIUS - 47), -1)])
    values = image[0][window].astype(float)
    prior = scores[:, 0] + TINY
    shares = prior / prior.sum(0)
    logs = []
    for label in (0, 1):
        weights = shares[label][window].astype(float)
        weight = weights.mean() + RARE
        mean = (weights * values).mean() / weight
        variance = max((weights * values**2).mean() / weight - mean**2, 0) + NOISE
        logs.append(-((image[0, y, x] - mean) ** 2) / (2 * variance) - np.log(variance) / 2)
    odds = prior[1, y, x] / prior[0, y, x] * np.exp(np.clip(logs[1] - logs[0], -LIMIT, LIMIT))
    found = compete(scores, image)[:, 0, y, x]
    assert np.isclose(found[1] / found[0], odds, rtol=1e-3)


def test_the_image_says_only_so_much_and_sums_stay() -> None:
    image, truth = image_and_truth()
    scores = blurred(truth) * np.array([0.7, 1.0], np.float32)[:, None, None, None]  # background was made weaker
    found = compete(scores, image)
    np.testing.assert_allclose(found.sum(0), scores.sum(0) + 2 * TINY, rtol=1e-4)
    logits = np.log(found[1] / found[0]) - np.log((scores[1] + TINY) / (scores[0] + TINY))
    assert np.abs(logits).max() == pytest.approx(LIMIT, abs=1e-3)
    assert not np.array_equal(found, scores)


def test_on_a_flat_image_nothing_is_decided() -> None:
    _, truth = image_and_truth()
    scores = blurred(truth)
    found = compete(scores, np.full(truth.shape, 0.7, np.float32))
    inside = ndimage.uniform_filter(np.minimum(*scores), (1, 2 * RADIUS + 1, 2 * RADIUS + 1)) > 0.1
    assert np.abs(found - scores)[:, inside].max() < 0.02


def test_pixels_beside_labels_that_keep_still_stay() -> None:
    image, truth = image_and_truth(96)
    background, organ = blurred(truth)
    thin = np.zeros_like(organ)
    thin[0, 26:34, 14:17] = 0.8
    scores = np.stack([background * (1 - thin), organ * (1 - thin), thin])
    found, without = compete(scores, image, still=[2]), compete(scores, image)
    near = ndimage.binary_dilation(thin > 0, np.ones((1, 11, 11), bool))  # of 21 x 21 pixels around, enough are thin
    far = ~ndimage.binary_dilation(thin > 0, np.ones((1, 45, 45), bool))
    np.testing.assert_allclose(found[:, near], scores[:, near] + TINY, atol=1e-6)
    assert np.abs(without - scores)[:, near].max() > 0.1
    assert np.abs(found - scores)[:, far].max() > 0.1 and np.abs(found[:2] - without[:2])[:, far].max() < 1e-3


def test_refined_borders_are_nearer_to_the_truth_after_a_competition() -> None:
    image, truth = image_and_truth()
    image = image * 0.4 + np.random.default_rng(1).normal(0, 0.1, image.shape).astype(np.float32)
    found = {}
    for competing in (False, True):
        scores = blurred(truth, shift=4)
        refine(scores, image, competing=competing)
        found[competing] = dice(scores[1] > scores[0], truth)
    assert found[True] > max(0.96, found[False] + 0.01)
