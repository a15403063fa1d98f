"""What the trainings of methods with a learned head have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Generator, Tensor, nn

from fewshotseg_training.episodes import Episodes
from fewshotseg_training.objectives.base import Objective, encode
from FewShotSegLib.methods import LearnedMethod, create_method, has_option
from FewShotSegLib.prototypes import unit

Terms = dict[str, Tensor]


def method_to_train(name: str, channels: int, options: dict[str, Any]) -> LearnedMethod:
    """The method with a new head in training mode, for features of so many channels; its thresholds are learned alone."""
    ours = {"channels": channels, "lenient": False}
    known: dict[str, Any] = {option: value for option, value in ours.items() if has_option(name, option)}
    method = create_method(name, **{**known, **options})
    if not isinstance(method, LearnedMethod):
        raise TypeError(f"{name} learns nothing but the encoder")
    method.trained = True  # from its first step on, the head and nothing else decides
    return method


class LearnedObjective(Objective):
    """The training of a `LearnedMethod` on one episode after the other: `episode` says how.

    The features are unit vectors, as at use; a `faithful` method gets them as the encoder made them.
    """

    def __init__(self, channels: int = 256, **options: Any) -> None:
        super().__init__()
        self.method: Any = method_to_train(self.name, channels, options)
        self.head = self.method.head

    @abstractmethod
    def episode(
        self, support: Tensor, masks: Tensor, query: Tensor, labels: Tensor, generator: Generator | None, step: int
    ) -> tuple[Tensor, Terms]:
        """Probabilities (q 2 H W) of the queries, and the weighted terms of the loss, of one episode.

        support (s c h w), query (q c h w) features; masks (s H W), labels (q H W), 0 or 1. `generator`: None when nothing is
        learned from it.
        """

    def features(self, encoder: nn.Module, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Features of the supports (b s c h w) and of the queries (b q c h w)."""
        found = encode(encoder, episodes)
        return found if self.method.config.faithful else (unit(found[0], 2), unit(found[1], 2))

    def episodes(
        self, encoder: nn.Module, episodes: Episodes, generator: Generator | None, step: int
    ) -> list[tuple[Tensor, Terms]]:
        """`episode` for each of a batch."""
        supports, queries = self.features(encoder, episodes)
        tasks = zip(supports, episodes.support_masks, queries, episodes.query_masks, strict=True)
        return [self.episode(*task, generator, step) for task in tasks]

    def loss(self, encoder: nn.Module, episodes: Episodes, generator: Generator, *, step: int = 0) -> Terms:
        """See the base class."""
        terms = [terms for _, terms in self.episodes(encoder, episodes, generator, step)]
        return {name: torch.stack([t[name] for t in terms]).mean() for name in terms[0]}

    @torch.no_grad()
    def predict(self, encoder: nn.Module, episodes: Episodes) -> Tensor:
        """See the base class."""
        return torch.stack([found[:, 1] for found, _ in self.episodes(encoder, episodes, None, 0)])
