"""A method ready for use: made for the encoder, with what it learned from the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import load_head
from FewShotSegLib.encoders import Encoder
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.methods import LearnedMethod, create_method, has_option


def equipped(name: str, options: Mapping[str, Any], encoder: Encoder, card: Card | None, checkpoint: str | None = None) -> Any:
    """The method `name` for this encoder; its learned parameters come from `checkpoint` (None: there is none), whose card it is.

    `options` go before those with which the parameters were trained.

    Raises:
        CheckpointError: the parameters are another method's or do not fit, or there are none and nothing can stand in.
        ConfigError: see `create_method`.
    """
    head: Mapping[str, Tensor] = {}
    made: dict[str, Any] = {}
    if checkpoint is not None and card is not None and card.method and _learns(name):
        head, made = load_head(checkpoint, name), dict(card.options)
    if has_option(name, "channels") and hasattr(encoder, "project"):
        made.setdefault("channels", encoder.project.out_channels)
    method = create_method(name, **{**made, **options})
    if isinstance(method, LearnedMethod):
        _fill(method, name, head)
    return method


def notes_of(method: Any) -> list[str]:
    """What the user should know about the method: that it works without trained parameters."""
    if not isinstance(method, LearnedMethod) or method.trained:
        return []
    return [f"The checkpoint has no parameters of the method {getattr(method, 'name', '')}: {method.untrained}"]


def _learns(name: str) -> bool:
    return isinstance(create_method(name), LearnedMethod)


def _fill(method: LearnedMethod, name: str, head: Mapping[str, Tensor]) -> None:
    if head:
        method.load_head(head)
    elif not method.untrained:
        raise CheckpointError(
            f"The method {name!r} has parameters of its own, and the checkpoint has none for it",
            f"a checkpoint that was trained for {name!r}",
            "choose one; `fewshotseg checkpoints` describes them",
        )
