"""Trained weights on disk: a `.safetensors` file and its JSON card. Nothing here can execute code (no pickle).

A checkpoint holds an encoder, the learned head of a method, or both. One that holds a head only names the checkpoint of its
encoder, so that many methods share one large file.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoint_tensors import HEAD, check_file, check_tensors, read_tensors, stored
from FewShotSegLib.download import DownloadError, DownloadProgress, default_cache_dir, fetch, sha256_of
from FewShotSegLib.encoders import Encoder, create_encoder, list_encoders
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.files import atomic_path
from FewShotSegLib.resources import resource_dir

__all__ = ["Card", "fetch", "list_checkpoints", "list_downloadable", "load_checkpoint", "load_head", "save_checkpoint"]

INDEX = "index.json"


def save_checkpoint(
    encoder: Encoder, card: Card, folder: str | Path, *, head: nn.Module | None = None, half: bool = True
) -> Path:
    """Write `<name>.safetensors` and `<name>.json` into `folder`, each atomically; returns the former's path.

    With `half`, weights of two and more dimensions are stored as float16; biases and everything of the normalisation
    layers stay float32. `head` holds the parameters of the method `card.method`. When the card says `encoder_from`, the
    encoder itself is left out. Encoder name, channels, SHA-256, time and library version of the card are filled in here.

    Raises:
        CheckpointError: a field of the card has a wrong type, a weight is not finite as stored, a head without a method or
            the reverse, or an encoder that is not the one of `encoder_from`.
        OutputError: the folder cannot be written to.
    """
    card = replace(
        card,
        encoder=encoder.config.name,
        channels=encoder.config.channels,
        encoder_sha256=_same_encoder(encoder, card.encoder_from, Path(folder)) if card.encoder_from else "",
        created=card.created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        library_version=card.library_version or _library_version(),
    ).checked(card.name)
    own = {} if card.encoder_from else encoder.state_dict()
    learned = {HEAD + name: tensor for name, tensor in head.state_dict().items()} if head else {}
    _check_parts(card.name, card, bool(learned))
    path = Path(folder) / f"{card.name}.safetensors"
    tensors = {name: stored(name, tensor, half) for name, tensor in (own | learned).items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)
    _write_card(replace(card, sha256=sha256_of(path)), path.with_suffix(".json"))
    return path


def load_checkpoint(name_or_path: str | Path, *, progress: DownloadProgress | None = None) -> tuple[Encoder, Card]:
    """The encoder, in evaluation mode with float32 weights on the CPU, and the checkpoint's card.

    `name_or_path` is a name (bundled, cached, or downloadable: then it is downloaded once), one of the checkpoint's two
    files, or a folder that holds one checkpoint. The encoder of a checkpoint that says `encoder_from` comes from there.

    Raises:
        CheckpointError: unknown name, bad card, wrong SHA-256, unknown encoder, or tensors whose names or shapes differ.
    """
    path, card = _verified(name_or_path, progress)
    if card.encoder_from:
        return _shared_encoder(path, card, progress), card
    encoder = _empty_encoder(path, card)
    tensors, head = read_tensors(path)
    _check_parts(str(path), card, bool(head))
    expected = encoder.state_dict()
    check_tensors(path, card, tensors, expected)
    encoder.load_state_dict({name: tensors[name].to(own.dtype) for name, own in expected.items()}, assign=True)
    return encoder.to(memory_format=encoder.layout).eval(), card


def load_head(name_or_path: str | Path, method: str) -> dict[str, Tensor]:
    """The learned parameters of the method, float32, for `LearnedMethod.load_head`; empty when the checkpoint has none.

    Raises:
        CheckpointError: as `load_checkpoint`, and when the parameters are those of another method.
    """
    path, card = _verified(name_or_path, None)
    if card.method not in ("", method):
        raise CheckpointError(
            f"The checkpoint {card.name!r} was trained for the method {card.method!r}, not for {method!r}",
            f"a checkpoint for {method!r}, or one that holds an encoder only",
            f"choose the method {card.method!r}, or another checkpoint; `fewshotseg checkpoints` describes them",
        )
    tensors, head = read_tensors(path)
    _check_parts(str(path), card, bool(head))
    if card.encoder_from and tensors:
        raise _bad_parts(str(path), "holds an encoder and names another one")
    return head


def list_checkpoints() -> list[Card]:
    """Cards of the checkpoints on this computer: bundled ones first, then those in the cache, each name once."""
    return [Card.read(path) for path in _local_cards().values()]


def list_downloadable() -> list[Card]:
    """Cards of the checkpoints that `load_checkpoint` fetches when asked for them by name."""
    return [Card.from_record(entry["card"], INDEX) for entry in _index().values()]


def _verified(name_or_path: str | Path, progress: DownloadProgress | None) -> tuple[Path, Card]:
    """The checkpoint's file, after a look at its SHA-256, and its card."""
    path = _locate(name_or_path, progress)
    card = Card.read(path.with_suffix(".json"))
    check_file(path, card)
    return path, card


def _shared_encoder(path: Path, card: Card, progress: DownloadProgress | None) -> Encoder:
    """The encoder that the card of a head names; looked for beside the head's own files, then by name."""
    encoder, its = load_checkpoint(_beside(path.parent, card.encoder_from), progress=progress)
    if its.encoder_from or its.sha256 != card.encoder_sha256:
        raise CheckpointError(
            f"The checkpoint {card.name!r} was trained on the encoder of {card.encoder_from!r}, but not on the one found here",
            f"the file with SHA-256 {card.encoder_sha256}",
            "get the encoder's checkpoint again, in the version of the same release",
        )
    return encoder


def _beside(folder: Path, name: str) -> str | Path:
    """The checkpoint's file in the folder, or else its name."""
    path = folder / f"{name}.safetensors"
    return path if path.is_file() else name


def _same_encoder(encoder: Encoder, name: str, folder: Path) -> str:
    """SHA-256 of the checkpoint `name`, in this folder or known, when it holds this very encoder."""
    released, card = load_checkpoint(_beside(folder, name))
    theirs = released.state_dict()
    own = encoder.state_dict()
    if own.keys() != theirs.keys() or not all(torch.equal(own[key].cpu(), theirs[key]) for key in own):
        raise CheckpointError(
            f"This encoder is not the one of the checkpoint {name!r}", "the same weights", "save the encoder too: no encoder_from"
        )
    return card.sha256


def _check_parts(source: str, card: Card, has_head: bool) -> None:
    if bool(card.method) != has_head:
        raise _bad_parts(source, f"{'has' if has_head else 'lacks'} tensors of a head; its card says method {card.method!r}")
    if card.encoder_from and not has_head:
        raise _bad_parts(source, "holds neither an encoder nor a head")


def _bad_parts(source: str, what: str) -> CheckpointError:
    expected = "a whole encoder, a head named by `method`, or both; `encoder_from` only without an encoder"
    return CheckpointError(f"The checkpoint {source} {what}", expected, "get both files of the checkpoint again")


def _library_version() -> str:
    try:
        return metadata.version("fewshotseg")
    except metadata.PackageNotFoundError:  # inside Slicer, or a checkout that was never installed
        return "unknown"


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
