from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_encoder import TinyEncoder

from FewShotSegLib import demo
from FewShotSegLib.cli import main
from FewShotSegLib.demo import DemoConfig, Demonstration, Use, demonstrate
from FewShotSegLib.errors import Cancelled, CheckpointError, ConfigError, OutputError
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.phantom import make_patient, save_case
from FewShotSegLib.progress import Progress
from FewShotSegLib.resources import resource_dir
from FewShotSegLib.samples import SampleScan
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import DEFAULT_CHECKPOINT, Segmenter, SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

SMALL = (8, 64, 64)
DEFAULT_IS_THERE = (resource_dir("checkpoints") / f"{DEFAULT_CHECKPOINT}.safetensors").is_file()


@pytest.fixture(scope="module")
def quick() -> Callable[[SegmenterConfig], Segmenter]:
    return lambda config: Segmenter(config, encoder=TinyEncoder())  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def shown(quick: Callable[[SegmenterConfig], Segmenter], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Demonstration]:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "Segmenter", quick)
        return folder, demonstrate(DemoConfig(folder, shape=SMALL))


def test_both_uses_are_shown_with_their_scores(shown: tuple[Path, Demonstration]) -> None:
    new, same = shown[1].uses
    assert new.title == "patient A drawn whole, then patient B" and new.scored == "Dice"
    assert same.title == "One drawn slice of each organ of patient B" and same.scored == "Dice, slices not drawn"
    for use in (new, same):
        assert [organ.name for organ in use.organs] == ["liver", "right kidney", "left kidney", "spleen"]
        assert all(0 <= organ.dice <= 1 for organ in use.organs)


def test_scores_and_volumes_are_those_of_the_written_files(shown: tuple[Path, Demonstration]) -> None:
    truth = make_patient(demo.SEEDS[1], "MR", SMALL).labels
    result = read_labels(shown[1].uses[0].result)
    for found, segment in zip(shown[1].uses[0].organs, result.segments, strict=True):
        mask = result.mask(segment)
        assert found.dice == pytest.approx(dice(mask, truth == segment.organ.label))
        assert found.ml == pytest.approx(mask.sum() * result.geometry.voxel_ml)


def test_everything_can_be_opened(shown: tuple[Path, Demonstration]) -> None:
    folder, done = shown
    for use in done.uses:
        scan = Volume.read(use.query)
        assert read_labels(use.result).geometry.same_as(scan.geometry)
        assert use.picture.is_file() and use.picture.parent == folder
    assert done.report == folder / "report.html" and "patient A drawn whole" in done.report.read_text(encoding="utf-8")
    names = {path.name for path in folder.iterdir()}
    assert {"patient_A.nii.gz", "patient_B.nii.gz", "new_scan.seg.nrrd", "same_scan.seg.nrrd", "run.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    assert json.loads((folder / "run.json").read_text())["demo"]["seeds"] == list(demo.SEEDS)


def test_the_written_drawings_teach_the_same_again(shown: tuple[Path, Demonstration]) -> None:
    new, same = shown[1].uses
    whole, sparse = (Support.read(use.image, use.drawing) for use in (new, same))
    assert not whole.is_sparse
    assert sparse.drawn.sum(1).tolist() == [1, 1, 1, 1]
    result = read_labels(same.result)
    for organ, mask, drawn in zip(sparse.organs, sparse.masks, sparse.drawn, strict=True):
        segment = next(s for s in result.segments if s.organ.name == organ.name)
        assert np.array_equal(result.mask(segment)[drawn], mask[drawn])


def test_a_drawn_slice_does_not_count() -> None:
    patient = make_patient(0, shape=SMALL)
    masks = np.stack([patient.labels == organ.label for organ in patient.organs])
    support = Support.create(patient.volume, masks, patient.organs, slices=[4])
    only_drawn = np.where(np.arange(8)[:, None, None] == 4, patient.labels, 0).astype(np.uint8)
    unsure = np.zeros(4), np.zeros((4, 8))
    result = Segmentation(patient.volume.geometry, patient.organs, only_drawn, *unsure)
    assert Use("", "", support, patient.volume, patient.labels).scores(result) == [0.0] * 4
    elsewhere = replace(result, labels=np.where(only_drawn, 0, patient.labels).astype(np.uint8))
    assert Use("", "", support, patient.volume, patient.labels).scores(elsewhere) == [1.0] * 4
    assert Use("", "", support, make_patient(0, shape=SMALL).volume, patient.labels).scores(result)[0] < 0.5
    assert np.isnan(Use("", "", support, patient.volume, None).scores(result)).all()


def test_a_data_folder(
    quick: Callable[[SegmenterConfig], Segmenter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(demo, "Segmenter", quick)
    for seed in (5, 7):
        save_case(tmp_path / "data", seed, shape=SMALL)
    assert main(["demo", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "case 05 drawn whole, then case 07" in shown and "slices not drawn" in shown
    assert str(tmp_path / "out" / "report.html") in shown
    assert np.array_equal(Volume.read(tmp_path / "out" / "case_07.nii.gz").array, make_patient(7, shape=SMALL).volume.array)


def test_a_sample_scan_has_one_use_and_no_dice(
    quick: Callable[[SegmenterConfig], Segmenter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scan = make_patient(3, "CT", (24, 96, 96)).volume.write(tmp_path / "liver.nrrd")
    monkeypatch.setattr(SampleScan, "fetch", lambda self, **options: scan)
    monkeypatch.setattr(demo, "Segmenter", quick)
    assert main(["demo", "--sample", "ctliver", "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "One drawn slice of liver in CTLiver" in shown and "Dice" not in shown
    assert {"CTLiver.nii.gz", "same_scan.seg.nrrd", "same_scan_drawing.seg.nrrd"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of them"):
        DemoConfig(tmp_path, sample="CTLiver", data=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        demonstrate(DemoConfig(tmp_path / "file" / "demo"))
    with pytest.raises(CheckpointError):
        demonstrate(DemoConfig(tmp_path / "demo", segmenter=SegmenterConfig(checkpoint="no such")))
    assert not (tmp_path / "demo").exists()


def test_progress_is_heard_and_cancelling_stops(
    quick: Callable[[SegmenterConfig], Segmenter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "Segmenter", quick)
    moments: list[Progress] = []
    with pytest.raises(Cancelled):
        demonstrate(DemoConfig(tmp_path / "demo", shape=SMALL), lambda title: moments.append, lambda: len(moments) > 2)
    assert len(moments) == 3
    assert not (tmp_path / "demo").exists()


@pytest.mark.skipif(not DEFAULT_IS_THERE, reason=f"Resources/checkpoints does not hold {DEFAULT_CHECKPOINT} yet")
def test_the_default_checkpoint_finds_the_organs(tmp_path: Path) -> None:
    new, same = demonstrate(DemoConfig(tmp_path, shape=(18, 128, 128))).uses
    assert np.mean([organ.dice for organ in new.organs]) > 0.88
    assert np.mean([organ.dice for organ in same.organs]) > 0.8
