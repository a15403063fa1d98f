"""The untrained encoder as something to compare with: what self-supervised training adds is the distance to its row."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from FewShotSegLib.encoders import Encoder, create_encoder, load_trunk_weights
from FewShotSegLib.errors import CheckpointError

NAME = "untrained"


def is_untrained(checkpoint: str | None) -> bool:
    """Whether a checkpoint's name stands for the untrained encoder: `untrained`, or `untrained:` and a file of weights."""
    return checkpoint is not None and checkpoint.partition(":")[0] == NAME


def untrained_encoder(checkpoint: str, seed: int = 0) -> Encoder:
    """The default encoder, trained on no scan: random weights, or public weights of its trunk and a random projection.

    Args:
        checkpoint: `untrained` or `untrained:WEIGHTS.safetensors` (ImageNet).
        seed: of the random weights.

    Raises:
        CheckpointError: the weights cannot be read or are not the trunk's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = create_encoder()
    weights = checkpoint.partition(":")[2]
    if weights:
        try:
            load_trunk_weights(encoder, load_file(weights))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError(
                f"The weights {weights} cannot be used ({error})", "public weights of the trunk as .safetensors", "name others"
            ) from error
    return encoder.eval()


def describe(checkpoint: str) -> str:
    """For tables: which weights the untrained encoder has."""
    weights = checkpoint.partition(":")[2]
    return f"encoder of {Path(weights).name}, trained on no scan" if weights else "encoder with random weights"
