"""Support and query of different kinds: which checkpoint takes over, and what is said."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from FewShotSegLib import kinds
from FewShotSegLib.cards import Card
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.kinds import across_kinds, kinds_of, warnings_about
from FewShotSegLib.organs import Organ
from FewShotSegLib.provenance import record_of
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.segmenter_config import ACROSS_CHECKPOINT, DEFAULT_CHECKPOINT
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

DEFAULT = SegmenterConfig(device="cpu")


def volume(modality: str, seed: int = 0) -> Volume:
    """A bright block in a body, which fits the window of CT, too."""
    image = np.random.default_rng(seed).normal(0, 5, (4, 64, 64)).astype(np.float32)
    image[:, 8:56, 8:56] += 100
    image[:, 20:44, 20:44] += 80
    return Volume(image, Geometry((64, 64, 4), (4, 4, 8)), f"{modality} {seed}", modality)


CT, MR = volume("CT"), volume("MR", 1)


def test_another_checkpoint_takes_over_for_different_kinds_only() -> None:
    assert kinds_of([CT, MR]) == kinds_of([MR, CT, CT]) == ["CT", "MR"]
    found = across_kinds(DEFAULT, [CT, MR])
    assert found == dataclasses.replace(DEFAULT, checkpoint=ACROSS_CHECKPOINT)
    assert across_kinds(DEFAULT, [CT, CT]) is None and across_kinds(DEFAULT, [MR]) is None
    assert across_kinds(dataclasses.replace(DEFAULT, checkpoint=ACROSS_CHECKPOINT), [CT, MR]) is None


@pytest.mark.parametrize("how", [{"method": "alpnet"}, {"checkpoint": "mine.safetensors"}, {"across": False}])
def test_what_somebody_chose_stays(how: dict[str, str]) -> None:
    assert across_kinds(dataclasses.replace(DEFAULT, **how), [CT, MR]) is None


def test_without_that_checkpoint_the_default_one_does_it_and_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "list_checkpoints", lambda: [Card(DEFAULT_CHECKPOINT)])
    assert across_kinds(DEFAULT, [CT, MR]) is None
    assert ["expect a poor result" in note for note in warnings_about(Card(DEFAULT_CHECKPOINT), [CT, MR])] == [True]


def test_a_segmentation_says_which_checkpoint_did_it_and_the_record_names_it() -> None:
    def drawn(image: Volume) -> Support:
        mask = np.zeros((1, 4, 64, 64), bool)
        mask[:, :, 20:44, 20:44] = True
        return Support.create(image, mask, (Organ("block", 1),), slices="all")

    segmenter = Segmenter(DEFAULT)
    within = segmenter.segment(drawn(MR), volume("MR", 2))
    assert not within.notes and segmenter.across is None and record_of(segmenter)["checkpoint_across_kinds"] is None
    mixed = segmenter.segment(drawn(CT), MR)
    assert len(mixed.notes) == 1 and ACROSS_CHECKPOINT in mixed.notes[0] and "different kinds (CT, MR)" in mixed.notes[0]
    record = record_of(segmenter)
    assert (record["checkpoint"]["name"], record["checkpoint_across_kinds"]["name"]) == (DEFAULT_CHECKPOINT, ACROSS_CHECKPOINT)
    kept = segmenter.across
    segmenter.segment([drawn(CT), drawn(volume("MR", 3))], MR)
    assert segmenter.across is kept
    own = segmenter.segment([drawn(CT), drawn(MR)], MR)
    assert len(own.notes) == 1 and "other supports were not used" in own.notes[0]
