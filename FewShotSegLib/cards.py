"""The card of a checkpoint: what it is, what it learned from, and what was measured with it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from FewShotSegLib.errors import CheckpointError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
NUMBER = (int, float)

ITEMS: dict[str, dict[str, Any] | type] = {
    "methods": str,
    "modalities": str,
    "training_data": {"name": str, "licence": str, "scans": int},
    "results": {"dataset": str, "protocol": str, "method": str, "mean_dice": NUMBER, "note": str},
}
"""What the elements of each list field are: text, or a record with exactly these entries."""

LATER = {"method", "options", "encoder_from", "encoder_sha256"}
"""Fields that the cards of the first releases lack."""


@dataclass(frozen=True)
class Card:
    """Everything a user must know before trusting a checkpoint; one JSON object beside its `.safetensors` file.

    Attributes:
        name: file-name-safe; the name that `load_checkpoint` accepts.
        description: one or two sentences.
        encoder: trunk name, as in `FewShotSegLib.encoders`.
        channels: feature channels after the 1x1 projection.
        methods: names of the methods it was measured with or is meant for.
        modalities: "MR", "CT".
        training_data: records {name, licence, scans}.
        licence: of the weights.
        results: records {dataset, protocol, method, mean_dice (percent), note}.
        sha256: of the `.safetensors` file.
        created: ISO 8601 time, UTC.
        library_version: of the fewshotseg that wrote it.
        extra: anything else (training configuration, steps).
        method: whose learned head the file holds; "" = none.
        options: of that method, with which the head was made.
        encoder_from: name of the checkpoint that holds the encoder; "" = this one does.
        encoder_sha256: of that checkpoint's file.
    """

    name: str
    description: str = ""
    encoder: str = ""
    channels: int = 0
    methods: list[str] = field(default_factory=list)
    modalities: list[str] = field(default_factory=list)
    training_data: list[dict[str, Any]] = field(default_factory=list)
    licence: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)
    sha256: str = ""
    created: str = ""
    library_version: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    encoder_from: str = ""
    encoder_sha256: str = ""

    def to_json(self) -> str:
        """The card as indented JSON text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def checked(self, source: str) -> Card:
        """This card itself, when every field has its type; `source` names it in the CheckpointError otherwise."""
        return Card.from_record(asdict(self), source)

    @staticmethod
    def read(path: str | Path) -> Card:
        """The card in a JSON file; CheckpointError when it is missing, no JSON, or not a card."""
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise _bad_card(str(path), f"cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise _bad_card(str(path), f"is not JSON: {error}") from error
        return Card.from_record(record, str(path))

    @staticmethod
    def from_record(record: Any, source: str) -> Card:
        """The card in a decoded JSON object; every missing, unknown or mistyped field is a CheckpointError."""
        if not isinstance(record, dict):
            raise _bad_card(source, f"is a {type(record).__name__}, not an object")
        names = {f.name for f in fields(Card)}
        _check_keys(record, names - (LATER - record.keys()), source, "")
        _check_types(record, source)
        if not NAME.fullmatch(record["name"]):
            raise _bad_card(source, f"has the name {record['name']!r}; only letters, digits, '.', '_' and '-' are allowed")
        return Card(**record)


def _check_keys(record: dict[str, Any], expected: set[str], source: str, where: str) -> None:
    for title, names in (("lacks", expected - record.keys()), ("has unknown fields", record.keys() - expected)):
        if names:
            raise _bad_card(source, f"{where}{title}: {', '.join(sorted(names))}")


def _check_types(record: dict[str, Any], source: str) -> None:
    simple: dict[str, type] = {"channels": int, "extra": dict, "options": dict} | dict.fromkeys(ITEMS, list)
    for name, value in record.items():
        _check_type(value, simple.get(name, str), source, name)
    for name, element in ITEMS.items():
        for i, item in enumerate(record[name]):
            where = f"{name}[{i}]"
            if isinstance(element, dict):
                _check_type(item, dict, source, where)
                _check_keys(item, set(element), source, f"{where} ")
                for key, kind in element.items():
                    _check_type(item[key], kind, source, f"{where}.{key}")
            else:
                _check_type(item, element, source, where)


def _check_type(value: Any, kind: type | tuple[type, ...], source: str, where: str) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = "number" if kind == NUMBER else getattr(kind, "__name__", str(kind))
        raise _bad_card(source, f"has {type(value).__name__} {value!r} in {where}, where {wanted} is expected")


def _bad_card(source: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"The checkpoint card {source} {what}",
        f"a JSON object with exactly the fields {', '.join(f.name for f in fields(Card))}",
        "get the checkpoint again, both files of it, or correct the card",
    )
