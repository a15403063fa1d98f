"""What is expected of a result: features, calibration, nearest supports, outliers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder

from FewShotSegLib import grid
from FewShotSegLib.cohort.features import DESCRIPTIONS, measure
from FewShotSegLib.cohort.nearest import Descriptor, nearest
from FewShotSegLib.cohort.outliers import FAR, robust_z, volume_z
from FewShotSegLib.cohort.quality import Calibration, built_in, predict
from FewShotSegLib.correspondence import ScanFeatures
from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.phantom import make_patient
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, Solved
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.support import Support

SHAPE = (8, 48, 48)


@pytest.fixture(scope="module")
def solved() -> Iterator[tuple[Solved, Segmentation, Segmenter]]:
    """A phantom's liver and spleen, found in the same body with other noise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "DEFAULT_PIXELS", 128)
        patch.setattr(FeatureRunner, "_bf16_is_faster", lambda self: False)
        one = make_patient(0, shape=SHAPE)
        organs = (one.organs[0], one.organs[3])
        support = Support.create(one.volume, np.stack([one.labels == o.label for o in organs]), organs, slices="all")
        noise = np.random.default_rng(0).normal(0, 3, SHAPE).astype(np.float32)
        segmenter, found = Segmenter(SegmenterConfig(device="cpu"), encoder=TinyEncoder()), list[Solved]()  # type: ignore[arg-type]
        done = segmenter.segment(support, replace(one.volume, array=one.volume.array + noise), inspect=found.append)
        yield found[0], done, segmenter


def test_features_are_all_there_and_sink_when_the_result_gets_worse(solved: tuple[Solved, Segmentation, Segmenter]) -> None:
    task, done, _ = solved
    good = measure(task, done.confidence)
    assert [set(values) for values in good] == [set(DESCRIPTIONS)] * 2
    assert all(math.isfinite(value) for values in good for value in values.values())
    index = task.index.copy()
    index[:, :, : SHAPE[2] // 2][index[:, :, : SHAPE[2] // 2] == 1] = 0  # a part of the liver is lost
    index = np.roll(index, 12, 1)
    bad = measure(replace(task, index=index), done.confidence)
    assert bad[0]["votes"] < good[0]["votes"] - 0.1 and bad[0]["worst"] < good[0]["worst"]
    index = task.index.copy()
    index[::2][index[::2] == 1] = 0  # every other slice
    assert measure(replace(task, index=index), done.confidence)[0]["steady"] < good[0]["steady"]


def test_an_organ_that_was_not_found_has_no_features_and_nothing_is_expected(
    solved: tuple[Solved, Segmentation, Segmenter],
) -> None:
    task, done, segmenter = solved
    gone = replace(task, index=np.where(task.index == 2, 0, task.index))
    found = predict(gone, done, segmenter)
    assert set(found.features["liver"]) == set(DESCRIPTIONS) and found.features["spleen"] == {}
    assert 0 < found.expected("liver") <= 0.98 and found.expected("spleen") == 0.0 and math.isnan(found.expected("other"))


def test_a_scan_that_teaches_itself_is_not_judged(solved: tuple[Solved, Segmentation, Segmenter]) -> None:
    task, done, segmenter = solved
    own = replace(task, scan=task.supports[0].scan)
    assert predict(own, done, segmenter).dice == {}


# ---------------------------------------------------------------------------------------------- calibration


def test_a_calibration_finds_what_tells_and_never_turns_a_feature_round(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [{"share": a, "noise": b, "wrong": -a, "size": c} for a, b, c in rng.uniform(0.01, 1, (200, 3))]
    dice = [0.2 + 0.5 * row["share"] + 0.2 * row["size"] for row in rows]
    made = Calibration.fit(rows, dice, ("share", "noise", "wrong", "size"), ridge=10.0)
    assert made.weights[2] == 0 and made.weights[1] < 0.01 and min(made.weights) >= 0
    assert np.abs([made.predict(row) - true for row, true in zip(rows, dice, strict=True)]).max() < 0.03
    assert made.predict({}) == 0.0 and math.isnan(made.predict({"share": 1.0}))
    made.write(tmp_path / "made.json")
    assert Calibration.read(tmp_path / "made.json").predict(rows[0]) == pytest.approx(made.predict(rows[0]), abs=1e-4)


def test_the_calibration_that_comes_along_says_where_it_is_from(tmp_path: Path) -> None:
    made = built_in()
    assert made.features == tuple(DESCRIPTIONS) and min(made.weights) >= 0 and max(made.weights) > 0
    assert set(made.made_from["left_out"]) == set(made.made_from["fitted_on"])
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read"):
        Calibration.read(tmp_path / "bad.json")


# ------------------------------------------------------------------------------------------ nearest supports


def scan(seed: int, slices: int = 12, noise: float = 0.0) -> ScanFeatures:
    rng = torch.Generator().manual_seed(seed)
    features = torch.randn(slices, 8, 8, 8, generator=rng)
    features = features.cumsum(0) / 3  # neighbouring slices are alike
    features = features + noise * torch.randn(features.shape, generator=torch.Generator().manual_seed(99))
    return ScanFeatures(torch.nn.functional.normalize(features, dim=1), torch.ones(slices, 8, 8), 5.0, 1.0)


def test_a_scan_is_most_like_itself_then_like_its_noisy_copy(tmp_path: Path) -> None:
    mine = Descriptor.of(scan(0))
    alike = [mine.similarity(Descriptor.of(other)) for other in (scan(0), scan(0, noise=0.3), scan(1))]
    assert alike == sorted(alike, reverse=True) and alike[0] > 0.95 and alike[2] < 0.7
    mine.write(tmp_path / "mine.npz")
    again = Descriptor.read(tmp_path / "mine.npz")
    assert again is not None and again.similarity(mine) == pytest.approx(alike[0])


def test_a_long_scan_has_a_short_descriptor_and_a_damaged_file_none(tmp_path: Path) -> None:
    assert Descriptor.of(scan(0, 100)).features.shape == (20, 8, 4, 4)
    (tmp_path / "damaged.npz").write_bytes(b"PK")
    assert Descriptor.read(tmp_path / "damaged.npz") is None and Descriptor.read(tmp_path / "none.npz") is None


def test_the_nearest_of_several() -> None:
    assert nearest([0.2, 0.9, 0.5, 0.9], 2) == [1, 3] and nearest([0.2, 0.9, 0.5], 0) == [1, 2, 0]
    assert nearest([0.2], 3) == [0]


# ------------------------------------------------------------------------------------------------- outliers


def test_outliers_by_median_and_deviation() -> None:
    z = robust_z([10, 11, 9, 10.5, 9.5, 30, math.nan])
    assert z[5] > FAR and np.abs(z[:5]).max() < FAR and math.isnan(z[6])
    assert np.isnan(robust_z([1, 2, 3, 100])).all()  # too few to say
    volumes = volume_z([100, 110, 95, 105, 0, 900])
    assert volumes[5] > FAR and math.isnan(volumes[4])
    assert np.abs(robust_z([0.8, 0.8001, 0.8, 0.8, 0.81])).max() < 1  # hardly differing
