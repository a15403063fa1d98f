"""Prepared scans: values that survive being stored as int16, memory-mapped files, and both versions of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.scans import TrainingScan, load_scan, quantised, save_scan  # noqa: E402
from FewShotSegLib.errors import VolumeError  # noqa: E402

RANDOM = np.random.default_rng(0)


def test_int16_keeps_the_z_scores() -> None:
    values = np.minimum(RANDOM.gamma(2, 100, (3, 32, 32)), 800).astype(np.float32)
    image, scale, shift = quantised(values)
    assert image.dtype == np.int16 and (image.min(), image.max()) == (-32767, 32767)
    scan = TrainingScan("a", image, np.zeros(values.shape, np.uint16), 5.0, scale, shift)
    found = scan.grey([0, 1, 2])
    assert found.dtype == np.float32 and found.mean() == pytest.approx(0, abs=1e-4) and found.std() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found, (values - values.mean()) / values.std(), atol=2e-4)
    assert np.array_equal(scan.grey(1), found[1])


def test_arrays_are_mapped_not_read(tmp_path: Path) -> None:
    image = RANDOM.integers(-9, 9, (4, 16, 24)).astype(np.int16)
    regions = RANDOM.integers(0, 99, (4, 16, 24)).astype(np.uint16)
    present = np.eye(4, 2, dtype=bool)
    arrays = {"image": image, "regions": regions, "slice_spacing": 3.5, "scale": 0.5, "shift": 1.0, "key": np.array("abc")}
    save_scan(tmp_path / "07.npz", {**arrays, "labels": np.array([2, 5]), "present": present})
    np.save(tmp_path / "07.superpixels.npy", regions + 1)
    scan = load_scan(tmp_path / "07.npz")
    assert isinstance(scan.image, np.memmap) and isinstance(scan.regions, np.memmap)
    assert np.array_equal(scan.image, image) and np.array_equal(scan.layer("regions"), regions)
    assert np.array_equal(scan.layer("superpixels"), regions + 1)
    assert (scan.name, scan.slice_spacing, scan.labels) == ("07", 3.5, (2, 5))
    assert scan.shows((5,)).tolist() == present[:, 1:].tolist() and scan.shows((3, 2))[:, 0].sum() == 0
    assert np.array_equal(scan.grey(2), image[2] * np.float32(0.5) + 1)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["07.npz", "07.superpixels.npy"]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_files_of_the_first_version_are_read_as_they_are(tmp_path: Path, save: object) -> None:
    image = RANDOM.normal(0, 1, (3, 8, 8)).astype(np.float16)
    save(tmp_path / "a.npz", image=image, regions=image.astype(np.uint16), slice_spacing=5.0)  # type: ignore[operator]
    scan = load_scan(tmp_path / "a.npz")
    assert np.array_equal(scan.grey(1), image[1].astype(np.float32)) and scan.slice_spacing == 5.0


def test_what_a_scan_does_not_know_is_told() -> None:
    scan = TrainingScan("a", np.zeros((2, 8, 8), np.int16), np.zeros((2, 8, 8), np.uint16), 5.0)
    assert scan.shows(()).shape == (2, 0)
    with pytest.raises(VolumeError, match=r"labels \[1\].*prepare it again"):
        scan.shows((1,))
    with pytest.raises(VolumeError, match="no superpixels.*pseudolabels"):
        scan.layer("superpixels")


def test_a_damaged_prepared_scan_is_named(tmp_path: Path) -> None:
    (tmp_path / "00.npz").write_bytes(b"PK\x03\x04 half a file")
    np.savez(tmp_path / "01.npz", image=np.zeros(3))
    save_scan(tmp_path / "03.npz", {"image": np.zeros((2, 8, 8)), "regions": np.zeros((2, 8, 8)), "slice_spacing": 1.0})
    whole = (tmp_path / "03.npz").read_bytes()
    (tmp_path / "03.npz").write_bytes(whole[:200])
    for name in ("00.npz", "01.npz", "02.npz", "03.npz"):
        with pytest.raises(VolumeError, match=f"{name} is no prepared scan.*prepare it again"):
            load_scan(tmp_path / name)
