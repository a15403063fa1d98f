"""Scans of different kinds, CT and MR: what to warn of, and the checkpoint that was trained to see through the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import list_checkpoints
from FewShotSegLib.segmenter_config import ACROSS_CHECKPOINT, DEFAULT_CHECKPOINT, SegmenterConfig
from FewShotSegLib.volume import Volume


def kinds_of(images: Sequence[Volume]) -> list[str]:
    """CT, MR or both, as the images are normalised."""
    return sorted({"CT" if image.is_ct else "MR" for image in images})


def across_kinds(config: SegmenterConfig, images: Sequence[Volume]) -> SegmenterConfig | None:
    """The configuration for support and query of different kinds; None where the given one stays.

    It stays when `config` names another checkpoint than the default one, a method with a head that was trained on that one,
    or no such checkpoint is on this computer.
    """
    if len(kinds_of(images)) < 2 or config.method != "match" or config.checkpoint != DEFAULT_CHECKPOINT or not config.across:
        return None
    known = any(card.name == ACROSS_CHECKPOINT for card in list_checkpoints())
    return replace(config, checkpoint=ACROSS_CHECKPOINT) if known else None


def warnings_about(card: Card | None, images: Sequence[Volume]) -> list[str]:
    """What to know about a result when these images meet under the checkpoint of this card."""
    trained, found = set(card.modalities) if card else set(), kinds_of(images)
    strange = [kind for kind in found if trained and kind not in trained]
    notes = [f"The checkpoint was trained on {', '.join(sorted(trained))}, not on {k}: expect a poor result." for k in strange]
    if len(found) < 2:
        return notes
    mixed = f"Support and scan are of different kinds ({', '.join(found)})"
    if card is not None and card.name == ACROSS_CHECKPOINT:
        return [*notes, f"{mixed}: segmented with {card.name}, which was trained for that. Look at every organ: some are missed."]
    return [*notes, f"{mixed}: expect a poor result."]
