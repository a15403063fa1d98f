"""What the page shows, as plain data: its lists compared with the library's, and its words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trame_slicer", reason="the page needs the extra 'app'")

from FewShotSegLib import strategies
from FewShotSegLib.app.drawing import DrawnOrgan
from FewShotSegLib.app.methods import METHODS, usable_methods
from FewShotSegLib.app.state import STRATEGIES, drawn_text, initial, result_row, why_not
from FewShotSegLib.cards import Card
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.methods import list_methods
from FewShotSegLib.organs import Organ
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT

DRAWN = DrawnOrgan("a", "liver", "#ffffff", (3,))


def test_methods_and_strategies_are_those_of_the_library() -> None:
    assert set(METHODS) == set(list_methods()) and next(iter(METHODS)) == "match"
    assert set(STRATEGIES) == set(strategies.NAMES)


def write_card(folder: Path, name: str, **entries: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(Card(name, **entries).to_json(), encoding="utf-8")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOTSEG_CACHE", str(tmp_path))
    return tmp_path / "checkpoints"


def test_methods_are_those_that_a_checkpoint_is_meant_for(cache: Path) -> None:
    alone = usable_methods()
    assert alone["match"] == DEFAULT_CHECKPOINT and next(iter(alone)) == "match"
    write_card(cache, "trained", method="qamp", methods=["qamp"])
    assert usable_methods() == {**alone, "qamp": "trained"}, "a head that was trained goes before one that is not"


def test_a_chosen_checkpoint_decides_alone(cache: Path, tmp_path: Path) -> None:
    path = write_card(tmp_path / "mine", "mine", methods=["visa", "alpnet"])
    assert usable_methods(str(path)) == {"alpnet": str(path), "visa": str(path)}
    assert list(usable_methods(str(path.with_suffix(".safetensors")))) == ["alpnet", "visa"]
    write_card(cache, "cached", methods=["match"])
    assert usable_methods("cached") == {"match": "cached"}
    nothing = write_card(tmp_path / "nothing", "nothing")
    assert usable_methods(str(nothing)) == {"match": str(nothing)}
    with pytest.raises(CheckpointError, match="gone"):
        usable_methods("gone")


def test_a_damaged_card_does_not_close_the_page(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "bad.json").write_text("{")
    assert "match" in usable_methods()


def test_the_page_opens_with_the_first_method() -> None:
    state = initial(["match", "visa"])
    assert state["method"] == "match" and [row["value"] for row in state["methods"]] == ["match", "visa"]


def test_what_is_missing_is_said_one_thing_at_a_time() -> None:
    assert "Load a scan to draw on" in why_not(False, [], 0, True, False)
    assert "Paint an organ" in why_not(True, [DrawnOrgan("a", "liver", "#ffffff", ())], 0, True, False)
    assert "Load a scan to segment" in why_not(True, [DRAWN], 0, False, False)
    assert "Every slice of this scan is drawn" in why_not(True, [DRAWN], 0, True, True)
    assert why_not(True, [DRAWN], 0, True, False) == "" == why_not(True, [DRAWN], 1, False, True)


@pytest.mark.parametrize(
    ("slices", "text"),
    [
        ((), "not drawn yet"),
        ((4,), "slice 5"),
        ((0, 1, 2), "slices 1–3"),
        ((0, 2), "slices 1, 3"),
        ((0, 2, 4, 6, 8), "5 slices"),
    ],
)
def test_drawn_slices_in_words(slices: tuple[int, ...], text: str) -> None:
    assert drawn_text(slices) == text


def test_a_result_tells_volume_confidence_and_where_to_look() -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[1] = 1
    organs = (Organ("liver", 1), Organ("spleen", 2))
    sure = np.array([[np.nan, 0.42, 0.9], [np.nan] * 3])
    found = Segmentation(Geometry((5, 4, 3), (10, 10, 10)), organs, labels, np.array([0.66, np.nan]), sure, seconds=2.4)
    row = result_row("r1", "a scan", found, {"dicom": False})
    liver, spleen = row["organs"]
    assert (liver["ml"], liver["percent"], liver["level"]) == ("20 mL", 66, "glance")
    assert liver["look"] == [{"slice": 1, "text": "2"}]
    assert (spleen["ml"], spleen["percent"], spleen["level"], spleen["look"]) == ("", 0, "absent", [])
    assert row["seconds"] == "2 s" and row["dicom"] is False
