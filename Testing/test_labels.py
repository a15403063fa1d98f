from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib import labels
from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.grid import AxialGrid
from FewShotSegLib.labels import Borders, between_slices, to_pixels, to_voxels
from FewShotSegLib.volume import Geometry

AXIAL = Geometry((40, 24, 11), (2.0, 2.0, 3.0))
TURNED = Geometry((11, 40, 24), (3.0, 2.0, 2.0), direction=(0, -1, 0, 0, 0, 1, -1, 0, 0))
GEOMETRIES = {"axial": AXIAL, "axes swapped and flipped": TURNED}


def scan(geometry: Geometry = AXIAL, every: int = 1, pixel_mm: float = 3.0) -> EncodedScan:
    grid = AxialGrid.of(geometry, pixel_mm=pixel_mm)
    slices = np.arange(0, grid.shape[0], every)
    cells = (len(slices), grid.shape[1] // 8, grid.shape[2] // 8)
    return EncodedScan(grid, slices, torch.zeros(cells[0], 1, *cells[1:]), torch.ones(cells))


def random_scores(of: EncodedScan, organs: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(of.slices), 1 + organs, *of.body.shape[1:], generator=generator).softmax(1)


def whole_array(of: EncodedScan, scores: Tensor) -> np.ndarray:
    """What `to_voxels` does block by block, on all slices at once: scores (organ + 1, z, y, x) on the scan's grid."""
    along = np.stack([np.interp(np.arange(of.grid.shape[0]), of.slices, s) for s in scores.flatten(1).numpy().T], 1)
    pixels = torch.from_numpy(along.astype(np.float32)).reshape(-1, *scores.shape[1:])
    fine = F.interpolate(pixels, of.grid.shape[1:], mode="bilinear", align_corners=False)
    return of.grid.backward(fine.transpose(0, 1).numpy(), order=1)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_blocks_give_what_the_whole_array_gives(monkeypatch: pytest.MonkeyPatch, name: str, every: int, at_once: int) -> None:
    encoded = scan(GEOMETRIES[name], every)
    scores = random_scores(encoded)
    monkeypatch.setattr(labels, "BLOCK_VALUES", at_once * encoded.grid.shape[1] * encoded.grid.shape[2] * 4)
    found = to_voxels(encoded, scores, probabilities=True)
    expected = whole_array(encoded, scores)
    assert found.index.dtype == np.uint8 and found.index.shape == GEOMETRIES[name].shape
    best_two = np.sort(expected, 0)[-2:]
    clear = best_two[1] - best_two[0] > 1e-5
    assert clear.mean() > 0.99 and np.array_equal(found.index[clear], expected.argmax(0)[clear])
    assert found.probabilities is not None and found.probabilities.dtype == np.float16
    np.testing.assert_allclose(found.probabilities, expected[1:], atol=1e-3)


def test_probabilities_only_where_asked_for() -> None:
    assert to_voxels(scan(), random_scores(scan())).probabilities is None


def test_margins_become_probabilities_by_the_sigmoid() -> None:
    encoded = scan()
    scores = torch.zeros(11, 3, *encoded.body.shape[1:])
    scores[:, 1], scores[:, 2] = 2.0, -20.0
    found = to_voxels(encoded, scores, Borders(logits=True), probabilities=True)
    assert (found.index == 1).all() and found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[0], 1 / (1 + np.exp(-2.0)), atol=1e-3)
    np.testing.assert_allclose(found.probabilities[1], 0.0, atol=1e-3)


def test_background_wins_a_tie() -> None:
    encoded = scan()
    assert not to_voxels(encoded, torch.full((11, 3, *encoded.body.shape[1:]), 1 / 3)).index.any()


def test_between_encoded_slices_scores_are_interpolated() -> None:
    encoded = scan(every=4)  # 0, 4, 8
    scores = torch.tensor([0.0, 8.0, 4.0])[:, None, None, None]
    found = between_slices(encoded, scores, np.arange(11))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 2, 4, 6, 8, 7, 6, 5, 4, 4, 4]))
    torch.testing.assert_close(between_slices(encoded, scores, np.array([5])).flatten(), torch.tensor([7.0]))


def test_unevenly_encoded_slices_are_interpolated_by_distance() -> None:
    encoded = EncodedScan(scan().grid, np.array([0, 1, 5]), torch.zeros(3, 1, 1, 1), torch.zeros(3, 1, 1))
    found = between_slices(encoded, torch.tensor([0.0, 1.0, 3.0])[:, None, None, None], np.arange(6))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 1.0, 1.5, 2.0, 2.5, 3.0]))


def test_a_single_encoded_slice_serves_all() -> None:
    encoded = EncodedScan(scan().grid, np.array([3]), torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1))
    assert (between_slices(encoded, torch.full((1, 2, 1, 1), 0.7), np.arange(11)) == 0.7).all()


# ---------------------------------------------------------------------------------------------- refined borders
def scan_with_edges(geometry: Geometry = AXIAL) -> tuple[EncodedScan, np.ndarray, Tensor]:
    """A scan with a bright block, the block (z y x), and scores from cells, which see it blurred and 2 mm off."""
    encoded = scan(geometry, pixel_mm=1.0)
    block = np.zeros(encoded.grid.shape, np.float32)
    block[3:8, 16:34, 22:62] = 1
    truth = encoded.grid.backward(block, order=0) > 0
    image = truth * 2.0 + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    blurred = ndimage.gaussian_filter(np.roll(block, 2, 2), (0, 3, 3))
    organ = F.avg_pool2d(torch.from_numpy(blurred)[:, None], 8)
    return dataclasses.replace(encoded, image=image.astype(np.float32)), truth, torch.cat([1 - organ, organ], 1)


def test_pixels_are_the_scans_voxels_on_the_grid() -> None:
    encoded, truth, _ = scan_with_edges()
    pixels = encoded.pixels(np.array([4, 9]))
    assert pixels.shape == (2, *encoded.grid.shape[1:]) and pixels.dtype == np.float32
    assert pixels[0, 20:30, 30:50].min() > 1.5 and pixels[1].max() < 0.5
    with pytest.raises(ValueError, match="without keeping its image"):
        scan().pixels(np.array([0]))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_refined_borders_follow_the_image(name: str) -> None:
    encoded, truth, scores = scan_with_edges(GEOMETRIES[name])
    plain, refined = (to_voxels(encoded, scores, Borders(refined=r)).index > 0 for r in (False, True))
    overlap = [2 * (found & truth).sum() / (found.sum() + truth.sum()) for found in (plain, refined)]
    assert overlap[1] > overlap[0] + 0.02 and overlap[1] > 0.95


def test_refined_labels_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, _, scores = scan_with_edges()
    whole = to_voxels(encoded, scores, Borders(refined=True), probabilities=True)
    monkeypatch.setattr(labels, "BLOCK_VALUES", 2 * encoded.grid.shape[1] * encoded.grid.shape[2] * 2)
    blocks = to_voxels(encoded, scores, Borders(refined=True), probabilities=True)
    assert np.array_equal(blocks.index, whole.index)
    assert whole.probabilities is not None and whole.probabilities.min() >= 0 and whole.probabilities.max() <= 1


# ---------------------------------------------------------------------------------------------- pixels of the encoded slices
@pytest.mark.parametrize("block", [1, 1 << 22])
def test_pixels_of_the_encoded_slices_are_labelled_like_those_of_the_scan(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    encoded = scan()
    scores = random_scores(encoded)
    monkeypatch.setattr(labels, "BLOCK_VALUES", block)
    found = to_pixels(encoded, scores)
    wide = F.interpolate(scores, scale_factor=encoded.grid.shape[1] // scores.shape[2], mode="bilinear")
    assert found.dtype == np.uint8 and np.array_equal(found, wide.argmax(1).numpy())
