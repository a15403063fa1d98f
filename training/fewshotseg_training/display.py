"""What a training shows while it runs: a live bar with the time left in a terminal, plain lines elsewhere, TensorBoard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from fewshotseg_training.carry_learner import CarryModel
from fewshotseg_training.episode_learner import EpisodeModel

if TYPE_CHECKING:
    from fewshotseg_training.fit import Run

LINE_EVERY = 50  # steps
RECENT = 50


class Watch:
    """Follows a run step by step; only the first process says anything."""

    def __init__(self, run: Run) -> None:
        self.run, self.first, self.started = run, run.step, time.monotonic()
        self._bar: Progress | None = None
        self._board: Any = None

    def __enter__(self) -> Watch:
        config = self.run.config
        if self.run.share.rank == 0 and self.run.step < config.steps:
            console = Console()
            if config.show == "auto" and console.is_terminal:
                columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
                self._bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
                self._bar.add_task(config.method, total=config.steps, completed=self.run.step)
                self._bar.start()
            if config.log_every:
                from torch.utils.tensorboard import SummaryWriter  # heavy: only when asked for

                self._board = SummaryWriter(self.run.out / "tensorboard", purge_step=self.run.step + 1)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._board is not None:
            self._board.close()

    def step(self) -> None:
        """After every step."""
        run, config = self.run, self.run.config
        if run.share.rank != 0:
            return
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=run.step, description=f"{config.method} loss {self._loss():.3f}")
        elif config.show != "none" and run.step % LINE_EVERY == 0:
            print(self._line(), flush=True)
        if self._board is not None:
            self._log()

    def _loss(self) -> float:
        return float(np.mean(self.run.losses[-RECENT:]))

    def _line(self) -> str:
        """Step, loss, pace and time left."""
        run = self.run
        pace = (time.monotonic() - self.started) / (run.step - self.first)
        left = (run.config.steps - run.step) * pace
        model = run.model
        extra = f" temperature {model.log_temperature.exp().item():.1f}" if isinstance(model, CarryModel) else ""
        return f"{run.step} loss {self._loss():.3f}{extra} {pace:.2f} s/step, {_duration(left)} left"

    def _log(self) -> None:
        run, config = self.run, self.run.config
        if run.step % config.log_every == 0:
            self._board.add_scalar("loss", self._loss(), run.step)
            self._board.add_scalar("rate", run.optimiser.param_groups[0]["lr"], run.step)
            for name, value in run.terms.items():
                self._board.add_scalar(f"terms/{name}", value, run.step)
            if isinstance(run.model, CarryModel):
                self._board.add_scalar("temperature", run.model.log_temperature.exp().item(), run.step)
        if config.pictures_every and run.step % config.pictures_every == 0:
            name, shown = _picture(run.model, run.batch)
            if shown:
                self._board.add_image(name, torch.cat(shown, 2).cpu(), run.step)


def _picture(model: nn.Module, batch: Any) -> tuple[str, list[torch.Tensor]]:
    """An example of the last step's batch, slices (3 H W) side by side, and what it shows."""
    if isinstance(model, CarryModel):
        first, ids, second, wanted = (side[0] for side in batch)
        shown = [_coloured(first, ids), _coloured(second, wanted), _coloured(second, model.predict(batch))]
        return "pair: regions, wanted, carried", shown
    if not isinstance(model, EpisodeModel):
        return "", []
    episodes = batch[:1]
    query = episodes.query[0, 0]
    shown = [_overlay(episodes.support[0, 0], episodes.support_masks[0, 0]), _overlay(query, episodes.query_masks[0, 0])]
    predicted = model.predict(episodes)
    return "episode: support, query, predicted", shown + ([] if predicted is None else [_overlay(query, predicted[0, 0].float())])


def _coloured(image: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Slice (H W) in grey with a colour for every region id but 0: (3 H W), 0..1."""
    grey = _overlay(image, torch.zeros_like(image))
    hue = torch.stack([(ids * step % 1.0) for step in (0.618, 0.382, 0.236)])
    return torch.where(ids > 0, 0.6 * grey + 0.4 * hue, grey)


def _overlay(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Slice (H W) in grey with a mask (H W), 0..1, in red: (3 H W), 0..1."""
    low, high = image.quantile(0.01), image.quantile(0.99)
    grey = ((image - low) / (high - low + 1e-5)).clamp(0, 1)
    red = grey + 0.5 * mask * (1 - grey)
    return torch.stack([red, grey * (1 - 0.5 * mask), grey * (1 - 0.5 * mask)])


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
