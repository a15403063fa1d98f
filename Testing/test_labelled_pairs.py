"""Labels that are carried between scans of two patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fewshotseg_training.carry_learner import PairSource
from fewshotseg_training.config import FitConfig
from fewshotseg_training.distributed import Share
from fewshotseg_training.labelled_pairs import draw_labelled_pair, with_labels
from fewshotseg_training.prepare import PrepareConfig, prepare_folder
from fewshotseg_training.scans import LABELS, TrainingScan, load_scan
from FewShotSegLib.errors import ConfigError, VolumeError
from FewShotSegLib.volume import Geometry, Volume

SHAPE = (6, 32, 32)
FILES = (("cache/one/a.npz", "cache/one/b.npz"), ("cache/two/c.npz", "cache/two/d.npz"))


def scan(name: str, slices: tuple[int, int], label: int = 1, *, drawn: bool = True) -> TrainingScan:
    """Grey values that tell scan and slice, one square organ on some slices, regions that tell nothing."""
    image = np.broadcast_to(np.arange(SHAPE[0])[:, None, None] + 10.0 * ord(name), SHAPE).astype(np.float16)
    labels = np.zeros(SHAPE, np.uint8)
    labels[slices[0] : slices[1], 4:20, 4:20] = label
    shown = (labels == label).any((1, 2))[:, None]
    regions = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16) // 100
    return TrainingScan(name, image, regions, 5.0, labels=(label,), present=shown, drawn=labels if drawn else None)


def two_sets() -> list[list[TrainingScan]]:
    return [[scan("a", (0, 2)), scan("b", (2, 6))], [scan("c", (1, 3), 7), scan("d", (1, 5), 7, drawn=False)]]


def test_pairs_show_one_organ_of_two_patients_at_about_the_same_height() -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(40):
        a, a_ids, b, b_ids = draw_labelled_pair(two_sets()[:1], rng)
        names = {chr(int(image[0, 0]) // 10) for image in (a, b)}
        assert names == {"a", "b"} and a_ids.dtype == torch.long
        assert set(a_ids.unique().tolist()) == set(b_ids.unique().tolist()) == {0, 1}
        seen.add(tuple(sorted(int(image[0, 0]) - 10 * ord("a") for image in (a, b))))
    assert seen == {(0, 12), (0, 13), (1, 14), (1, 15)}  # the lower half of one with the lower half of the other


def test_only_scans_with_labels_and_only_wanted_sets_are_used() -> None:
    assert [[s.name for s in scans] for scans in with_labels(two_sets(), FILES, ())] == [["a", "b"]]
    assert [[s.name for s in scans] for scans in with_labels(two_sets(), FILES, ("one",))] == [["a", "b"]]


@pytest.mark.parametrize("wanted", [("two",), ("three",), ("one", "three")])
def test_sets_without_labels_are_named(wanted: tuple[str, ...]) -> None:
    with pytest.raises(VolumeError, match=wanted[-1]) as refused:
        with_labels(two_sets(), FILES, wanted)
    assert "--keep-labels" in str(refused.value)


def test_a_set_whose_scans_share_no_label_is_refused() -> None:
    """No pair could ever be drawn from it."""
    with pytest.raises(VolumeError, match="share a label in one"):
        with_labels([[scan("a", (0, 2), 1), scan("b", (2, 6), 2)]], FILES[:1], ())


def test_a_part_of_the_pairs_carries_labels() -> None:
    config = FitConfig(FILES, "out", pairs=8, labelled=0.5)
    source = PairSource(config, two_sets(), torch.device("cpu"))
    _, ids, _, others = source.batch(1, Share())
    labelled = [set((a.unique().tolist()) + b.unique().tolist()) <= {0, 1} for a, b in zip(ids, others, strict=True)]
    assert 0 < sum(labelled) < 8
    assert not PairSource(FitConfig(FILES, "out"), two_sets(), torch.device("cpu")).labelled


def test_a_part_beyond_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="labelled"):
        FitConfig(FILES, "out", labelled=1.5)


def test_label_maps_are_kept_on_the_prepared_slices_when_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    image = np.random.default_rng(0).normal(100, 20, (6, 40, 24)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint16)
    labels[2:4, 10:30, 6:18] = 300
    geometry = Geometry((24, 40, 6), (2.0, 2.0, 5.0))
    Volume(image, geometry).write(folder / "p_image.nii.gz")
    Volume(labels, geometry).write(folder / "p_label.nii.gz")
    config = PrepareConfig(min_size=50, size=64)
    (file,) = prepare_folder(folder, tmp_path / "cache", config).done
    assert load_scan(file).drawn is None
    before = file.read_bytes()
    (file,) = prepare_folder(folder, tmp_path / "cache", PrepareConfig(min_size=50, size=64, keep_labels=True)).done
    kept = load_scan(file)
    assert file.read_bytes() == before and file.with_name("p" + LABELS).exists()
    assert kept.drawn is not None and kept.drawn.shape == kept.image.shape and kept.drawn.dtype == np.uint16
    assert np.array_equal((kept.drawn == 300).any((1, 2)), kept.shows([300])[:, 0])
    rows, columns = (np.flatnonzero((kept.drawn == 300).any(axes)) for axes in ((0, 2), (0, 1)))
    assert abs(rows.mean() - 32) < 2 and abs(columns.mean() - 32) < 2  # the organ lay in the middle, and the slice is padded
