from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_folder import GEOMETRY, image_of, labels_of, write_folder

from FewShotSegLib.errors import ConfigError, VolumeError
from FewShotSegLib.evaluation.datasets import Dataset
from FewShotSegLib.volume import Geometry, Volume

SABS_LABELS = ("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path, ["a", "b"])


def test_open_reads_the_description(folder: Path) -> None:
    dataset = Dataset.open(folder)
    assert (dataset.name, dataset.modality, dataset.cases) == ("bricks", "MR", ("a", "b"))
    assert [(organ.name, organ.label) for organ in dataset.organs] == [("liver", 1), ("spleen", 2)]


def test_load_gives_the_scan_and_its_labels(folder: Path) -> None:
    image, labels = Dataset.open(folder).load("b")
    assert (image.name, image.modality) == ("b", "MR")
    np.testing.assert_array_equal(image.array, image_of(1))
    np.testing.assert_array_equal(labels, labels_of(1))
    assert np.issubdtype(labels.dtype, np.integer)


@pytest.mark.parametrize("choice", ["spleen", "Spleen", 2, "2"])
def test_an_organ_by_name_or_number(folder: Path, choice: str | int) -> None:
    assert [organ.label for organ in Dataset.open(folder, [choice]).organs] == [2]


@pytest.mark.parametrize("choice", ["kidney", 7, "0", 0])
def test_an_unknown_organ_is_refused_and_the_known_ones_named(folder: Path, choice: str | int) -> None:
    with pytest.raises(ConfigError, match="1 liver, 2 spleen"):
        Dataset.open(folder, [choice])


def test_the_papers_four_are_scored_where_there_are_more(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a"], labels={str(i): name for i, name in enumerate(SABS_LABELS, 1)})
    assert [organ.label for organ in Dataset.open(tmp_path).organs] == [6, 2, 3, 1]


def test_scored_in_the_description_comes_first(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a"], labels={str(i): name for i, name in enumerate(SABS_LABELS, 1)}, scored=[4, 5])
    assert [organ.name for organ in Dataset.open(tmp_path).organs] == ["gallbladder", "esophagus"]
    assert [organ.name for organ in Dataset.open(tmp_path, ["liver"]).organs] == ["liver"]


def test_unnamed_labels_must_be_chosen_by_number(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a"], labels="numbers of some public list")
    with pytest.raises(ConfigError, match="by number"):
        Dataset.open(tmp_path)
    assert [(organ.name, organ.label) for organ in Dataset.open(tmp_path, [5]).organs] == [("label 5", 5)]


def test_cases_without_labels_are_not_labelled(folder: Path) -> None:
    (folder / "a_label.nii.gz").unlink()
    assert Dataset.open(folder).labelled == ("b",)
    with pytest.raises(VolumeError):
        Dataset.open(folder).load("a")


def test_an_unknown_case_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'c'"):
        Dataset.open(folder).load("c")


def test_labels_on_another_grid_are_refused(folder: Path) -> None:
    moved = Geometry(GEOMETRY.size, GEOMETRY.spacing, (30.0, 0.0, 0.0), GEOMETRY.direction)
    Volume(labels_of(0), moved).write(folder / "a_label.nii.gz")
    with pytest.raises(VolumeError, match="another grid"):
        Dataset.open(folder).load("a")


@pytest.mark.parametrize("text", [None, "{", "[]", json.dumps({"name": "x", "modality": "MR", "labels": {}})])
def test_a_folder_without_a_usable_description_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(VolumeError, match=r"dataset\.json"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "labels", "cases"),
    [("chaos_t2", [1, 2, 3, 4], 20), ("sabs_ct", [6, 2, 3, 1], 22), ("cmr", [1, 2, 3], 25)],
)
def test_the_shared_folders_open(shared_dir: Path, name: str, labels: list[int], cases: int) -> None:
    dataset = Dataset.open(shared_dir / "data" / name)
    assert [organ.label for organ in dataset.organs] == labels
    assert len(dataset.labelled) == cases


def test_a_shared_scan_loads_with_its_modality(shared_dir: Path) -> None:
    dataset = Dataset.open(shared_dir / "data" / "ct_example", [1, 5])
    image, labels = dataset.load("01")
    assert image.modality == "CT" and dataset.labelled == ("01",)
    assert labels.shape == image.array.shape == (30, 101, 122)
    assert {1, 5} <= set(np.unique(labels))
