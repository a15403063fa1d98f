"""A small encoder that learns, without normalisation layers; also the program that `torchrun` starts in test_distributed.py."""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewshotseg_training import learners
from fewshotseg_training.fit import FitConfig, fit
from fewshotseg_training.transforms import PaperAugment


class LearningEncoder(nn.Module):
    """Slices (b, h, w) -> features (b, channels, h/8, w/8)."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 8, 8), nn.Conv2d(16, channels, 3, padding=1, bias=False)

    def forward(self, slices: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(slices[:, None])))


def create(name: str = "", *, channels: int = 16) -> LearningEncoder:
    """In the place of `create_encoder`."""
    return LearningEncoder(channels)


def main() -> None:
    """Run `fit` on the configuration in a JSON file."""
    torch.set_num_threads(1)
    learners.create_encoder = create  # type: ignore[assignment]
    with open(sys.argv[1], encoding="utf-8") as file:
        given = json.load(file)
    fit(FitConfig(tuple(map(tuple, given.pop("data"))), **given, episode_augment=PaperAugment(elastic=0.0)))


if __name__ == "__main__":
    main()
