"""The training loop: pairs of neighbouring slices, carry objective, resumable checkpoints.

One frozen `FitConfig` says everything; it is saved beside the weights as `run.json`. The same seed gives the same losses.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from fewshotseg_training.augment import AugmentConfig, augment
from fewshotseg_training.carry import carry_loss
from fewshotseg_training.scans import TrainingScan, load_scan
from FewShotSegLib.encoders import Encoder, create_encoder, load_trunk_weights
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.files import atomic_path

STATE = "state.pt"
TRIES = 10_000  # draws of a pair before giving up


@dataclass(frozen=True)
class FitConfig:
    """Everything a training run depends on. `data` holds one tuple of prepared scan files per data set."""

    data: tuple[tuple[str, ...], ...]
    out: str
    weights: str = ""
    steps: int = 450
    pairs: int = 4
    lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip: float = 5.0
    reach_mm: float = 14.0
    encoder: str = "resnet50v2"
    channels: int = 256
    seed: int = 0
    save_every_s: float = 60.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)


class CarryModel(nn.Module):
    """Encoder with unit features and the learned temperature of their similarities."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.log_temperature = nn.Parameter(torch.tensor(math.log(20.0)))

    def forward(self, slices: Tensor) -> Tensor:
        """Slices (b, h, w) -> unit features (b, c, h/8, w/8)."""
        with torch.autocast(slices.device.type, torch.bfloat16):
            features = self.encoder(slices)
        return F.normalize(features.float(), dim=1, eps=1e-4)


def draw_pair(sets: Sequence[Sequence[TrainingScan]], reach_mm: float, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Two slices of one scan at most `reach_mm` apart (always at least the neighbour): image, ids, image, ids.

    Raises:
        VolumeError: no such pair whose first slice shows more than three regions.
    """
    for _ in range(TRIES):
        scans = sets[int(rng.integers(len(sets)))]
        scan = scans[int(rng.integers(len(scans)))]
        z = int(rng.integers(len(scan.image)))
        steps = max(1, round(reach_mm / scan.slice_spacing))
        other = z + int(rng.integers(1, steps + 1)) * int(rng.choice([-1, 1]))
        if 0 <= other < len(scan.image) and len(np.unique(scan.regions[z])) > 3:
            return tuple(
                torch.from_numpy(a.astype(t))
                for i in (z, other)
                for a, t in ((scan.image[i], np.float32), (scan.regions[i], np.int64))
            )
    raise VolumeError(
        f"No pair of slices with more than three regions in {TRIES} draws",
        "scans of several slices, cut into several regions each",
        "prepare the scans with a smaller --min-size",
    )


def pair_losses(model: CarryModel, pairs: Sequence[tuple[Tensor, ...]], config: FitConfig, generator: torch.Generator) -> Tensor:
    """Mean carry loss, both directions, of a batch of pairs; one side of each is augmented."""
    a, a_ids, b, b_ids = (torch.stack(t) for t in zip(*pairs, strict=True))
    if torch.rand((), generator=generator) < 0.5:
        a, a_ids = augment(a, a_ids, config.augment, generator)
    else:
        b, b_ids = augment(b, b_ids, config.augment, generator)
    first, second = model(torch.cat([a, b])).chunk(2)
    temperature = model.log_temperature.exp()
    losses = [
        carry_loss(f, i, g, j, temperature) + carry_loss(g, j, f, i, temperature)
        for f, i, g, j in zip(first, a_ids, second, b_ids, strict=True)
    ]
    return torch.stack(losses).mean()


class Run:
    """One training run: model, optimiser and both generators, saved together so that resuming changes nothing."""

    def __init__(self, config: FitConfig) -> None:
        torch.manual_seed(config.seed)
        encoder = create_encoder(config.encoder, channels=config.channels)
        if config.weights:
            load_trunk_weights(encoder, load_file(config.weights))
        self.config, self.step = config, 0
        self.losses: list[float] = []
        self.model = CarryModel(encoder).train()
        self.optimiser = torch.optim.SGD(
            self.model.parameters(), config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.rng, self.generator = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
        self.sets = [[load_scan(Path(p)) for p in files] for files in config.data]
        self.out = Path(config.out)

    def resume(self) -> None:
        """Continue from the saved state, where there is one."""
        path = self.out / STATE
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.generator.set_state(state["generator"])
            self.rng.bit_generator.state = json.loads(state["rng"])
            self.step, self.losses = state["step"], state["losses"]

    def save(self) -> None:
        """Write the state atomically: model, optimiser, generators, losses."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "rng": json.dumps(self.rng.bit_generator.state),
            "step": self.step,
            "losses": self.losses,
        }
        with atomic_path(self.out / STATE) as part:
            torch.save(state, part)

    def advance(self) -> None:
        """One optimiser step on a fresh batch of pairs, at the polynomial schedule's rate."""
        config = self.config
        self.step += 1
        for group in self.optimiser.param_groups:
            group["lr"] = config.lr * (1 - self.step / (config.steps + 1)) ** 0.9
        pairs = [draw_pair(self.sets, config.reach_mm, self.rng) for _ in range(config.pairs)]
        loss = pair_losses(self.model, pairs, config, self.generator)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimiser.step()
        self.losses.append(loss.item())


def fit(config: FitConfig) -> Path:
    """Train to the end of `config.steps`, resuming where a killed run stopped; returns the encoder's weights file."""
    run = Run(config)
    run.out.mkdir(parents=True, exist_ok=True)
    run.resume()
    (run.out / "run.json").write_text(json.dumps(asdict(config), indent=1))
    started, saved, first = time.monotonic(), time.monotonic(), run.step
    while run.step < config.steps:
        run.advance()
        if run.step % 50 == 0:
            pace = (time.monotonic() - started) / (run.step - first)
            tau = run.model.log_temperature.exp().item()
            print(f"{run.step} loss {np.mean(run.losses[-50:]):.3f} temperature {tau:.1f} {pace:.2f} s/step", flush=True)
        if time.monotonic() - saved > config.save_every_s:
            run.save()
            saved = time.monotonic()
    run.save()
    weights = {k: v.detach().contiguous() for k, v in run.model.encoder.state_dict().items()}
    with atomic_path(run.out / "encoder.safetensors") as part:
        save_file(weights, part)
    return run.out / "encoder.safetensors"
