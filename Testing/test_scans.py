"""Preparing scans for training: what the library sees at use, and files that are whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from training_folder import PIXELS, raw_folder  # noqa: E402

from fewshotseg_training import scans  # noqa: E402
from fewshotseg_training.scans import fit_square, load_scan, prepare_folder, prepare_scan, training_slices  # noqa: E402
from fewshotseg_training.supervoxels import supervoxels  # noqa: E402
from FewShotSegLib.errors import VolumeError  # noqa: E402
from FewShotSegLib.volume import Geometry, Volume  # noqa: E402

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_folder(tmp_path_factory.mktemp("data") / "toy")


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


# ---------------------------------------------------------------------------------------------- files
def test_a_prepared_scan_holds_image_and_supervoxels(raw: Path, tmp_path: Path) -> None:
    prepare_scan(raw / "00_image.nii.gz", tmp_path / "deep" / "00.npz", min_size=60, size=PIXELS)
    scan, source = load_scan(tmp_path / "deep" / "00.npz"), Volume.read(raw / "00_image.nii.gz")
    array, spacing = training_slices(source, 3.0, PIXELS)
    assert (scan.name, scan.slice_spacing) == ("00", pytest.approx(spacing[0]))
    assert scan.image.dtype == np.float16 and scan.regions.dtype == np.uint16
    assert scan.image.shape == scan.regions.shape == array.shape
    np.testing.assert_allclose(scan.image.astype(float).mean(), 0, atol=1e-2)
    np.testing.assert_allclose(scan.image.astype(float).std(), 1, atol=1e-2)
    assert np.array_equal(scan.regions, supervoxels(array, spacing, min_size=60))
    assert len(np.unique(scan.regions)) > 10
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["00.npz"]


def test_preparing_a_folder_can_be_resumed(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    prepare = scans.prepare_scan

    def watched(source: Path, out: Path, **options: object) -> None:
        seen.append(source.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        prepare(source, out, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(scans, "prepare_scan", watched)
    with pytest.raises(KeyboardInterrupt):
        prepare_folder(raw, tmp_path, min_size=60, size=PIXELS)
    first = (tmp_path / "toy" / "00.npz").read_bytes()
    assert prepare_folder(raw, tmp_path, min_size=60, size=PIXELS) == [tmp_path / "toy" / f"{case}.npz" for case in ("00", "01")]
    assert seen == ["00_image.nii.gz", "01_image.nii.gz", "01_image.nii.gz"]
    assert (tmp_path / "toy" / "00.npz").read_bytes() == first
    assert prepare_folder(raw, tmp_path, min_size=60, size=PIXELS) and len(seen) == 3


def test_an_interrupted_write_leaves_nothing_that_training_would_read(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(file: object, **arrays: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("No space left on device")

    monkeypatch.setattr(scans.np, "savez", half)
    with pytest.raises(OSError, match="No space"):
        prepare_scan(raw / "00_image.nii.gz", tmp_path / "00.npz", min_size=60, size=PIXELS)
    assert not list(tmp_path.glob("*.npz"))


def test_a_broken_scan_is_named(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "dataset.json").write_text(json.dumps({"cases": ["00", "01"], "modality": "MR"}))
    whole = (raw / "00_image.nii.gz").read_bytes()
    (folder / "00_image.nii.gz").write_bytes(whole)
    (folder / "01_image.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match="01_image.nii.gz"):
        prepare_folder(folder, tmp_path / "cache", min_size=60, size=PIXELS)
    assert [p.name for p in (tmp_path / "cache" / "broken").iterdir()] == ["00.npz"]
    (folder / "01_image.nii.gz").unlink()
    with pytest.raises(VolumeError, match="01_image.nii.gz"):
        prepare_folder(folder, tmp_path / "cache", min_size=60, size=PIXELS)


@pytest.mark.parametrize("text", [None, "not json", "[1, 2]", '{"modality": "MR"}'])
def test_a_folder_without_a_list_of_scans_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(VolumeError, match="dataset.json cannot be used"):
        prepare_folder(tmp_path, tmp_path / "cache", min_size=60)


def test_a_damaged_prepared_scan_is_named(tmp_path: Path) -> None:
    (tmp_path / "00.npz").write_bytes(b"PK\x03\x04 half a file")
    np.savez(tmp_path / "01.npz", image=np.zeros(3))
    for name in ("00.npz", "01.npz", "02.npz"):
        with pytest.raises(VolumeError, match=f"{name} is no prepared scan.*prepare it again"):
            load_scan(tmp_path / name)
