"""The learner of a configuration: what is trained, and where its batches come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import nn

from fewshotseg_training.carry_learner import CarryModel, PairSource
from fewshotseg_training.config import FitConfig
from fewshotseg_training.distributed import Share
from fewshotseg_training.episode_learner import EpisodeModel, StepSource
from fewshotseg_training.flow_learner import FlowModel, NeighbourSource
from fewshotseg_training.objectives import create_objective
from fewshotseg_training.scans import TrainingScan
from FewShotSegLib.checkpoints import load_checkpoint
from FewShotSegLib.encoders import create_encoder, load_trunk_weights
from FewShotSegLib.errors import CheckpointError


class Source(Protocol):
    """Where batches come from; whatever it remembers between steps is in its state."""

    def batch(self, step: int, share: Share) -> Any:
        """This process's part of the batch of a step, counted from 1."""
        ...

    def state(self) -> dict[str, Any]:
        """What to save."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        ...


@dataclass(frozen=True, eq=False)
class Learner:
    """`model(batch, step)` gives the terms of the loss of a batch of `source`."""

    model: nn.Module
    source: Source

    def parts(self) -> dict[str, nn.Module]:
        """What is saved at the end, by file name; the first is the main one."""
        if isinstance(self.model, FlowModel):
            return {"flow": self.model.network}
        found: dict[str, nn.Module] = {"encoder": self.model.get_submodule("encoder")}
        if isinstance(self.model, EpisodeModel):
            found["head"] = self.model.objective.head
        return found


def create_learner(config: FitConfig, sets: Sequence[Sequence[TrainingScan]], device: torch.device) -> Learner:
    """The learner of `config.method`, new: its random weights follow the seed."""
    torch.manual_seed(config.seed)
    if config.method == "flow":
        return Learner(FlowModel(), NeighbourSource(config, sets, device))
    encoder = _encoder(config)
    if config.method == "carry":
        return Learner(CarryModel(encoder, bf16=config.bf16), PairSource(config, sets, device))
    objective = create_objective(config.method, channels=config.channels, **dict(config.options))
    return Learner(EpisodeModel(encoder, objective, config), StepSource(config, objective.recipe, sets, device))


def _encoder(config: FitConfig) -> nn.Module:
    encoder = create_encoder(config.encoder, channels=config.channels)
    if config.weights:
        load_trunk_weights(encoder, load_file(config.weights))
    if config.base:
        encoder.load_state_dict(_base_weights(config.base))
    return encoder


def _base_weights(base: str) -> dict[str, torch.Tensor]:
    path = Path(base)
    if path.name == "encoder.safetensors" and path.exists():
        return load_file(path)
    return load_checkpoint(base)[0].state_dict()


def with_base(config: FitConfig) -> FitConfig:
    """The configuration with the encoder and channels of its base. Raises CheckpointError when the base cannot be used."""
    if not config.base:
        return config
    path = Path(config.base)
    if path.name == "encoder.safetensors":
        card = path.with_name("run.json")
        if not (path.exists() and card.exists()):
            raise CheckpointError(f"{path} is not in the folder of a run", "run.json beside it", "name a checkpoint instead")
        return replace(config, **_encoder_of(card))
    _, found = load_checkpoint(config.base)
    return replace(config, encoder=found.encoder, channels=found.channels)


def _encoder_of(run: Path) -> dict[str, Any]:
    said = json.loads(run.read_text(encoding="utf-8"))
    return {"encoder": said["encoder"], "channels": said["channels"]}
