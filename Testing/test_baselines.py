from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_folder import GEOMETRY, SHAPE, image_of, labels_of, write_folder
from scipy import ndimage

from FewShotSegLib.errors import ConfigError, FewShotSegError
from FewShotSegLib.evaluation.annotation import draw, organ_slices
from FewShotSegLib.evaluation.baselines import create_baseline, elastix, fill_between, list_baselines
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.evaluation.run import EvaluateConfig, evaluate
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.support import Organ, Support
from FewShotSegLib.volume import Geometry, Volume

LIVER, SPLEEN = Organ("liver", 1), Organ("spleen", 2)


def drawing(case: int = 0, count: int | None = None, rule: Any = "ends") -> Support:
    support = draw(Volume(image_of(case), GEOMETRY, "support"), labels_of(case), (LIVER, SPLEEN), count, rule)
    assert support is not None
    return support


def undrawn_dice(found: Segmentation, support: Support, case: int = 0) -> list[float]:
    rows = zip(support.organs, support.drawn, strict=True)
    return [dice(found.mask(organ), labels_of(case) == organ.label, ~drawn) for organ, drawn in rows]


def extents(case: int) -> dict[str, tuple[int, int]]:
    slices = {organ.name: organ_slices(labels_of(case), organ) for organ in (LIVER, SPLEEN)}
    return {name: (shown[0], shown[-1]) for name, shown in slices.items()}


def cone() -> np.ndarray:
    """A mask whose discs grow from slice to slice."""
    z, y, x = np.ogrid[:9, :40, :40]
    return (y - 20) ** 2 + (x - 20) ** 2 <= (6 + z) ** 2


def test_the_registry_knows_all_and_refuses_others() -> None:
    assert list_baselines() == ["elastix", "fill-between", "grow-from-seeds", "paste"]
    assert all(create_baseline(name).name == name for name in list_baselines() if name != "elastix")
    with pytest.raises(ConfigError, match="paste"):
        create_baseline("ants")


@pytest.mark.parametrize("name", ["paste", "grow-from-seeds"])
def test_a_missing_extent_is_refused(name: str) -> None:
    support = drawing()
    with pytest.raises(ConfigError, match="extent"):
        create_baseline(name).segment(support, support.image)


def test_several_supports_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 supports"):
        create_baseline("fill-between").segment([drawing(), drawing()], drawing().image)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill_between.importlib.util, "find_spec", lambda name: None)
    support = drawing(count=2)
    with pytest.raises(ConfigError, match="pip install slicer-core"):
        create_baseline("fill-between").segment(support, support.image)


def test_paste_takes_the_mask_of_the_matching_third() -> None:
    masks = np.zeros((1, 9, 4, 4), bool)
    for z in range(9):
        masks[0, z, 0, : 1 + z // 3] = True
    geometry = Geometry((4, 4, 9), (1, 1, 5))
    support = Support.create(Volume(np.zeros((9, 4, 4)), geometry), masks, [LIVER], slices="all")
    query = Volume(np.zeros((12, 4, 4)), Geometry((4, 4, 12), (1, 1, 5)))
    found = create_baseline("paste").segment(support, query, extent={"liver": (2, 8)})
    assert found.labels.sum((1, 2)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, 0, 0, 0]


def test_paste_in_the_same_scan_takes_the_nearest_drawn_slice() -> None:
    support = drawing(count=2)
    found = create_baseline("paste").segment(support, support.image, extent=extents(0))
    assert undrawn_dice(found, support) == [1.0, 1.0]


def test_paste_stretches_to_another_image_size() -> None:
    support = drawing()
    query = Volume(np.zeros((14, 80, 20)), Geometry((20, 80, 14), (3, 0.75, 6)))
    found = create_baseline("paste").segment(support, query, extent={"liver": (2, 9)})
    expected = labels_of(0)[5].repeat(2, axis=0)[:, 1::2] == 1
    np.testing.assert_array_equal(found.mask("liver")[5], expected)
    assert not found.mask("spleen").any()


def test_where_organs_overlap_the_first_one_wins_but_each_is_scored_whole() -> None:
    masks = np.ones((2, *SHAPE), bool)
    support = Support.create(Volume(image_of(0), GEOMETRY), masks, [SPLEEN, LIVER], slices="all")
    found = create_baseline("paste").segment(support, support.image, extent={"liver": (0, 13), "spleen": (0, 13)})
    assert (found.labels == SPLEEN.label).all()
    assert found.mask(LIVER).all() and found.mask("spleen").all() and found.mask(1).all()
    with pytest.raises(KeyError):
        found.mask("kidney")


def test_fill_between_fills_between_and_nowhere_else() -> None:
    pytest.importorskip("slicer_core", reason="fill-between needs the package slicer-core")
    truth = cone()
    drawn = np.isin(np.arange(9), [1, 7])
    filled = fill_between.fill_between(truth[None], drawn[None])[0]
    np.testing.assert_array_equal(filled[drawn], truth[drawn])
    assert not filled[[0, 8]].any()
    assert dice(filled, truth, np.isin(np.arange(9), range(2, 7))) > 0.9


def test_fill_between_leaves_a_single_slice_and_an_empty_organ_alone() -> None:
    pytest.importorskip("slicer_core", reason="fill-between needs the package slicer-core")
    masks = np.stack([cone(), np.zeros((9, 40, 40), bool)])
    drawn = np.zeros((2, 9), bool)
    drawn[:, 4] = True
    filled = fill_between.fill_between(masks, drawn)
    np.testing.assert_array_equal(filled, masks & drawn[:, :, None, None])


def test_a_filter_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("slicer_core", reason="fill-between needs the package slicer-core")
    monkeypatch.setattr(fill_between, "WORKER", "no.such.module")
    with pytest.raises(FewShotSegError, match="interpolation failed"):
        fill_between.fill_between(cone()[None], np.ones((1, 9), bool))


@pytest.mark.parametrize("count", [1, 3])
def test_grow_from_seeds_finds_bright_bricks(count: int) -> None:
    pytest.importorskip("slicer_core", reason="grow-from-seeds needs the package slicer-core")
    support = drawing(count=count)
    found = create_baseline("grow-from-seeds").segment(support, support.image, extent=extents(0))
    assert min(undrawn_dice(found, support)) > 0.95
    for organ, mask, drawn in zip(support.organs, support.masks, support.drawn, strict=True):
        np.testing.assert_array_equal(found.mask(organ)[drawn], mask[drawn])


@pytest.fixture
def short_registration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few iterations on few samples: enough for the tiny scans."""
    pytest.importorskip("itk", reason="elastix needs the package itk-elastix")
    stages = {name: settings | {"MaximumNumberOfIterations": ("40",)} for name, settings in elastix.STAGES.items()}
    monkeypatch.setattr(elastix, "STAGES", stages)
    monkeypatch.setattr(elastix, "COMMON", elastix.COMMON | {"NumberOfSpatialSamples": ("500",)})


def moved(shift: tuple[float, float, float]) -> np.ndarray:
    return ndimage.shift(image_of(0).astype(float), shift, order=1, mode="nearest")


def test_elastix_follows_a_shift_and_repeats_itself(short_registration: None) -> None:
    support = drawing()
    query = Volume(moved((0, 4, -3)), GEOMETRY, "query")
    truth = np.roll(labels_of(0), (4, -3), (1, 2))
    results = [create_baseline("elastix", seed=3).segment(support, query) for _ in range(2)]
    assert min(dice(results[0].mask(organ), truth == organ.label) for organ in support.organs) > 0.85
    assert max(dice(support.masks[i], truth == organ.label) for i, organ in enumerate(support.organs)) < 0.8
    np.testing.assert_array_equal(results[0].labels, results[1].labels)


def test_elastix_completes_a_sparse_drawing(short_registration: None) -> None:
    pytest.importorskip("slicer_core", reason="completing a drawing needs the package slicer-core")
    support = drawing(count=3)
    found = create_baseline("elastix").segment(support, Volume(moved((0, 0, 0)), GEOMETRY))
    assert found.mask("liver").any((1, 2)).sum() >= 6


def test_evaluate_runs_a_baseline_by_name(tmp_path: Path) -> None:
    result = evaluate(EvaluateConfig(write_folder(tmp_path, ["a", "b"]), method="paste", protocol="oracle-z"))
    assert 0 < result.mean_dice < 100 and result.method == "paste"
