"""A method ready for use: made for the encoder, with what it learned from the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import list_checkpoints, load_head
from FewShotSegLib.encoders import Encoder
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.methods import LearnedMethod, create_method, has_option


def equipped(name: str, options: Mapping[str, Any], encoder: Encoder, card: Card | None, checkpoint: str | None = None) -> Any:
    """The method `name` for this encoder, whose card and checkpoint (None: there is none) these are.

    Its learned parameters come from that checkpoint; when that holds an encoder only, from a head on this computer that was
    trained on this very encoder, if the options leave its size as it is. `options` go before those of the training.

    Raises:
        CheckpointError: the parameters are another method's or do not fit, or there are none and nothing can stand in.
        ConfigError: see `create_method`.
    """
    if has_option(name, "channels") and hasattr(encoder, "project"):
        options = {"channels": encoder.project.out_channels, **options}
    own = card if checkpoint is not None and _learns(name) else None
    source = own if own is None or own.method else released_head(name, own)
    if source is None:
        return _filled(create_method(name, **options), name, {})
    head = load_head(checkpoint if source is own and checkpoint else source.name, name)
    method: Any = create_method(name, **{**source.options, **options})
    fits = source is own or _sizes(method.head.state_dict()) == _sizes(head)
    return _filled(method, name, head if fits else {})


def released_head(method: str, encoder: Card) -> Card | None:
    """The card of the first head on this computer that was trained for `method` on the encoder of this card."""
    heads = (card for card in list_checkpoints() if card.method == method and card.encoder_from)
    return next((card for card in heads if card.encoder_sha256 == encoder.sha256), None)


def notes_of(method: Any) -> list[str]:
    """What the user should know about the method: that it works without trained parameters."""
    if not isinstance(method, LearnedMethod) or method.trained:
        return []
    return [f"The checkpoint has no parameters of the method {getattr(method, 'name', '')}: {method.untrained}"]


def _learns(name: str) -> bool:
    return isinstance(create_method(name), LearnedMethod)


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _filled(method: Any, name: str, head: Mapping[str, Tensor]) -> Any:
    """The method with these learned parameters; without any, as it is."""
    if not isinstance(method, LearnedMethod):
        return method
    if head:
        method.load_head(head)
    elif not method.untrained:
        raise CheckpointError(
            f"The method {name!r} has parameters of its own, and the checkpoint has none for it",
            f"a checkpoint that was trained for {name!r}",
            "choose one; `fewshotseg checkpoints` describes them",
        )
    return method
