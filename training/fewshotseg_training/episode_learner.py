"""A method's own self-supervised training as a learner: encoder, objective and its episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Generator, Tensor, nn

from fewshotseg_training.config import FitConfig
from fewshotseg_training.distributed import Share
from fewshotseg_training.episode_source import EpisodeSource
from fewshotseg_training.episodes import Episodes
from fewshotseg_training.objectives import Objective, Recipe
from fewshotseg_training.sampling import Sampler
from fewshotseg_training.scans import TrainingScan
from FewShotSegLib.errors import CheckpointError, ConfigError
from FewShotSegLib.flow import FlowNetwork

DROPOUT = 1 << 32  # keeps the loss's random numbers apart from those of the draws


class HalfEncoder(nn.Module):
    """An encoder that computes in bfloat16 and answers in float32."""

    def __init__(self, encoder: nn.Module, bf16: bool) -> None:
        super().__init__()
        self.encoder, self.bf16 = encoder, bf16

    def forward(self, slices: Tensor) -> Any:
        with torch.autocast(slices.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.encoder(slices)
        return features.float() if isinstance(features, Tensor) else features


class EpisodeModel(nn.Module):
    """Encoder and objective; forward is the loss of a batch."""

    def __init__(self, encoder: nn.Module, objective: Objective, config: FitConfig) -> None:
        super().__init__()
        self.encoder, self.objective = encoder, objective
        self.frozen, self.bf16, self.seed = config.freeze_encoder, config.bf16, config.seed
        encoder.requires_grad_(not self.frozen)
        objective.frozen = self.frozen

    def train(self, mode: bool = True) -> EpisodeModel:
        """Training mode, but of a frozen encoder."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def forward(self, episodes: Episodes, step: int = 0) -> dict[str, Tensor]:
        """The terms of the loss. Dropout follows the seed and the step, too."""
        generator = Generator().manual_seed((self.seed * 1_000_003 + step + DROPOUT) % 2**63)
        device = episodes.support.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(self.seed * 1_000_003 + step)
            return self.objective.loss(HalfEncoder(self.encoder, self.bf16), episodes, generator, step=step)

    @torch.no_grad()
    def predict(self, episodes: Episodes) -> Tensor | None:
        """Probability (b q H W) of the region on the queries, or None."""
        self.eval()
        found = self.objective.predict(HalfEncoder(self.encoder, self.bf16), episodes)
        self.train()
        return found


class StepSource:
    """Episodes of a step: each sample has its own generator, made of seed, step and place, so that there is no state."""

    def __init__(self, config: FitConfig, recipe: Recipe, sets: Sequence[Sequence[TrainingScan]], device: torch.device) -> None:
        self.config = config
        recipe = recipe_of(config, recipe)
        realistic = recipe.source == "flow" or recipe.realistic > 0
        flow = load_flow(config.flow).to(device) if realistic else None
        sampler = Sampler(sets, recipe, config.exclude, config.exclude_rule)
        self.source = EpisodeSource(sampler, config.episode_augment, device, flow)

    def batch(self, step: int, share: Share) -> Episodes:
        """This process's episodes of a step."""
        mine = range(self.config.pairs)[share.of(self.config.pairs)]
        return self.source.batch([np.random.default_rng((self.config.seed, step, i)) for i in mine])

    def state(self) -> dict[str, Any]:
        """Nothing: seed and step say it all."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Nothing to load."""


def recipe_of(config: FitConfig, recipe: Recipe) -> Recipe:
    """The method's recipe with what the configuration overrides."""
    changes: dict[str, Any] = {"source": config.source} if config.source else {}
    if config.min_pixels:
        changes["min_pixels"] = config.min_pixels
    return replace(recipe, **changes)


def load_flow(path: str) -> FlowNetwork:
    """A trained flow network. Raises ConfigError when none is given, CheckpointError when it is not one."""
    if not path:
        raise ConfigError(
            "Episodes of neighbouring slices without a flow network",
            "the flow.safetensors of a run of `fewshotseg-train fit --method flow`",
            "train one, and give it as --flow",
        )
    network = FlowNetwork()
    try:
        network.load_state_dict(load_file(Path(path)))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{path} is no flow network ({error})", "a flow.safetensors", "train one anew") from error
    return network.eval().requires_grad_(False)
