"""How the learning rate falls."""

from __future__ import annotations

import math

from fewshotseg_training.config import FitConfig


def rate(config: FitConfig, step: int) -> float:
    """Learning rate of step number `step`, counted from 1."""
    if config.schedule == "poly":
        return config.lr * (1 - step / (config.steps + 1)) ** 0.9
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * step / (config.steps + 1)))
    if config.schedule == "decay":
        return config.lr * config.decay ** ((step - 1) // config.decay_every)
    return config.lr
