"""Scans that lie differently from the drawn one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder
from torch import Tensor

from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.encoding import encode_scan
from FewShotSegLib.grid import AxialGrid
from FewShotSegLib.phantom import make_patient
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.turns import NAMES, Turn, can_be_turned, find_turn
from FewShotSegLib.volume import Geometry, Volume

pytestmark = pytest.mark.usefixtures("small_and_steady")
ALL = list(NAMES)
DIRECTIONS = {
    "along LPS": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "to right and front": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "other axes first": (0, 1, 0, 0, 0, 1, 1, 0, 0),
    "left-handed": (1, 0, 0, 0, -1, 0, 0, 0, -1),
}


class Place(TinyEncoder):
    """Features that know where a cell lies, as trained encoders do: grey level, row and column."""

    def forward(self, slices: Tensor) -> Tensor:
        features = super().forward(slices)
        rows, columns = (torch.linspace(-2, 2, n) for n in features.shape[2:])
        features[:, 0] = rows[:, None]
        features[:, 1] = columns[None]
        return features


def volume(direction: tuple[float, ...] = DIRECTIONS["along LPS"], shape: tuple[int, int, int] = (5, 16, 24)) -> Volume:
    geometry = Geometry((shape[2], shape[1], shape[0]), (2.0, 2.0, 2.0), (5.0, -7.0, 11.0), direction)
    return Volume(np.random.default_rng(0).normal(size=shape).astype(np.float32), geometry, "scan", "MR")


def on_grid(of: Volume) -> Tensor:
    grid = AxialGrid.of(of.geometry, pixel_mm=1.0)
    return torch.from_numpy(grid.forward_slices(of.array, np.arange(grid.shape[0]), order=1, fill=0.0))


@pytest.mark.parametrize("turn", ALL, ids=NAMES.get)
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_a_turned_volume_has_turned_slices(turn: Turn, direction: tuple[float, ...]) -> None:
    scan = volume(direction)
    assert torch.allclose(on_grid(turn.of(scan)), turn.of_slices(on_grid(scan)), atol=1e-5)


@pytest.mark.parametrize("turn", ALL, ids=NAMES.get)
def test_a_turned_volume_keeps_its_voxels(turn: Turn) -> None:
    scan = volume()
    turned = turn.of(scan)
    assert turned.array is scan.array and turned.geometry.size == scan.geometry.size
    assert turned.geometry.spacing == scan.geometry.spacing


def test_all_eight_ways_differ() -> None:
    scan = volume(shape=(2, 16, 16))
    assert len({turn.of_slices(on_grid(scan)).numpy().tobytes() for turn in ALL}) == len(ALL) == 8


@pytest.mark.parametrize("turn", ALL, ids=NAMES.get)
def test_the_way_back_is_found(turn: Turn) -> None:
    patient = make_patient(0, shape=(8, 64, 64)).volume
    runner = FeatureRunner(Place(), torch.device("cpu"))
    support, query = (encode_scan(v, runner, every_mm=1.0) for v in (patient, turn.of(patient)))
    back = find_turn(query, support, runner)
    assert torch.equal(back.of_slices(turn.of_slices(on_grid(patient))), on_grid(patient))


def test_slices_that_are_not_axial_are_not_turned() -> None:
    runner = FeatureRunner(TinyEncoder(), torch.device("cpu"))
    axial, sagittal = volume(), volume(DIRECTIONS["other axes first"])
    sagittal = replace(sagittal, geometry=replace(sagittal.geometry, spacing=(2.0, 2.0, 9.0)))
    assert can_be_turned(encode_scan(axial, runner, every_mm=1.0))
    assert not can_be_turned(encode_scan(sagittal, runner, every_mm=1.0))


@pytest.fixture
def support() -> Support:
    patient = make_patient(0, shape=(8, 64, 64))
    organs = patient.organs[:1]
    return Support.create(patient.volume, np.stack([patient.labels == o.label for o in organs]), organs, slices="all")


def test_a_mirrored_scan_is_segmented_like_the_scan(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    """Result on the scan's own voxels and geometry, with a note that tells what was done."""
    monkeypatch.setattr("FewShotSegLib.segmenter.UNSURE", 2.0)
    query = replace(support.image, array=support.image.array + 1)
    mirrored = Turn(columns=True).of(query)
    plain, turned, off = (
        Segmenter(SegmenterConfig(device="cpu", turns=turns), encoder=Place()).segment(support, scan)
        for scan, turns in ((query, True), (mirrored, True), (mirrored, False))
    )
    assert plain.notes == () and off.notes == ()
    assert np.array_equal(turned.labels, plain.labels) and turned.geometry is mirrored.geometry
    assert "mirrored left to right" in turned.notes[0] and not np.array_equal(off.labels, plain.labels)


def test_a_sure_result_is_not_questioned(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("FewShotSegLib.segmenter.UNSURE", 0.0)
    monkeypatch.setattr("FewShotSegLib.segmenter.find_turn", lambda *args: pytest.fail("asked"))
    query = replace(support.image, array=support.image.array + 1)
    assert Segmenter(SegmenterConfig(device="cpu"), encoder=Place()).segment(support, query).notes == ()


def test_a_turn_that_makes_it_no_surer_is_not_taken(support: Support, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("FewShotSegLib.segmenter.UNSURE", 2.0)
    monkeypatch.setattr("FewShotSegLib.segmenter.find_turn", lambda *args: Turn(rows=True))
    query = replace(support.image, array=support.image.array + 1)
    found, plain = (
        Segmenter(SegmenterConfig(device="cpu", turns=turns), encoder=Place()).segment(support, query) for turns in (True, False)
    )
    assert found.notes == () and np.array_equal(found.labels, plain.labels)
