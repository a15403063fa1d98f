"""Supervoxels: the published ones voxel for voxel, and what they must be on any scan."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from fewshotseg_training.supervoxels import body_mask, felzenszwalb_3d, scale_to_255, supervoxels  # noqa: E402
from FewShotSegLib.errors import ConfigError  # noqa: E402


# ---------------------------------------------------------------------------------------------- golden vectors
@pytest.mark.parity
def test_every_golden_case_is_met_exactly(golden_dir: Path) -> None:
    with np.load(golden_dir / "adnet_family" / "felz3d.npz") as golden:
        cases = sorted({name.split("/")[0] for name in golden.files})
        assert cases
        for case in cases:
            image, params = golden[f"{case}/image"], golden[f"{case}/params"]
            scale, sigma, min_size, *spacing = params.tolist()
            z, x, y = spacing
            labels = felzenszwalb_3d(image, (z, y, x), scale=scale, sigma=sigma, min_size=int(min_size))
            assert labels.dtype == np.int32
            assert np.array_equal(labels, golden[f"{case}/labels"]), case
            mask = body_mask(image)
            assert np.array_equal(mask, golden[f"{case}/fg_mask"].astype(bool)), case
            labels[labels == 0] = labels.max() + 1
            labels[~mask] = 0
            assert np.array_equal(labels, golden[f"{case}/masked_labels"]), case


@pytest.mark.parity
def test_the_golden_cases_come_out_of_whole_scans(golden_dir: Path) -> None:
    """`supervoxels` stretches a raw scan to 0..255 first: the golden images are stretched already, where they fill the range."""
    with np.load(golden_dir / "adnet_family" / "felz3d.npz") as golden:
        whole = [n.split("/")[0] for n in golden.files if n.endswith("/image") and (golden[n].min(), golden[n].max()) == (0, 255)]
        plain = [case for case in whole if golden[f"{case}/params"][:2].tolist() == [1.0, 0.0]]
        if not plain:
            pytest.skip("no golden case is stretched to 0..255")
        for case in plain:
            _, _, min_size, z, x, y = golden[f"{case}/params"].tolist()
            found = supervoxels(golden[f"{case}/image"], (z, y, x), min_size=int(min_size))
            assert np.array_equal(found, golden[f"{case}/masked_labels"]), case


@pytest.mark.parity
def test_the_order_of_numpys_sort_gives_the_published_files(golden_dir: Path) -> None:
    with np.load(golden_dir / "adnet_family" / "felz3d.npz") as golden:
        cases = [name.split("/")[0] for name in golden.files if name.endswith("/labels_numpy_introsort")]
        assert cases
        for case in cases:
            scale, sigma, min_size, z, x, y = golden[f"{case}/params"].tolist()
            given = {"scale": scale, "sigma": sigma, "min_size": int(min_size)}
            found = felzenszwalb_3d(golden[f"{case}/image"], (z, y, x), order="numpy-introsort", **given)
            assert np.array_equal(found, golden[f"{case}/labels_numpy_introsort"])
            assert not np.array_equal(found, golden[f"{case}/labels"])


# ---------------------------------------------------------------------------------------------- on any scan
def blocks(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A body of four bright blocks in dark surroundings, and which voxel is in which (0 = outside)."""
    truth = np.zeros((4, 24, 24), np.int64)
    truth[:, 4:12, 4:12], truth[:, 4:12, 12:20], truth[:, 12:20, 4:12], truth[:, 12:20, 12:20] = 1, 2, 3, 4
    image = np.array([0.0, 100.0, 160.0, 220.0, 255.0])[truth]
    return image + np.random.default_rng(0).normal(0, noise, image.shape) * (truth > 0), truth


def test_blocks_are_found_whatever_the_brightness() -> None:
    image, truth = blocks()
    for scan in (image, 3 * image - 700, (image * 100).astype(np.int16)):
        found = supervoxels(scan, (5.0, 1.0, 1.0), min_size=50)
        assert (found[truth == 0] == 0).all()
        assert len(np.unique(found)) == 5
        assert all(len(np.unique(found[truth == block])) == 1 for block in range(1, 5))


def test_labels_are_numbered_by_their_first_voxel() -> None:
    labels = felzenszwalb_3d(blocks(noise=3.0)[0], (1.0, 1.0, 1.0), min_size=20)
    numbers, first = np.unique(labels, return_index=True)
    assert numbers.tolist() == list(range(len(numbers))) and (np.diff(first) > 0).all()


def test_no_supervoxel_is_smaller_than_asked_for() -> None:
    noise = np.random.default_rng(0).uniform(0, 255, (5, 30, 30))
    for min_size in (10, 200):
        labels = felzenszwalb_3d(noise, (1.0, 1.0, 1.0), min_size=min_size)
        assert np.bincount(labels.ravel()).min() >= min_size


def test_supervoxels_are_connected_in_26_directions() -> None:
    labels = felzenszwalb_3d(np.random.default_rng(1).uniform(0, 255, (4, 20, 20)), (2.0, 1.0, 1.0), min_size=30)
    for number in range(labels.max() + 1):
        assert ndimage.label(labels == number, np.ones((3, 3, 3)))[1] == 1


def test_thick_slices_hold_together_less() -> None:
    """With a large distance between slices an edge across it costs more, so that fewer regions span several slices."""
    noise = np.random.default_rng(2).uniform(0, 255, (6, 24, 24))

    def spanned(z_mm: float) -> float:
        labels = felzenszwalb_3d(noise, (z_mm, 1.0, 1.0), scale=1e5, min_size=1)
        return float(np.mean(labels[1:] == labels[:-1]))

    assert spanned(8.0) < spanned(1.0)


def test_smoothing_is_in_mm() -> None:
    noise = np.random.default_rng(3).uniform(0, 255, (6, 20, 20))
    one, other = (felzenszwalb_3d(noise, spacing, sigma=1.0, min_size=40) for spacing in ((1.0, 1.0, 1.0), (4.0, 1.0, 1.0)))
    assert not np.array_equal(one, other)


def test_the_same_scan_gives_the_same_supervoxels_whatever_its_memory_order() -> None:
    noise = np.random.default_rng(4).integers(0, 30, (5, 26, 22)).astype(np.int16)  # many edges of equal cost
    plain = supervoxels(noise, (3.0, 1.0, 1.0), min_size=30)
    assert np.array_equal(plain, supervoxels(np.asfortranarray(noise), (3.0, 1.0, 1.0), min_size=30))
    assert np.array_equal(plain, supervoxels(noise, (3.0, 1.0, 1.0), min_size=30))


def test_without_equal_edges_the_order_does_not_matter() -> None:
    noise = np.random.default_rng(6).uniform(0, 255, (6, 40, 40))
    stable, published = (felzenszwalb_3d(noise, (3.0, 1.0, 1.0), min_size=40, order=o) for o in ("stable", "numpy-introsort"))
    assert np.array_equal(stable, published)
    with pytest.raises(ConfigError, match="stable or numpy-introsort"):
        felzenszwalb_3d(noise, (3.0, 1.0, 1.0), order="any")  # type: ignore[arg-type]


def test_other_threads_run_meanwhile() -> None:
    noise = np.random.default_rng(7).uniform(0, 255, (16, 128, 128))
    ends: list[float] = []

    def cut() -> None:
        ends.append(time.perf_counter())
        felzenszwalb_3d(noise, (3.0, 1.0, 1.0), min_size=500)
        ends.append(time.perf_counter())

    worker, beats = threading.Thread(target=cut), []
    worker.start()
    while worker.is_alive():
        beats.append(time.perf_counter())
        time.sleep(0.002)
    middle = np.linspace(*ends, 5)[1:4]
    assert sum(middle[0] < beat < middle[2] for beat in beats) > 1  # none, if it kept the others from running


def test_the_body_is_the_largest_bright_region_of_each_slice_without_holes() -> None:
    image = np.zeros((2, 20, 20))
    image[:, 3:15, 3:15] = 100
    image[:, 6:9, 6:9] = 0  # a hole
    image[0, 17:19, 17:19] = 200  # a speck
    mask = body_mask(image)
    expected = np.zeros((2, 20, 20), bool)
    expected[:, 3:15, 3:15] = True
    assert np.array_equal(mask, expected)
    assert not body_mask(np.full((2, 5, 5), 10.0)).any()


def test_scaling() -> None:
    assert np.array_equal(scale_to_255(np.array([[[-5, 0, 5]]], np.int16)), [[[0.0, 127.5, 255.0]]])
    assert not scale_to_255(np.full((1, 2, 2), 7.0)).any()
