"""Which episodes can be drawn: the published sets, the rules of setting 2, and every slice where it belongs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.objectives.base import Recipe  # noqa: E402
from fewshotseg_training.sampling import Draw, Sampler, excluded_slices, runs  # noqa: E402
from fewshotseg_training.scans import TrainingScan  # noqa: E402
from FewShotSegLib.errors import VolumeError  # noqa: E402

SUPERVOXEL = Recipe(source="supervoxel", min_pixels=10)


def scan(regions: np.ndarray, present: np.ndarray | None = None, labels: tuple[int, ...] = (), name: str = "a") -> TrainingScan:
    image = np.zeros(regions.shape, np.int16)
    layers = regions.astype(np.uint16)
    return TrainingScan(name, image, layers, 5.0, superpixels=layers, labels=labels, present=present)


def draws(sampler: Sampler, count: int = 300) -> list[Draw]:
    return [sampler.draw(np.random.default_rng(i)) for i in range(count)]


def stack(*slices: list[int]) -> np.ndarray:
    """Slices of 10 x 10 pixels; each number of a slice's list fills some rows."""
    return np.stack([np.repeat(np.resize(s, 10), 10).reshape(10, 10) for s in slices])


@pytest.mark.parity
@pytest.mark.parametrize("case", ["case0", "case1", "case2"])
def test_golden_reachable_episodes(golden_dir: Path, case: str) -> None:
    with np.load(golden_dir / "adnet_family" / "episodes.npz") as golden:
        regions, gt = golden[f"{case}/supervoxels"], golden[f"{case}/gt"]
        exclude = tuple(int(v) for v in golden[f"{case}/exclude"])
        present = np.stack([(gt == v).any((1, 2)) for v in exclude], 1) if exclude else np.zeros((len(gt), 0), bool)
        recipe = replace(SUPERVOXEL, min_pixels=int(golden[f"{case}/min_size"]))
        wanted = {tuple(row) for row in golden[f"{case}/reachable_class_suppz_qryz"].tolist()}
        if exclude:
            for rule, name in (("all", "AND"), ("any", "OR")):
                found = np.flatnonzero(excluded_slices(present, rule))
                assert found.tolist() == golden[f"{case}/excluded_slices_{name}"].tolist()
        sampler = Sampler([[scan(regions, present, exclude)]], recipe, exclude, "all")
        assert {(d.id, d.support[0], d.query[0]) for d in draws(sampler, 3000)} == wanted


def test_runs_are_split_where_a_slice_is_missing() -> None:
    assert [r.tolist() for r in runs(np.array([1, 2, 4, 6, 7, 8]))] == [[1, 2], [6, 7, 8]]


def test_adnet_takes_neighbours_in_the_list_of_slices() -> None:
    regions = stack([5, 1], [1], [5, 1], [1])
    assert {(d.support[0], d.query[0]) for d in draws(Sampler([[scan(regions)]], SUPERVOXEL)) if d.id == 5} == set()
    published = Sampler([[scan(regions)]], replace(SUPERVOXEL, adjacent=False))
    assert {(d.support[0], d.query[0]) for d in draws(published) if d.id == 5} == {(0, 2), (2, 0)}


def test_superpixels_are_drawn_evenly_and_twice_the_same() -> None:
    regions = stack([0, 1, 2, 3], [0, 0], [7, 8])
    found = draws(Sampler([[scan(regions)]], Recipe()), 600)
    counts = {i: sum(d.id == i for d in found) for i in (1, 2, 3, 7, 8)}
    assert all(d.support == d.query and not d.realistic for d in found) and sum(counts.values()) == 600
    assert counts[7] > 1.2 * counts[1] and min(counts.values()) > 60  # each slice alike, each region of it alike


@pytest.mark.parametrize("source", ["superpixel", "supervoxel", "flow", "volume"])
@pytest.mark.parametrize("rule", ["any", "all"])
def test_excluded_slices_never_come(source: str, rule: str) -> None:
    present = np.zeros((12, 2), bool)
    present[5] = present[6, 0] = True
    several = 2 if source in ("flow", "volume") else 1
    support = 2 if source == "volume" else 1
    recipe = Recipe(source=source, support=support, query=several, reach=1, min_pixels=5)  # type: ignore[arg-type]
    one = scan(stack(*[[1, 2, 3]] * 12), present, (4, 9))
    found = draws(Sampler([[one]], recipe, (4, 9), rule))  # type: ignore[arg-type]
    used = {z for d in found for z in (*d.support, *d.query)}
    assert used == set(range(12)) - ({5, 6} if rule == "any" else {5})


def test_neighbours_are_some_of_those_around_in_order() -> None:
    found = draws(Sampler([[scan(stack(*[[1, 2]] * 9))]], Recipe(source="flow", query=3, reach=2)))
    for d in found:
        assert d.realistic and 2 <= d.support[0] < 7 and list(d.query) == sorted(d.query)
        assert len(set(d.query)) == 3 and all(0 < abs(z - d.support[0]) <= 2 for z in d.query)
    assert len({tuple(z - d.support[0] for z in d.query) for d in found}) == 4


def test_volumes_are_runs_that_show_the_supervoxel() -> None:
    regions = stack(*[[1]] * 4, *[[2]] * 6)
    found = draws(Sampler([[scan(regions)]], Recipe(source="volume", support=3, query=3, min_pixels=150)))
    starts = {(d.id, d.support[0]) for d in found}
    assert starts == {(1, 0), (1, 1), (1, 2), (2, 3), (2, 4), (2, 5), (2, 6), (2, 7)}
    assert all(d.support == tuple(range(d.support[0], d.support[0] + 3)) for d in found)


def test_mixed_and_partly_realistic_sources() -> None:
    one = scan(stack(*[[1, 2]] * 9))
    mixed = draws(Sampler([[one]], replace(SUPERVOXEL, source="mixed")))
    assert 100 < sum(d.kind == "regions" for d in mixed) < 200
    partly = draws(Sampler([[one]], Recipe(realistic=0.5, reach=3)))
    assert 100 < sum(d.realistic for d in partly) < 200


def test_sets_are_drawn_from_equally_often() -> None:
    sets = [[scan(stack([1, 2]), name="small")], [scan(stack(*[[1, 2]] * 5), name="large")] * 9]
    assert 110 < sum(d.scan.name == "small" for d in draws(Sampler(sets, Recipe()))) < 190


def test_nothing_to_draw_is_told() -> None:
    with pytest.raises(VolumeError, match="No episode from 1 scans"):
        Sampler([[scan(stack([1], [2]))]], replace(SUPERVOXEL, min_pixels=101)).draw(np.random.default_rng(0))
