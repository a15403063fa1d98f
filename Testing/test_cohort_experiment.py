"""What corrections are worth, imitated on labelled scans; and what several supports are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cohort_folder import make_scan, use_bright_engine
from evaluation_folder import write_folder
from tiny_encoder import TinyEncoder

from FewShotSegLib import grid
from FewShotSegLib.cards import Card
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.evaluation import cohort_experiment, support_gain
from FewShotSegLib.evaluation.datasets import Dataset
from FewShotSegLib.segfiles import read_labels

CASES = ("a0", "a1", "a2", "a3", "a4")


@pytest.fixture
def labelled(tmp_path: Path) -> Dataset:
    """Five tiny labelled scans; in a2 the spleen is too dark to be found."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number, case in enumerate(CASES):
        volume, labels = make_scan(number)
        if case == "a2":
            volume.array[labels == 2] = 0
        volume.write(folder / f"{case}_image.nii.gz")
        volume.geometry.to_sitk(labels)
        type(volume)(labels, volume.geometry).write(folder / f"{case}_label.nii.gz")
    about = {"name": "tiny", "modality": "MR", "labels": {"1": "liver", "2": "spleen"}, "cases": list(CASES)}
    (folder / "dataset.json").write_text(json.dumps(about))
    return Dataset.open(folder)


def test_the_least_sure_cases_are_corrected_and_the_rest_is_done_again(
    labelled: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = use_bright_engine(monkeypatch)  # expects 0.5 + 0.05 x last digit of the spleen; 0 where it finds none
    found = cohort_experiment.experiment(labelled, tmp_path / "out", "a0", corrections=1, rerun="all", checkpoint="x")
    assert found.corrected == ("a2",) and found.again == ("a1", "a3", "a4") and found.others == 3
    assert found.before == found.after == 1.0 and found.better == found.worse == 0  # the engine learns nothing
    assert (found.failures, found.failures_found) == (1, 1)
    assert sorted(engines[1].names) == ["a1", "a3", "a4"]
    truth = labelled.load("a2")[1]
    layers = read_labels(Places(tmp_path / "out").result("a2"))
    assert np.array_equal(layers.mask(layers.segments[1]), truth == 2)
    record = CaseRecord.read(Places(tmp_path / "out").record("a1"))
    assert record is not None and len(record.considered) == 2
    assert cohort_experiment.experiment(labelled, tmp_path / "out", "a0", corrections=1, rerun="all").corrected == ("a2",)


def test_nearest_shared_and_farthest_supports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "DEFAULT_PIXELS", 128)
    monkeypatch.setattr(FeatureRunner, "_bf16_is_faster", lambda self: False)
    monkeypatch.setattr("FewShotSegLib.segmenter.load_checkpoint", lambda name: (TinyEncoder(), Card("tiny", modalities=["MR"])))
    dataset, file = Dataset.open(write_folder(tmp_path, ["p", "q", "r"])), tmp_path / "gain.jsonl"
    support_gain.measure(dataset, file, "tiny", ["r"], (1, 2))
    rows = support_gain.rows(file)
    assert [(row["kind"], row["supports"]) for row in rows][2:4] == [("shared 1", ["p"]), ("shared 2", ["p", "q"])]
    assert [row["kind"] for row in rows[:2]] == ["nearest 1", "nearest 2"] and rows[4]["kind"] == "farthest 1"
    assert rows[0]["supports"] + rows[4]["supports"] == rows[1]["supports"]
    assert all(0 <= value <= 1 for row in rows for value in row["dice"].values())
    support_gain.measure(dataset, file, "tiny", ["r"], (1, 2))
    assert support_gain.rows(file) == rows  # nothing is done twice


def test_the_gain_is_of_paired_queries_with_its_interval() -> None:
    kinds = {"nearest 1": (0.80, 0.84), "nearest 3": (0.84, 0.90), "shared 1": (0.80, 0.70)}
    found = [
        {"query": str(number), "kind": kind, "dice": {"liver": value - 0.1, "spleen": value + 0.1}}
        for kind, values in kinds.items()
        for number, value in enumerate(values)
    ]
    lines = support_gain.table(found).splitlines()
    assert lines[0] == "nearest 1: 82.0 (2 queries); +7.0 (-81.9 to +95.9) over shared 1, 1 of 2 better"
    assert lines[1].startswith("nearest 3: 87.0 (2 queries); +5.0 (-7.7 to +17.7) over nearest 1, 2 of 2 better")
