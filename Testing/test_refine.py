"""Borders that follow the edges of the image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from FewShotSegLib.refine import EPSILON, RADIUS, guided_filter, refine


def image_and_truth(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Two slices with a bright disc on a dark ground, and the disc."""
    rows, columns = np.indices((size, size))
    disc = (rows - 30) ** 2 + (columns - 34) ** 2 < 15**2
    truth = np.stack([disc, disc])
    noise = np.random.default_rng(0).normal(0, 0.05, truth.shape)
    return (np.where(truth, 1.5, -0.5) + noise).astype(np.float32), truth


def blurred(truth: np.ndarray, shift: int = 2) -> np.ndarray:
    """Fractions (2, slices, H, W) of background and organ as they come from cells: blurred, and a little off."""
    organ = ndimage.gaussian_filter(np.roll(truth, shift, 2).astype(np.float32), (0, 4, 4))
    return np.stack([1 - organ, organ])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_borders_move_to_the_edges_of_the_image() -> None:
    image, truth = image_and_truth()
    scores = blurred(truth)
    before = dice(scores[1] > scores[0], truth)
    refine(scores, image)
    after = dice(scores[1] > scores[0], truth)
    assert before < 0.93 and after > 0.98


def test_on_a_flat_image_scores_are_only_smoothed() -> None:
    _, truth = image_and_truth()
    scores = blurred(truth)
    flat = guided_filter(scores, np.full(truth.shape, 0.7, np.float32))
    size = (1, 1, 2 * RADIUS + 1, 2 * RADIUS + 1)
    twice = ndimage.uniform_filter(ndimage.uniform_filter(scores, size, mode="nearest"), size, mode="nearest")
    np.testing.assert_allclose(flat, twice, atol=1e-4)


def test_the_filter_is_the_published_one() -> None:
    """He, Sun and Tang, equations 5, 6 and 8, at one pixel."""
    image, truth = image_and_truth(40)
    scores = blurred(truth)[1:, :1]
    radius, y, x = 3, 20, 22

    def window(array: np.ndarray, row: int, column: int) -> np.ndarray:
        return array[row - radius : row + radius + 1, column - radius : column + radius + 1].astype(float)

    lines = []
    for row in range(y - radius, y + radius + 1):
        for column in range(x - radius, x + radius + 1):
            guide, score = window(image[0], row, column), window(scores[0, 0], row, column)
            slope = ((guide * score).mean() - guide.mean() * score.mean()) / (guide.var() + EPSILON)
            lines.append((slope, score.mean() - slope * guide.mean()))
    slope, offset = np.mean(lines, 0)
    assert np.isclose(guided_filter(scores, image[:1], radius)[0, 0, y, x], slope * image[0, y, x] + offset, atol=1e-4)


def test_fractions_still_sum_to_one() -> None:
    image, truth = image_and_truth()
    scores = blurred(truth)
    refine(scores, image)
    np.testing.assert_allclose(scores.sum(0), 1, atol=1e-4)


def test_slices_without_an_organ_and_places_far_from_all_stay() -> None:
    image, truth = image_and_truth(128)
    scores = blurred(truth)
    scores[1, 0], scores[0, 0] = 0, 1
    before = scores.copy()
    refine(scores, image)
    assert np.array_equal(scores[:, 0], before[:, 0])
    assert np.array_equal(scores[:, 1, 90:], before[:, 1, 90:])
    assert not np.array_equal(scores[:, 1, :60], before[:, 1, :60])


def test_nothing_to_refine() -> None:
    scores = np.zeros((2, 3, 16, 16), np.float32)
    scores[0] = 1
    before = scores.copy()
    refine(scores, np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32))
    assert np.array_equal(scores, before)


def test_thin_organs_have_smaller_windows_and_fractions_still_sum_to_one() -> None:
    image, truth = image_and_truth()
    ring = truth & ~ndimage.binary_erosion(truth, iterations=4, structure=np.ones((1, 3, 3), bool))
    image = image - 1.5 * ring  # like muscle around blood
    organs = np.roll(np.stack([ring, truth & ~ring]), 2, 3).astype(np.float32)
    fractions = ndimage.gaussian_filter(organs, (0, 0, 2, 2))
    scores = np.concatenate([1 - fractions.sum(0, keepdims=True), fractions])
    alike, sharper = scores.copy(), scores.copy()
    refine(alike, image)
    refine(sharper, image, thin=[0])
    np.testing.assert_allclose(sharper.sum(0), 1, atol=1e-4)
    np.testing.assert_array_equal(sharper[2], alike[2])
    assert dice(sharper.argmax(0) == 1, ring) > dice(alike.argmax(0) == 1, ring) + 0.02
    margins = np.concatenate([np.zeros_like(scores[:1]), scores[1:] - 0.5])
    refine(margins, image, thin=[0], margins=True)
    assert not margins[0].any()
