"""The training loop: one loop for all learners, resumable at any moment.

One frozen `FitConfig` says everything; it is saved beside the weights as `run.json`. The same seed gives the same losses.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fewshotseg_training.config import FitConfig, check_same
from fewshotseg_training.display import Watch
from fewshotseg_training.distributed import Share, first_says, mean_of, processes
from fewshotseg_training.learners import Learner, create_learner, with_base
from fewshotseg_training.scans import load_scan
from fewshotseg_training.schedules import rate
from FewShotSegLib.devices import choose_device
from FewShotSegLib.errors import FewShotSegError
from FewShotSegLib.files import atomic_path, write_json

__all__ = ["FitConfig", "Paused", "Run", "fit"]

STATE, RUN, PROGRESS = "state.pt", "run.json", "progress.json"


class TrainingError(FewShotSegError):
    """A training that cannot go on."""


class Paused(FewShotSegError):
    """A training whose time is over before its steps: saved, and ready to go on."""


class Run:
    """One training run: model, optimiser and the source of its batches, saved together so that resuming changes nothing."""

    def __init__(self, config: FitConfig, share: Share | None = None, device: torch.device | None = None) -> None:
        self.config, self.share, self.step = config, share or Share(), 0
        self.device = device or choose_device(config.device)
        self.losses: list[float] = []
        self.terms: dict[str, float] = {}
        self.batch: Any = None  # of the last step, for pictures
        sets = [[load_scan(Path(p)) for p in files] for files in config.data]
        self.learner: Learner = create_learner(config, sets, self.device)
        self.model = self.learner.model.to(self.device).train()
        self.optimiser = _optimiser(config, self.model)
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()} if config.ema else {}
        begun = self.learner.parts()["encoder"].state_dict() if config.keep_base else {}
        self.base = {name: value.detach().cpu().clone() for name, value in begun.items()}
        self.out = Path(config.out)
        self._forward = _parallel(self.model, self.share, self.device)

    def resume(self) -> None:
        """Continue from the saved state, where there is one."""
        path = self.out / STATE
        if not path.exists():
            return
        if (self.out / RUN).exists():
            check_same(self.config, json.loads((self.out / RUN).read_text(encoding="utf-8")))
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.learner.source.load(state)
        self.ema = state.get("ema", {})
        self.step, self.losses = state["step"], state["losses"]

    def save(self) -> None:
        """Write the state atomically: model, optimiser, generators, losses."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "losses": self.losses,
            **({"ema": self.ema} if self.ema else {}),
            **self.learner.source.state(),
        }
        with atomic_path(self.out / STATE) as part:
            torch.save(state, part)
        said = {"step": self.step, "steps": self.config.steps, "loss": self.losses[-1] if self.losses else None}
        write_json(self.out / PROGRESS, said)

    def advance(self) -> None:
        """One optimiser step on a fresh batch, at the schedule's rate."""
        self.step += 1
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.config, self.step)
        self.batch = self.learner.source.batch(self.step, self.share)
        terms = self._forward(self.batch, self.step - 1)
        loss = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        self.optimiser.zero_grad()
        loss.backward()
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        self._average()
        self._record(loss, terms)

    def _average(self) -> None:
        """The running mean of the weights takes one step; counters are copied."""
        for name, value in self.model.state_dict().items() if self.ema else ():
            if value.is_floating_point():
                self.ema[name].lerp_(value.detach(), 1 - self.config.ema)
            else:
                self.ema[name].copy_(value)

    def _record(self, loss: Tensor, terms: dict[str, Tensor]) -> None:
        self.losses.append(mean_of(loss, self.share).item())
        self.terms = {name: term.item() for name, term in terms.items()} if len(terms) > 1 else {}
        if not math.isfinite(self.losses[-1]):
            raise TrainingError(
                f"The loss of step {self.step} is {self.losses[-1]}",
                "a finite loss",
                f"train with a smaller --lr than {self.config.lr}; the last saved state in {self.out} is still good",
            )

    def export(self) -> Path:
        """Write the trained parts, each a .safetensors file; returns the first one's path."""
        if self.ema:
            self.model.load_state_dict(self.ema)
        paths = []
        for name, module in self.learner.parts().items():
            tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
            if name == "encoder" and self.base:
                part_kept = self.config.keep_base
                tensors |= {k: v.lerp(self.base[k], part_kept) for k, v in tensors.items() if v.is_floating_point()}
            if tensors:
                paths.append(self.out / f"{name}.safetensors")
                with atomic_path(paths[-1]) as part:
                    save_file(tensors, part)
        return paths[0]


def fit(config: FitConfig) -> Path:
    """Train to the end of `config.steps`, resuming where a killed run stopped; returns the weights' file.

    That is `encoder.safetensors`, with `head.safetensors` beside it when the method learns one, or `flow.safetensors`.

    Raises:
        ConfigError: an impossible configuration, or the folder holds a run with another one.
        VolumeError: a scan that is not prepared, or nothing to draw from.
        TrainingError: the loss is not finite any more.
        Paused: `config.minutes` are over; the same call goes on.
    """
    config = with_base(config)
    with processes(choose_device(config.device)) as (share, device):
        return _fit(config, share, device)


def _fit(config: FitConfig, share: Share, device: torch.device) -> Path:
    """`fit` in one process; a function of its own, so that nothing of the run is left when the processes part."""
    run = Run(config, share, device)
    run.out.mkdir(parents=True, exist_ok=True)
    run.resume()
    if share.rank == 0:
        with atomic_path(run.out / RUN) as part:
            part.write_text(config.to_json(), encoding="utf-8")
    with Watch(run) as watch:
        _train(run, watch)
    if share.rank == 0:
        run.save()
    if run.step < config.steps:
        raise Paused(
            f"{config.out} paused after step {run.step} of {config.steps}: its {config.minutes:g} minutes are over",
            "",
            "run the same command to go on",
        )
    return run.export() if share.rank == 0 else run.out / "encoder.safetensors"


def _train(run: Run, watch: Watch) -> None:
    """Steps up to the last one, or until the time is over."""
    started = saved = time.monotonic()
    limit = 60 * run.config.minutes
    while run.step < run.config.steps:
        run.advance()
        watch.step()
        if run.share.rank == 0 and time.monotonic() - saved > run.config.save_every_s:
            run.save()
            saved = time.monotonic()
        if limit and first_says(time.monotonic() - started > limit, run.share):
            return


def _optimiser(config: FitConfig, model: nn.Module) -> torch.optim.Optimizer:
    learned = [p for p in model.parameters() if p.requires_grad]
    if not learned:
        raise TrainingError(
            f"Nothing is left to learn: the method {config.method} has no head and its encoder is frozen",
            "an encoder that learns, or a method with a head",
            "train without --freeze-encoder",
        )
    if config.optimiser == "adam":
        return torch.optim.Adam(learned, config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(learned, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def _parallel(model: nn.Module, share: Share, device: torch.device) -> nn.Module:
    """The model, its gradients averaged over the processes; on GPUs its normalisation layers see all of them, too."""
    if share.world == 1:
        return model
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, find_unused_parameters=True)
