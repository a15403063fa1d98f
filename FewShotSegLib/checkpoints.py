"""Trained encoders on disk: a `.safetensors` file and its JSON card. Nothing here can execute code (no pickle)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from FewShotSegLib.cards import Card
from FewShotSegLib.download import DownloadError, DownloadProgress, default_cache_dir, fetch, sha256_of
from FewShotSegLib.encoders import Encoder, create_encoder, list_encoders
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.files import atomic_path
from FewShotSegLib.resources import resource_dir

__all__ = ["Card", "fetch", "list_checkpoints", "list_downloadable", "load_checkpoint", "save_checkpoint"]

INDEX = "index.json"


def save_checkpoint(encoder: Encoder, card: Card, folder: str | Path, *, half: bool = True) -> Path:
    """Write `<name>.safetensors` and `<name>.json` into `folder`, each atomically; returns the former's path.

    With `half`, weights of two and more dimensions are stored as float16; biases and everything of the normalisation
    layers stay float32. Encoder name, channels, SHA-256, time and library version of the card are filled in here.

    Raises:
        CheckpointError: a field of the card has a wrong type, or a weight is not finite as stored.
        OutputError: the folder cannot be written to.
    """
    card = replace(
        card,
        encoder=encoder.config.name,
        channels=encoder.config.channels,
        created=card.created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        library_version=card.library_version or _library_version(),
    ).checked(card.name)
    path = Path(folder) / f"{card.name}.safetensors"
    tensors = {name: _stored(name, tensor, half) for name, tensor in encoder.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)
    _write_card(replace(card, sha256=sha256_of(path)), path.with_suffix(".json"))
    return path


def load_checkpoint(name_or_path: str | Path, *, progress: DownloadProgress | None = None) -> tuple[Encoder, Card]:
    """The encoder, in evaluation mode with float32 weights on the CPU, and its card.

    `name_or_path` is a name (bundled, cached, or downloadable: then it is downloaded once), one of the checkpoint's two
    files, or a folder that holds one checkpoint.

    Raises:
        CheckpointError: unknown name, bad card, wrong SHA-256, unknown encoder, or tensors whose names or shapes differ.
    """
    path = _locate(name_or_path, progress)
    card = Card.read(path.with_suffix(".json"))
    _check_file(path, card)
    encoder = _empty_encoder(path, card)
    tensors = _read_tensors(path)
    expected = encoder.state_dict()
    _check_tensors(path, card, tensors, expected)
    encoder.load_state_dict({name: tensors[name].to(own.dtype) for name, own in expected.items()}, assign=True)
    return encoder.to(memory_format=torch.channels_last).eval(), card


def list_checkpoints() -> list[Card]:
    """Cards of the checkpoints on this computer: bundled ones first, then those in the cache, each name once."""
    return [Card.read(path) for path in _local_cards().values()]


def list_downloadable() -> list[Card]:
    """Cards of the checkpoints that `load_checkpoint` fetches when asked for them by name."""
    return [Card.from_record(entry["card"], INDEX) for entry in _index().values()]


def _library_version() -> str:
    try:
        return metadata.version("fewshotseg")
    except metadata.PackageNotFoundError:  # inside Slicer, or a checkout that was never installed
        return "unknown"


def _stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    stored = tensor.detach().cpu().contiguous()
    if half and tensor.is_floating_point() and tensor.ndim >= 2:
        stored = stored.to(torch.float16)
    if stored.is_floating_point() and not stored.isfinite().all():
        peak = f"the largest magnitude is {tensor.detach().abs().max().item():.3g}"
        raise CheckpointError(
            f"The tensor {name} is not finite as {stored.dtype}; {peak}",
            "finite weights",
            "find out why training diverged, or save with half=False",
        )
    return stored


def _write_card(card: Card, path: Path) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(card.to_json(), encoding="utf-8")


# ---- finding a checkpoint


def _local_cards() -> dict[str, Path]:
    """Name -> card file of every checkpoint on this computer."""
    found: dict[str, Path] = {}
    for path in [*sorted(resource_dir("checkpoints").glob("*.json")), *sorted(_cache().rglob("*.json"))]:
        if path.name != INDEX and not path.name.startswith("."):
            found.setdefault(path.stem, path)
    return found


def _cache() -> Path:
    return default_cache_dir() / "checkpoints"


def _index() -> dict[str, dict[str, Any]]:
    """Name -> {name, url, sha256, card} of every checkpoint that can be downloaded."""
    path = resource_dir("checkpoints") / INDEX
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return {entry["name"]: entry for entry in entries}


def _locate(name_or_path: str | Path, progress: DownloadProgress | None) -> Path:
    """The `.safetensors` file meant by a name or path."""
    name = str(name_or_path)
    index = _index()
    local = _local_cards()
    if name in index:
        return _downloaded(index[name], progress)
    if name in local:
        return local[name].with_suffix(".safetensors")
    path = Path(name_or_path)
    if path.is_dir():
        return _only_checkpoint(path)
    if path.suffix in (".safetensors", ".json"):
        return path.with_suffix(".safetensors")
    raise CheckpointError(
        f"There is no checkpoint {name!r}",
        f"one of {', '.join(sorted({*index, *local})) or '(none is installed)'}, or the path of a .safetensors file",
        "choose one of these; `fewshotseg checkpoints` describes them",
    )


def _only_checkpoint(folder: Path) -> Path:
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise CheckpointError(f"The folder {folder} holds these checkpoints: {names}", "exactly one", "name the file")
    return found[0]


def _downloaded(entry: dict[str, Any], progress: DownloadProgress | None) -> Path:
    card = Card.from_record(entry["card"], INDEX)
    try:
        path = fetch(entry["url"], entry["sha256"], cache_dir=_cache(), progress=progress)
    except DownloadError as error:
        found = f"The checkpoint {card.name!r} is not on this computer, and could not be downloaded. {error.found}"
        raise CheckpointError(found, error.expected, error.action) from error
    beside = path.with_suffix(".json")
    if not beside.is_file() or beside.read_text(encoding="utf-8") != card.to_json():
        _write_card(card, beside)
    return path


# ---- believing a checkpoint


def _check_file(path: Path, card: Card) -> None:
    if not path.is_file():
        raise CheckpointError(f"The file {path} is missing", "it beside its card", "get both files of the checkpoint")
    found = sha256_of(path)
    if found != card.sha256.lower():
        raise CheckpointError(
            f"The file {path} has SHA-256 {found}",
            f"{card.sha256 or 'nothing'}, as its card says",
            "the weights were damaged or replaced; get the checkpoint again",
        )


def _empty_encoder(path: Path, card: Card) -> Encoder:
    """An encoder without memory for its weights yet; leaves the random number generators alone."""
    if card.encoder not in list_encoders() or card.channels < 1:
        raise CheckpointError(
            f"The checkpoint {path} is for the encoder {card.encoder!r} with {card.channels} channels",
            f"one of {', '.join(list_encoders())}, with 1 or more channels",
            "update this software, or choose another checkpoint",
        )
    with torch.device("meta"):
        return create_encoder(card.encoder, channels=card.channels)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"The file {path} is no readable safetensors file: {error}",
            "one that save_checkpoint wrote",
            "get the checkpoint again",
        ) from error


def _check_tensors(path: Path, card: Card, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    wrong = [
        *(f"lacks {name}" for name in expected if name not in tensors),
        *(f"has an unknown {name}" for name in tensors if name not in expected),
        *(
            f"has {name} of shape {tuple(tensors[name].shape)} instead of {tuple(own.shape)}"
            for name, own in expected.items()
            if name in tensors and tensors[name].shape != own.shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more differences" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"The file {path} {', '.join(wrong[:3])}{more}",
            f"the {len(expected)} tensors of the encoder {card.encoder!r} with {card.channels} channels",
            "choose a checkpoint that was saved from this encoder",
        )
