"""What a method's self-supervised training is: a learned head on the shared encoder, and a loss of episodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from fewshotseg_training.episodes import Episodes

Source = Literal["superpixel", "supervoxel", "mixed", "flow", "volume"]


@dataclass(frozen=True)
class Recipe:
    """How a paper trains its method; every field is a default that `fit` can override.

    source: where an episode's region comes from.
        superpixel: one slice, twice transformed (ALPNet). supervoxel: neighbouring slices of one supervoxel (ADNet, Q-Net).
        mixed: one or the other. flow: a superpixel carried to the neighbouring slices by a flow field (VISA).
        volume: runs of `support` and of `query` consecutive slices of one supervoxel (ADNet-3D).
    support, query: slices of an episode.
    realistic: part of the superpixel episodes that are drawn like `flow` (VISA's first stage, by the paper); reach: farthest
        neighbour of a `flow` episode, in slices.
    adjacent: supervoxel episodes use truly neighbouring slices (Q-Net), not neighbours in the list of its slices (ADNet).
    min_pixels: least pixels of the region in the support or query slice.
    transformed: `both` sides get a geometry and gamma of their own (ALPNet); `one` side, drawn by lot, gets the geometry and
        one the gamma (ADNet, Q-Net); `none` (VISA's realistic episodes).
    steps, lr, momentum, weight_decay: of SGD, one episode a step in the papers.
    decay, decay_every: the learning rate is multiplied by `decay` every so many steps.
    encoder: name for `create_encoder`, the papers' own.
    """

    source: Source = "superpixel"
    support: int = 1
    query: int = 1
    realistic: float = 0.0
    reach: int = 2
    adjacent: bool = True
    min_pixels: int = 200
    transformed: Literal["both", "one", "none"] = "both"
    steps: int = 100_000
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay: float = 0.95
    decay_every: int = 1000
    encoder: str = "resnet101"


class Objective(nn.Module, ABC):
    """The training of one method. A subclass `<Name>Objective` lives in `objectives/<name>.py`.

    It is built as `<Name>Objective(channels=256, **options)`: `channels` of the encoder's features, `options` of the method's
    config. Whatever it learns beside the encoder is in `head`, a module of the library (`FewShotSegLib/methods/<name>.py`)
    whose state dict goes into the checkpoint as `head.*`; a method that learns nothing has the empty module it begins with.
    """

    name: ClassVar[str]
    recipe: Recipe = Recipe()  # of the class, or of the instance where an option changes it
    frozen: bool = False  # whether the encoder is: only the head learns

    def __init__(self) -> None:
        super().__init__()
        self.head: nn.Module = nn.Module()

    @abstractmethod
    def loss(self, encoder: nn.Module, episodes: Episodes, generator: Generator, *, step: int = 0) -> dict[str, Tensor]:
        """The terms of the loss by name, already weighted: their sum is minimised. Each is a mean over the episodes.

        `encoder` maps slices (n H W) to features (n c h w), float32; use `encode`. It is in training mode, or in evaluation
        mode without gradients when it is frozen. All randomness comes from `generator` (on the CPU). `step` counts from 0,
        for weights that change during training. Episodes that the method cannot use contribute zero, not an exception.
        """

    @torch.no_grad()
    def predict(self, encoder: nn.Module, episodes: Episodes) -> Tensor | None:
        """Probability (b q H W) of the region on the queries, for the pictures in TensorBoard; None: no pictures."""
        return None


def encode(encoder: nn.Module, episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Features of the support (b s c h w) and of the queries (b q c h w).

    All slices go through the encoder as one batch, supports first: in training mode the normalisation layers see them
    together, as in the papers.
    """
    slices = torch.cat([episodes.support.flatten(0, 1), episodes.query.flatten(0, 1)])
    features = encoder(slices)
    supports = episodes.support.shape[0] * episodes.support.shape[1]
    return (
        features[:supports].unflatten(0, episodes.support.shape[:2]),
        features[supports:].unflatten(0, episodes.query.shape[:2]),
    )
