"""Which methods the page offers: those that a checkpoint on this computer is meant for. Only cards are read: no torch."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from FewShotSegLib.cards import Card
from FewShotSegLib.download import default_cache_dir
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.resources import PACKAGE, resource_dir
from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT

# The names of `methods`, which loads torch when it is imported: a session does without. A test compares.
METHODS = {
    "match": "match (recommended)",
    "alpnet": "ALPNet, 2020",
    "visa": "VISA-FSS, 2023",
    "adnet": "ADNet, 2022",
    "adnet3d": "ADNet in 3D, 2022",
    "qnet": "Q-Net, 2023",
    "rpt": "RPT, 2023",
    "pami": "PAMI, 2024",
    "qamp": "QAMP, 2024",
}
INDEX = "index.json"


def usable_methods(checkpoint: str = "") -> dict[str, str]:
    """Method -> the checkpoint (name or path) to run it with, in the order of `METHODS`; never empty.

    A checkpoint that is chosen decides alone. With "", every checkpoint on this computer counts: the default one before the
    others, and one that was trained for a method before one that only names it.

    Raises:
        CheckpointError: the chosen checkpoint has no card, or none that can be read.
    """
    if checkpoint:
        found = dict.fromkeys(_meant_for(_chosen(checkpoint)), checkpoint)
    else:
        cards = sorted(_local().values(), key=lambda card: card.name != DEFAULT_CHECKPOINT)
        found = {}
        for card in cards:
            found.update({name: card.name for name in _meant_for(card) if name not in found or name == card.method})
    installed = {name: found[name] for name in METHODS if name in found and (PACKAGE / "methods" / f"{name}.py").is_file()}
    return installed or {"match": checkpoint or DEFAULT_CHECKPOINT}


def _meant_for(card: Card) -> list[str]:
    """A checkpoint that holds a head serves its method alone."""
    return [card.method] if card.method else list(card.methods)


def _chosen(checkpoint: str) -> Card:
    known, path = _local(), Path(checkpoint)
    if checkpoint in known:
        return known[checkpoint]
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.safetensors"))), path / "checkpoint.safetensors")
    return Card.read(path.with_suffix(".json"))


def _local() -> dict[str, Card]:
    """Cards by name: bundled, in the cache, and those that are downloaded when they are first used."""
    bundled = resource_dir("checkpoints")
    files = [*sorted(bundled.glob("*.json")), *sorted((default_cache_dir() / "checkpoints").rglob("*.json"))]
    cards: dict[str, Card] = {}
    for path in files:
        if path.name != INDEX and not path.name.startswith("."):
            with suppress(CheckpointError):  # one damaged card must not close the page; Apply tells of it when it is chosen
                cards.setdefault(path.stem, Card.read(path))
    index = bundled / INDEX
    for entry in json.loads(index.read_text(encoding="utf-8")) if index.is_file() else []:
        cards.setdefault(entry["name"], Card.from_record(entry["card"], INDEX))
    return cards
