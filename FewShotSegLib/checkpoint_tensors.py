"""The tensors of a checkpoint: how they are stored, and whether they may be believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from FewShotSegLib.cards import Card
from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import CheckpointError

HEAD = "head."
"""The names of a method's own tensors begin with it; all others are the encoder's."""


def stored(name: str, tensor: Tensor, half: bool) -> Tensor:
    """The tensor as it goes into the file; with `half`, float16 when it has two or more dimensions."""
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


def check_file(path: Path, card: Card) -> None:
    """Raise CheckpointError unless the file is there and has the SHA-256 of its card."""
    if not path.is_file():
        raise CheckpointError(f"The file {path} is missing", "it beside its card", "get both files of the checkpoint")
    found = sha256_of(path)
    if found != card.sha256.lower():
        raise CheckpointError(
            f"The file {path} has SHA-256 {found}",
            f"{card.sha256 or 'nothing'}, as its card says",
            "the weights were damaged or replaced; get the checkpoint again",
        )


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the encoder, and those of the method's head (float32, names without `head.`)."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"The file {path} is no readable safetensors file: {error}",
            "one that save_checkpoint wrote",
            "get the checkpoint again",
        ) from error
    head = {name.removeprefix(HEAD): _wide(tensor) for name, tensor in tensors.items() if name.startswith(HEAD)}
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(HEAD)}, head


def check_tensors(path: Path, card: Card, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError unless names and shapes are those expected of the card's encoder."""
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


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
