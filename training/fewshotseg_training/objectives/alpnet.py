"""The losses of SSL-ALPNet (Ouyang et al., ECCV 2020): alpnet_visa.md section 5."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from fewshotseg_training.episodes import Episodes
from fewshotseg_training.objectives.base import Objective, Recipe, encode
from FewShotSegLib.methods import create_method
from FewShotSegLib.methods.alpnet import Alpnet
from FewShotSegLib.methods.base import upsample

BACKGROUND_WEIGHT = 0.05
IGNORE = 255


@dataclass(frozen=True, eq=False)
class EpisodeLoss:
    """Logits (n 2 H W) of the queries and the two losses of one episode; `total` is their sum."""

    logits: Tensor
    query: Tensor
    alignment: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        return self.query + self.alignment


def training_window(cells: int, grid: int = 8) -> int:
    """Side of a local prototype's block in training: a feature map of `cells` x `cells` holds grid x grid of them."""
    return max(cells // grid, 1)


def query_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of logits (n 2 H W) against labels (n H W) in {0, 1, 255 = ignore}; background weighs 0.05."""
    weight = logits.new_tensor([BACKGROUND_WEIGHT, 1.0])
    return F.cross_entropy(logits, labels.long(), weight=weight, ignore_index=IGNORE)


def alignment_loss(method: Alpnet, support: Tensor, query: Tensor, masks: Tensor, scores: Tensor) -> Tensor:
    """Roles swapped: the queries, with their predicted masks, must segment the support slices.

    support (s c h w), query (n c h w) features; masks (s H W) of the support; scores (n 2 h w) of the queries, whose argmax
    is the prediction (no gradient). Mean over the support slices. Raises SupportError when the prediction leaves no
    background block and the method is faithful.
    """
    memory = method.remember(query, scores.argmax(1).to(query.dtype))
    logits = upsample(method.score(support, memory), (masks.shape[1], masks.shape[2]))
    labels = torch.full(masks.shape, IGNORE, dtype=torch.long, device=masks.device)
    labels[masks == 1] = 1
    labels[masks == 0] = 0
    shots = zip(logits.split(1), labels.split(1), strict=True)
    return torch.stack([F.cross_entropy(shot, label, ignore_index=IGNORE) for shot, label in shots]).mean()


def episode_loss(method: Alpnet, support: Tensor, masks: Tensor, query: Tensor, labels: Tensor) -> EpisodeLoss:
    """Both losses of an episode: support (s c h w), masks (s H W), query (n c h w), labels (n H W)."""
    scores = method.score(query, method.remember(support, masks))
    logits = upsample(scores, (labels.shape[1], labels.shape[2]))
    return EpisodeLoss(logits, query_loss(logits, labels), alignment_loss(method, support, query, masks, scores))


class AlpnetObjective(Objective):
    """ALPNet's training: it learns the encoder only, its prototypes have no weights. Options: those of `AlpnetConfig`."""

    name: ClassVar[str] = "alpnet"
    recipe = Recipe(source="superpixel", transformed="both", steps=100_100)

    def __init__(self, channels: int = 256, **options: Any) -> None:
        super().__init__()
        self.config = create_method(self.name, **options).config

    def method(self, cells: int) -> Alpnet:
        """The method with the training's window, for features of `cells` rows."""
        return Alpnet(replace(self.config, window=training_window(cells)))

    def losses(self, encoder: nn.Module, episodes: Episodes) -> list[EpisodeLoss]:
        """Both losses of every episode."""
        supports, queries = encode(encoder, episodes)
        method = self.method(supports.shape[-2])
        tasks = zip(supports, episodes.support_masks, queries, episodes.query_masks, strict=True)
        return [episode_loss(method, *task) for task in tasks]

    def loss(self, encoder: nn.Module, episodes: Episodes, generator: Generator, *, step: int = 0) -> dict[str, Tensor]:
        """Segmentation and alignment; see the base class."""
        found = self.losses(encoder, episodes)
        return {
            "query": torch.stack([loss.query for loss in found]).mean(),
            "alignment": torch.stack([loss.alignment for loss in found]).mean(),
        }

    @torch.no_grad()
    def predict(self, encoder: nn.Module, episodes: Episodes) -> Tensor:
        """Probability (b q H W) of the region on the queries."""
        return torch.stack([loss.logits.softmax(1)[:, 1] for loss in self.losses(encoder, episodes)])
