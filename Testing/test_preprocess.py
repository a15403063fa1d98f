"""Preprocessing before training: what the library sees at use, and the papers' golden vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.preprocess import crop, fit_square, general, paper, paper_ct, paper_mr, training_slices  # noqa: E402
from FewShotSegLib.errors import VolumeError  # noqa: E402
from FewShotSegLib.volume import Geometry, Volume  # noqa: E402

RANDOM = np.random.default_rng(0)


def volume(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (2.0, 2.0, 5.0), modality: str = "MR") -> Volume:
    array = RANDOM.gamma(2, 100, shape).astype(np.float32)
    return Volume(array, Geometry(shape[::-1], spacing), "scan", modality)


# ---------------------------------------------------------------------------------------------- squares
@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 5, 8), (1, 12, 3), (3, 9, 20), (2, 11, 11)])
def test_slices_are_cut_or_padded_around_the_centre(shape: tuple[int, int, int]) -> None:
    array = 5 + RANDOM.random(shape)
    array.flat[0] = 4.0
    square = fit_square(array, 8)
    assert square.shape == (shape[0], 8, 8)
    top, left = ((8 - n) // 2 if n <= 8 else -((n - 8) // 2) for n in shape[1:])
    for row in range(8):
        for column in range(8):
            y, x = row - top, column - left
            inside = 0 <= y < shape[1] and 0 <= x < shape[2]
            assert np.array_equal(square[:, row, column], array[:, y, x] if inside else np.full(shape[0], 4.0))


# ---------------------------------------------------------------------------------------------- slices
def test_a_scan_of_the_right_size_is_taken_as_it_is() -> None:
    scan = volume((6, 64, 64))
    array, spacing = training_slices(scan, 3.0, 64)
    assert spacing == (5.0, 2.0, 2.0)
    assert np.array_equal(array, np.minimum(scan.array, np.percentile(scan.array, 99.5)))


def test_a_finer_scan_is_resampled_not_cut() -> None:
    scan = volume((3, 96, 128), (1.0, 1.0, 5.0))
    scan.array[:, :, 120:] = 3000  # at the edge: a cut would lose it
    array, spacing = training_slices(scan, 3.0, 64)
    assert array.shape == (3, 64, 64) and spacing == (5.0, 2.0, 2.0)
    assert (array[:, 10:54, 61:] > 2000).all()
    assert (array[:, :8] == array.min()).all()  # padding above and below


def test_thin_slices_are_thinned_and_other_axes_turned_to_axial() -> None:
    scan = volume((9, 64, 64), (2.0, 2.0, 1.5))
    array, spacing = training_slices(scan, 3.0, 64)
    assert len(array) == 5 and spacing == (3.0, 2.0, 2.0)
    turned = Volume(
        scan.array[::-1], Geometry((64, 64, 9), (2.0, 2.0, 1.5), (0, 0, 12), (1, 0, 0, 0, 1, 0, 0, 0, -1)), "scan", "MR"
    )
    assert np.array_equal(training_slices(turned, 3.0, 64)[0], array)


def test_ct_is_clipped_to_its_window() -> None:
    scan = volume((3, 64, 64), modality="CT")
    scan.array[...] = RANDOM.integers(-1024, 1500, scan.array.shape)
    array, _ = training_slices(scan, 3.0, 64)
    assert np.array_equal(array, scan.array.clip(-125, 275))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_voxels_are_refused(value: float) -> None:
    scan = volume((3, 64, 64))
    scan.array[1, 2, 3] = value
    with pytest.raises(VolumeError, match="scan are NaN"):
        training_slices(scan, 3.0, 64)


def test_a_scan_without_contrast_is_refused() -> None:
    scan = volume((3, 64, 64))
    scan.array[...] = 7
    with pytest.raises(VolumeError, match="all alike"):
        training_slices(scan, 3.0, 64)


def test_labels_come_along() -> None:
    scan = volume((9, 128, 128), (1.0, 1.0, 1.5))
    labels = np.zeros(scan.array.shape, np.uint8)
    labels[4, 40:80, 30:60] = 7
    found = general(scan, labels, 3.0, 64)
    assert found.labels is not None and found.labels.shape == found.values.shape
    assert [z for z in range(5) if (found.labels[z] == 7).any()] == [2]
    assert found.labels[2, 25, 20] == 7 and set(np.unique(found.labels)) == {0, 7}


# ---------------------------------------------------------------------------------------------- the papers
@pytest.mark.parity
def test_golden_preprocessing(golden_dir: Path) -> None:
    with np.load(golden_dir / "alpnet_visa" / "g_preprocess.npz") as golden:
        x, y, z = golden["mr_spacing"].tolist()
        array = golden["mr_in"].astype(np.float32)
        resampled = paper_mr(array, (x, y, z))
        np.testing.assert_allclose(resampled, golden["mr_resampled"], atol=1e-3)
        cropped = golden["mr_crop"]
        np.testing.assert_allclose(crop(resampled, cropped.shape[1:]), cropped, atol=1e-3)
        scan = Volume(array, Geometry(array.shape[::-1], (x, y, z)), "golden", "MR")
        found = paper(scan, golden["mr_lab_in"], 64)
        assert found.values.shape == found.labels.shape == (9, 64, 64) and found.spacing == (7.7, 1.25, 1.25)
        np.testing.assert_allclose(found.values, golden["mr_crop"][:, :, 16:80], atol=1e-3)
        ct, factor = paper_ct(golden["ct_in"])
        assert ct.shape == tuple(golden["ct_out_shape"]) and factor == 1.75
        np.testing.assert_allclose(ct[:, :256, :256], golden["ct_out_first256"], atol=1e-3)


def test_the_papers_truncate_the_level_of_integer_scans() -> None:
    array = RANDOM.integers(0, 1000, (3, 20, 20)).astype(np.int16)
    level = np.percentile(array, 99.5)
    assert level != int(level)
    assert paper_mr(array, (1.25, 1.25, 7.7))[:3, :20, :20].max() == int(level)


def test_ct_of_the_papers_has_256_pixels() -> None:
    scan = volume((2, 128, 128), modality="CT")
    found = paper(scan, np.ones(scan.array.shape, np.uint8))
    assert found.values.shape == (3, 256, 256) and found.spacing[1:] == pytest.approx((2 * 112 / 256,) * 2)
    assert found.labels is not None and found.labels.shape[0] == 3
