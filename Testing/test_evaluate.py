from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_folder import GEOMETRY, image_of, labels_of, write_folder
from rich.console import Console

from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import save_checkpoint
from FewShotSegLib.encoders import create_encoder
from FewShotSegLib.errors import CheckpointError, ConfigError, OutputError
from FewShotSegLib.evaluation.annotation import draw, drawn_slices
from FewShotSegLib.evaluation.datasets import Dataset
from FewShotSegLib.evaluation.run import EvaluateConfig, EvaluationResult, create_segmenter, evaluate
from FewShotSegLib.evaluation.tables import markdown, rich_table
from FewShotSegLib.evaluation.tasks import plan
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter
from FewShotSegLib.support import Support
from FewShotSegLib.turns import AS_IT_IS
from FewShotSegLib.volume import Volume

CASES = ["a", "b", "c", "d", "e", "f"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "bricks", CASES)


class FakeSegmenter:
    """Answers with the truth of the query, changed by `spoil`; remembers what it was given."""

    def __init__(self, spoil: Callable[[np.ndarray], np.ndarray] = lambda labels: labels, **attributes: Any) -> None:
        self.spoil = spoil
        self.calls: list[tuple[Support, Volume, Any]] = []
        vars(self).update(attributes)

    def segment(self, supports: Support, query: Volume, *, extent: Any = None) -> Segmentation:
        self.calls.append((supports, query, extent))
        labels = self.spoil(labels_of(CASES.index(query.name)))
        count = len(supports.organs)
        confidence, slices = np.full(count, 0.75), np.full((count, len(labels)), 0.75)
        return Segmentation(query.geometry, supports.organs, labels.astype(np.uint8), confidence, slices, notes=("a note",))


def run(folder: Path, segmenter: FakeSegmenter | None = None, **options: Any) -> EvaluationResult:
    fake = segmenter or FakeSegmenter()
    return evaluate(EvaluateConfig(folder, **options), lambda config, fold: fake)


def everywhere(labels: np.ndarray) -> np.ndarray:
    """Every slice gets the truth's projection: right within an organ's extent, false positives beyond."""
    return np.broadcast_to(labels.max(0), labels.shape).copy()


def test_the_truth_scores_one_hundred(folder: Path) -> None:
    result = run(folder, support="last")
    assert result.mean_dice == pytest.approx(100)
    assert {record.case for record in result.records} == set(CASES[:-1])
    assert {record.support for record in result.records} == {"f"}
    assert all(record.nsd == 1 and record.hd95 == 0 and record.confidence == 0.75 for record in result.records)


def test_full_volume_counts_what_oracle_z_does_not(folder: Path) -> None:
    full, oracle = (run(folder, FakeSegmenter(everywhere), protocol=p) for p in ("full-volume", "oracle-z"))
    assert oracle.summary("spleen").dice.mean == 1.0
    assert full.summary("spleen").dice.mean == pytest.approx(2 * 4 / (14 + 4))
    assert full.summary("spleen").dice_told.mean == 1.0


@pytest.mark.parametrize(
    ("method", "protocol", "told"),
    [("match", "oracle-z", False), ("alpnet", "oracle-z", True), ("alpnet", "full-volume", False), ("visa", "same-scan", False)],
)
def test_the_extent_is_told_only_to_published_methods_in_oracle_z(folder: Path, method: str, protocol: str, told: bool) -> None:
    fake = FakeSegmenter()
    run(folder, fake, method=method, protocol=protocol, slices_drawn=1 if protocol == "same-scan" else None, limit=1)
    assert fake.calls[0][2] == ({"liver": (2, 9), "spleen": (4, 7)} if told else None)


def test_what_says_that_it_needs_the_extent_is_told(folder: Path) -> None:
    fake = FakeSegmenter(needs_extent=True)
    run(folder, fake, protocol="same-scan", slices_drawn=1, limit=1)
    assert fake.calls[0][2]["spleen"] == (4, 7)


def test_same_scan_scores_the_slices_that_are_not_drawn(folder: Path) -> None:
    def only_drawn(labels: np.ndarray) -> np.ndarray:
        kept = np.zeros_like(labels)
        kept[6] = labels[6]
        return kept

    fake = FakeSegmenter(only_drawn)
    result = run(folder, fake, protocol="same-scan", slices_drawn=1, limit=1)
    support, query, _ = fake.calls[0]
    assert query is support.image
    assert [np.flatnonzero(row).tolist() for row in support.drawn] == [[6], [6]]
    assert not support.masks[:, np.arange(14) != 6].any() and support.masks[:, 6].any((1, 2)).all()
    assert [record.dice for record in result.records] == [0.0, 0.0]


def test_same_scan_draws_each_organ_on_its_own_slices_and_takes_every_scan(folder: Path) -> None:
    fake = FakeSegmenter()
    result = run(folder, fake, protocol="same-scan", slices_drawn=3)
    drawn = [np.flatnonzero(row).tolist() for row in fake.calls[0][0].drawn]
    assert drawn == [[3, 6, 8], [4, 6, 7]]
    assert {(record.support, record.case) for record in result.records} == {(case, case) for case in CASES}


def test_same_scan_skips_organs_with_too_few_slices(folder: Path) -> None:
    result = run(folder, protocol="same-scan", slices_drawn=4)
    assert result.organs == ("liver",)
    assert any("spleen" in note for note in result.notes)


@pytest.mark.parametrize(
    ("count", "rule", "expected"),
    [
        (1, "spread", [14]),
        (3, "spread", [11, 14, 17]),
        (1, "ends", [14]),
        (3, "ends", [10, 14, 18]),
        (20, "spread", [*range(10, 19)]),
    ],
)
def test_which_slices_are_drawn(count: int, rule: Any, expected: list[int]) -> None:
    assert drawn_slices(list(range(10, 19)), count, rule) == expected


def test_a_support_drawn_on_few_slices_forgets_the_others(folder: Path) -> None:
    dataset = Dataset.open(folder)
    image, labels = dataset.load("a")
    whole, sparse = (draw(image, labels, dataset.organs, count) for count in (None, 2))
    assert whole is not None and sparse is not None
    assert not whole.is_sparse and sparse.is_sparse
    assert sparse.drawn.sum(1).tolist() == [2, 2]
    assert (sparse.masks.any((2, 3)) == sparse.drawn).all()


def test_a_support_without_the_organs_is_none(folder: Path) -> None:
    dataset = Dataset.open(folder)
    image, labels = dataset.load("a")
    assert draw(image, np.zeros_like(labels), dataset.organs) is None


def plans(cases: Sequence[str], **options: Any) -> list[tuple[int | None, str, tuple[str, ...]]]:
    return [(task.fold, task.support, task.queries) for task in plan(cases, EvaluateConfig(".", **options))]


def test_folds_are_circular_and_taught_by_the_next_scan() -> None:
    chaos = [f"{i:02}" for i in (1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39)]
    tasks = plans(chaos, folds=True)
    assert tasks[0] == (0, "08", ("01", "02", "03", "05"))
    assert tasks[4] == (4, "01", ("36", "37", "38", "39"))
    assert len(tasks) == 5


def test_some_folds_and_every_support() -> None:
    assert plans([*"abcdefghij"], folds=(4,), support="all") == [(4, "i", ("j", "a")), (4, "j", ("i", "a")), (4, "a", ("i", "j"))]


def test_supports_by_id_with_and_without_folds() -> None:
    assert plans([*"abcd"], support="b, c") == [(None, "b", ("a", "c", "d")), (None, "c", ("a", "b", "d"))]
    assert plans([*"abcdefghij"], support=("c",), folds=True) == [(0, "c", ("a", "b")), (1, "c", ("d", "e"))]


def test_same_scan_with_folds_takes_each_scan_once() -> None:
    tasks = plans([*"abcdefghij"], folds=True, protocol="same-scan", slices_drawn=1)
    assert [(support, queries) for _, support, queries in tasks] == [(case, (case,)) for case in "abcdefghij"]


def test_limit_is_per_support() -> None:
    assert [len(queries) for _, _, queries in plans([*"abcdef"], support="all", limit=2)] == [2] * 6


def test_several_shots_are_the_scans_that_follow_in_the_circle() -> None:
    tasks = plan([*"abcdefghij"], EvaluateConfig(".", folds=(0, 4), shots=3))
    assert [(task.support, task.beside, task.queries) for task in tasks] == [
        ("c", ("d", "e"), ("a", "b")),
        ("a", ("b", "c"), ("i", "j")),
    ]
    (alone,) = plan([*"abcd"], EvaluateConfig(".", shots=2, limit=1))
    assert (alone.support, alone.beside, alone.queries) == ("c", ("d",), ("a",))


def test_several_shots_teach_together_with_the_organs_that_all_have(folder: Path) -> None:
    given: list[list[Support]] = []

    class Together(FakeSegmenter):
        def segment(self, supports: Any, query: Volume, *, extent: Any = None) -> Segmentation:
            given.append(supports)
            return super().segment(supports[0], query, extent=extent)

    Volume(np.where(labels_of(4) == 2, 0, labels_of(4)), GEOMETRY).write(folder / "e_label.nii.gz")
    result = run(folder, Together(), shots=2, limit=3)
    assert [[s.image.name for s in supports] for supports in given] == [["e", "f"]] * 3
    assert {organ.name for s in given[0] for organ in s.organs} == {"liver"} == {r.organ for r in result.records}
    assert {(r.support, r.case) for r in result.records} == {("e", "a"), ("e", "b"), ("e", "c")}
    assert "2 scans together, the last ones of the list" in result.protocol


def test_another_data_set_may_teach_organs_of_the_same_names(folder: Path, tmp_path: Path) -> None:
    """Its labels have other numbers, its spelling another case, and it lacks the spleen."""
    other = write_folder(tmp_path / "others", ["t", "u"], name="others", labels={"1": "vessel", "5": "Liver"})
    for number, case in enumerate("tu"):
        Volume(np.where(labels_of(number) == 1, 5, 0).astype(np.uint8), GEOMETRY).write(other / f"{case}_label.nii.gz")
    fake = FakeSegmenter()
    result = run(folder, fake, support_data=other, limit=2)
    (given, _, _), *_ = fake.calls
    assert given.image.name == "u" and [(organ.name, organ.label) for organ in given.organs] == [("liver", 1)]
    assert np.array_equal(given.masks[0], labels_of(1) == 1)
    assert {(r.support, r.case, r.organ, r.dice) for r in result.records} == {("u", "a", "liver", 1.0), ("u", "b", "liver", 1.0)}
    assert "of others, in place of that of the list" in result.protocol


def test_queries_may_be_laid_differently(folder: Path) -> None:
    """The voxels and their truth stay, what the file says of their place changes; supports are as they are."""
    fake = FakeSegmenter()
    result = run(folder, fake, lay="left-right", limit=1)
    ((support, query, _),) = fake.calls
    assert support.image.geometry.direction == GEOMETRY.direction
    mirrored = np.diag([-1, 1, 1]) @ np.reshape(GEOMETRY.direction, (3, 3))
    assert np.array_equal(np.reshape(query.geometry.direction, (3, 3)), mirrored)
    assert {record.dice for record in result.records} == {1.0} and "laid left-right" in result.protocol


@pytest.mark.parametrize(("method", "place", "said"), [("alpnet", True, True), ("alpnet", False, False), ("match", True, False)])
def test_prototype_heads_look_where_match_sees_the_organ_and_that_is_said(
    folder: Path, tiny_checkpoint: Path, method: str, place: bool, said: bool
) -> None:
    options: dict[str, Any] = {"method": method, "place": place, "protocol": "oracle-z"}
    segmenter = create_segmenter(EvaluateConfig(folder, checkpoint=str(tiny_checkpoint), **options), None)
    assert isinstance(segmenter, Segmenter) and segmenter.config.place is place
    assert run(folder, **options).protocol.endswith("where to look.") is said


@pytest.mark.parametrize("turns", [True, False])
def test_finding_turns_can_be_switched_off(folder: Path, tiny_checkpoint: Path, turns: bool) -> None:
    segmenter = create_segmenter(EvaluateConfig(folder, checkpoint=str(tiny_checkpoint), turns=turns), None)
    assert isinstance(segmenter, Segmenter) and segmenter.config.turns is turns


@pytest.mark.parametrize("options", [{"support": "x"}, {"folds": (5,)}, {"folds": (0,), "support": "j"}])
def test_scans_and_folds_that_do_not_exist_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        plans([*"abcdefghij"], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "magic"},
        {"protocol": "easy"},
        {"slice_rule": "best"},
        {"slices_drawn": 0},
        {"limit": 0},
        {"protocol": "same-scan"},
        {"shots": 0},
        {"lay": "upside-down"},
        {"together": True, "method": "alpnet"},
        {"together": True, "protocol": "same-scan", "slices_drawn": 1},
        {"lay": "half-turn", "protocol": "same-scan", "slices_drawn": 1},
        {"support_data": "others", "support": "all"},
        {"shots": 2, "support": "all"},
        {"shots": 2, "protocol": "same-scan", "slices_drawn": 1},
        {"shots": 2, "method": "paste"},
        {"checkpoint_template": "m-{fold}"},
        {"checkpoint_template": "m", "folds": True},
        {"checkpoint_template": "m-{fold}", "checkpoint": "m", "folds": True},
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        EvaluateConfig(".", **options)


def test_each_fold_gets_the_model_trained_without_it(folder: Path) -> None:
    made: list[str | None] = []

    def factory(config: EvaluateConfig, fold: int | None) -> FakeSegmenter:
        made.append(config.checkpoint_for(fold))
        return FakeSegmenter()

    config = EvaluateConfig(folder, folds=True, checkpoint_template="model-{fold}")
    evaluate(config, factory)
    assert made == [f"model-{k}" for k in range(5)]
    made.clear()
    evaluate(replace(config, checkpoint_template=None, checkpoint="one"), factory)
    assert made == ["one"]


def test_a_model_that_saw_the_dataset_is_noted(folder: Path) -> None:
    card = Card("c", training_data=[{"name": "bricks", "licence": "", "scans": 4}])
    assert any("trained on 4 scans of bricks" in note for note in run(folder, FakeSegmenter(card=card)).notes)
    assert not any("trained on" in note for note in run(folder).notes)


def test_the_json_holds_everything(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "results" / "out.json"
    halved = FakeSegmenter(lambda labels: np.where(np.arange(40) < 20, labels, 0))
    result = run(folder, halved, protocol="oracle-z", json=path, organs=("liver", "spleen"))
    written = json.loads(path.read_text())
    assert written["mean_dice"] == pytest.approx(result.mean_dice)
    assert written["summary"]["spleen"]["dice"]["mean"] == 0
    assert written["summary"]["spleen"]["failures"] == 5
    assert written["summary"]["all organs"]["dice_by_support"] | {"mean": 0} == {"mean": 0, "low": None, "high": None, "n": 1}
    assert written["config"]["organs"] == ["liver", "spleen"]
    assert "oracle-z" in written["protocol"] and len(written["records"]) == 10
    assert written["machine"]["threads"] >= 1
    assert "a: a note" in written["notes"]


def test_mean_dice_is_the_mean_over_scans_of_the_mean_over_organs(folder: Path) -> None:
    result = run(folder, FakeSegmenter(lambda labels: np.where(labels == 1, 1, 0)), support="all")
    assert result.mean_dice == pytest.approx(50)
    found = result.summary().dice
    assert (found.n, found.low, found.high) == (6, pytest.approx(0.5), pytest.approx(0.5))
    assert result.summary().dice_by_support.n == 6


def test_progress_is_told_after_each_scan(folder: Path) -> None:
    told: list[tuple[int, int, int]] = []
    fake = FakeSegmenter()
    evaluate(EvaluateConfig(folder, limit=2), lambda *_: fake, lambda done, total, found: told.append((done, total, len(found))))
    assert told == [(1, 2, 2), (2, 2, 2)]


def test_nothing_to_evaluate_is_an_error(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, ["a", "b"], labels={"9": "pancreas"})
    with pytest.raises(ConfigError, match="pancreas"):
        run(folder)


def test_a_place_that_cannot_be_written_to_is_told(folder: Path) -> None:
    with pytest.raises(OutputError):
        run(folder, json=folder, limit=1)


def test_tables_show_the_means(folder: Path) -> None:
    result = run(folder, FakeSegmenter(everywhere))
    table = markdown(result)
    assert "| spleen | 44.4 |" in table and "| mean |" in table and "bricks" in table
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(rich_table(result))
    assert "44.4" in console.export_text()


def test_a_baseline_with_a_protocol_it_cannot_serve_is_refused() -> None:
    with pytest.raises(ConfigError, match="same-scan"):
        create_segmenter(EvaluateConfig(".", method="fill-between", protocol="full-volume"), None)


def test_the_protocol_says_whether_extents_were_told(folder: Path) -> None:
    options = {"protocol": "same-scan", "slices_drawn": 1, "limit": 1}
    assert run(folder, **options).protocol.endswith("extents were not told.")
    assert run(folder, FakeSegmenter(needs_extent=True), **options).protocol.endswith("extents were told.")


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    return str(save_checkpoint(create_encoder(), Card("random", modalities=["MR"]), tmp_path_factory.mktemp("checkpoints")))


def test_the_default_factory_makes_the_librarys_segmenter(random_checkpoint: str) -> None:
    template = random_checkpoint.replace("random", "{fold}")
    config = EvaluateConfig(".", method="alpnet", strategy="direct", folds=True, checkpoint_template=template, device="cpu")
    with pytest.raises(CheckpointError, match=r"3\.json"):
        create_segmenter(config, 3)
    made = create_segmenter(replace(config, checkpoint_template=None, checkpoint=random_checkpoint), None)
    assert isinstance(made, Segmenter)
    assert (made.method.name, made.config.strategy, made.card and made.card.name) == ("alpnet", "direct", "random")


def test_the_librarys_segmenter_is_evaluated_in_the_same_scan(folder: Path, random_checkpoint: str) -> None:
    short = replace(GEOMETRY, size=(*GEOMETRY.size[:2], 6))
    for name, array in (("image", image_of(0)), ("label", labels_of(0))):
        Volume(array[3:9], short).write(folder / f"a_{name}.nii.gz")
    result = evaluate(
        EvaluateConfig(folder, protocol="same-scan", slices_drawn=3, limit=1, checkpoint=random_checkpoint, device="cpu")
    )
    assert result.organs == ("liver", "spleen") and result.method == "match"
    assert 0 <= result.mean_dice <= 100 and result.seconds_per_scan > 0


@pytest.mark.parametrize("together", [True, False])
def test_queries_may_be_one_list(
    folder: Path, random_checkpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, together: bool
) -> None:
    """Every query then has its result of the second time; a stopped evaluation that has them all does not ask again."""
    fake = FakeSegmenter()

    def neither_sure_nor_lost(
        self: Segmenter, supports: Support | Sequence[Support], query: Volume, *, inspect: Any = None, **named: Any
    ) -> Segmentation:
        if inspect is not None:
            inspect(SimpleNamespace(turn=AS_IT_IS))
        drawing = supports if isinstance(supports, Support) else supports[0]
        sure = 0.65 if isinstance(supports, Support) or len(supports) == 1 else 0.75
        return replace(fake.segment(drawing, query), confidence=np.full(2, sure), seconds=1.0)

    monkeypatch.setattr(Segmenter, "segment", neither_sure_nor_lost)
    monkeypatch.setattr("FewShotSegLib.evaluation.journal.Journal.close", lambda journal: None)
    config = EvaluateConfig(folder, checkpoint=random_checkpoint, together=together, limit=3, json=tmp_path / "found.json")
    assert ("as one list" in config.described) == together
    result = evaluate(config)
    taught = [note for note in result.notes if "taught as well" in note]
    assert len(taught) == (3 if together else 0) and {record.case for record in result.records} == set(CASES[:3])
    monkeypatch.setattr(Segmenter, "segment", lambda *given, **named: pytest.fail("asked again"))
    assert evaluate(config).records == result.records
