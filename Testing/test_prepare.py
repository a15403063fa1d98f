"""Preparing folders of scans: found, kept, made again when something changed, and never stopped by a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from training_folder import PIXELS, raw_folder  # noqa: E402

from fewshotseg_training import prepare as preparing  # noqa: E402
from fewshotseg_training.find_scans import FoundScan, find_scans  # noqa: E402
from fewshotseg_training.prepare import PrepareConfig, prepare_folder, prepare_scan  # noqa: E402
from fewshotseg_training.preprocess import training_slices  # noqa: E402
from fewshotseg_training.pseudolabels import PseudoConfig, label_folder  # noqa: E402
from fewshotseg_training.scans import load_scan  # noqa: E402
from fewshotseg_training.supervoxels import supervoxels  # noqa: E402
from FewShotSegLib.errors import VolumeError  # noqa: E402
from FewShotSegLib.volume import Volume  # noqa: E402

CONFIG = PrepareConfig(min_size=60, size=PIXELS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return raw_folder(tmp_path_factory.mktemp("data") / "toy")


def test_a_prepared_scan_holds_image_and_supervoxels(raw: Path, tmp_path: Path) -> None:
    (found, _) = find_scans(raw)
    prepare_scan(found, tmp_path / "deep" / "00.npz", CONFIG)
    scan, source = load_scan(tmp_path / "deep" / "00.npz"), Volume.read(raw / "00_image.nii.gz")
    array, spacing = training_slices(source, 3.0, PIXELS)
    assert (scan.name, scan.slice_spacing) == ("00", pytest.approx(spacing[0]))
    assert scan.image.dtype == np.int16 and scan.regions.dtype == np.uint16
    assert scan.image.shape == scan.regions.shape == array.shape
    np.testing.assert_allclose(scan.grey(2), (array[2] - array.mean()) / array.std(), atol=1e-3)
    assert np.array_equal(scan.regions, supervoxels(array, spacing, min_size=60))
    assert len(np.unique(scan.regions)) > 10
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["00.npz"]
    truth = Volume.read(raw / "00_label.nii.gz").array
    assert scan.labels == tuple(np.unique(truth)[1:].tolist())
    shown = scan.shows((scan.labels[0],))[:, 0]
    assert np.array_equal(shown, (truth == scan.labels[0]).any((1, 2)))


def test_preparing_a_folder_can_be_resumed(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    prepare = preparing.prepare_scan

    def watched(scan: FoundScan, out: Path, config: PrepareConfig, **options: object) -> None:
        seen.append(scan.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        prepare(scan, out, config, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "prepare_scan", watched)
    with pytest.raises(KeyboardInterrupt):
        prepare_folder(raw, tmp_path, CONFIG)
    first = (tmp_path / "toy" / "00.npz").stat().st_mtime_ns
    done = prepare_folder(raw, tmp_path, CONFIG)
    assert done.done == [tmp_path / "toy" / f"{case}.npz" for case in ("00", "01")] and not done.failed
    assert seen == ["00", "01", "01"] and (tmp_path / "toy" / "00.npz").stat().st_mtime_ns == first
    assert prepare_folder(raw, tmp_path, CONFIG).done and len(seen) == 3
    prepare_folder(raw, tmp_path, PrepareConfig(min_size=90, size=PIXELS))  # other settings: made again
    assert seen[3:] == ["00", "01"]


def test_a_changed_scan_is_made_again_and_a_file_of_the_first_version_kept(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    scan = folder / "a.nii.gz"
    scan.write_bytes((raw / "00_image.nii.gz").read_bytes())
    (path,) = prepare_folder(folder, tmp_path / "cache", CONFIG).done
    first = load_scan(path).grey(1).copy()
    scan.write_bytes((raw / "01_image.nii.gz").read_bytes())
    prepare_folder(folder, tmp_path / "cache", CONFIG)
    assert not np.array_equal(load_scan(path).grey(1), first)
    np.savez(path, image=np.zeros((2, 8, 8), np.float16), regions=np.zeros((2, 8, 8), np.uint16), slice_spacing=5.0)
    prepare_folder(folder, tmp_path / "cache", CONFIG)
    assert load_scan(path).image.dtype == np.float16


def test_broken_scans_are_listed_and_skipped(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    (folder / "deep").mkdir(parents=True)
    whole = (raw / "00_image.nii.gz").read_bytes()
    (folder / "good.nii.gz").write_bytes(whole)
    (folder / "deep" / "half.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "good_label.nii.gz").write_bytes(whole[:99])  # not a scan of its own; its scan cannot be trusted either
    (folder / "empty.nrrd").write_bytes(b"")
    heard: list[tuple[str, int, int]] = []
    found = prepare_folder(folder, tmp_path / "cache", CONFIG, on_scan=lambda *said: heard.append(said))
    assert [p.name for p in found.done] == [] and set(found.failed) == {"good", "deep_half", "empty"}
    assert "half.nii.gz" in found.failed["deep_half"] and len(heard) == 3 and heard[-1][1:] == (3, 3)
    (folder / "good_label.nii.gz").unlink()
    found = prepare_folder(folder, tmp_path / "cache", CONFIG)
    assert [p.name for p in found.done] == ["good.npz"] and set(found.failed) == {"deep_half", "empty"}
    said = json.loads((tmp_path / "cache" / "broken" / "prepare.json").read_text())
    assert said["done"] == ["good"] and said["failed"] == found.failed and said["config"]["min_size"] == 60
    assert not list((tmp_path / "cache").rglob(".*"))


def test_several_processes_give_the_same(raw: Path, tmp_path: Path) -> None:
    one = prepare_folder(raw, tmp_path / "one", CONFIG).done
    two = prepare_folder(raw, tmp_path / "two", CONFIG, workers=2).done
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


@pytest.mark.parametrize("text", ["not json", "[1, 2]", '{"modality": "MR"}'])
def test_a_list_of_scans_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(VolumeError, match="dataset.json cannot be used"):
        prepare_folder(tmp_path, tmp_path / "cache")


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(VolumeError, match="holds no scan"):
        prepare_folder(tmp_path, tmp_path / "cache")


def test_pseudolabels_are_added_and_replaced(raw: Path, tmp_path: Path) -> None:
    path = prepare_folder(raw, tmp_path, CONFIG).done[0]
    before = load_scan(path)
    old = np.array(before.regions)
    assert label_folder(path.parent, PseudoConfig(superpixel_size=30))[0] == path
    superpixels = load_scan(path).layer("superpixels")
    assert superpixels.shape == old.shape and superpixels.dtype == np.uint16
    assert all(len(np.unique(s)) == s.max() + 1 for s in superpixels)
    label_folder(path.parent, PseudoConfig(min_size=400))
    after = load_scan(path)
    assert np.unique(after.regions).size < np.unique(old).size and np.array_equal(after.image, before.image)
    one, two = ([p.read_bytes() for p in label_folder(path.parent, PseudoConfig(min_size=60), workers=n)] for n in (1, 2))
    assert one == two and len(one) == 2
    with pytest.raises(VolumeError, match="no prepared scan"):
        label_folder(tmp_path)
