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
    assert [(row["kind"], len(row["supports"])) for row in rows] == [
        ("nearest 1", 1), ("nearest 2", 2), ("shared 1", 1), ("farthest 1", 1)
    ]  # fmt: skip
    assert rows[2]["supports"] == ["p"] and rows[0]["supports"] + rows[3]["supports"] == rows[1]["supports"]
    assert all(0 <= value <= 1 for row in rows for value in row["dice"].values())
    support_gain.measure(dataset, file, "tiny", ["r"], (1, 2))
    assert support_gain.rows(file) == rows  # nothing is done twice
    table = support_gain.table(rows)
    assert "nearest 1" in table and "(1 queries, 0 better than nearest 1)" in table.splitlines()[0]
