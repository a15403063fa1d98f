"""Settings of a method's training: ours for a small computer, and the papers' own."""

from __future__ import annotations

from typing import Any

from fewshotseg_training.config import FitConfig
from fewshotseg_training.objectives import Recipe, create_objective

OURS = {"steps": 2000, "pairs": 4, "schedule": "cosine"}
HEAD = {"steps": 300, "pairs": 4, "schedule": "cosine", "optimiser": "adam", "weight_decay": 0.0}
HEAD_RATE = {"adnet": 0.2, "adnet3d": 0.2, "qnet": 0.03, "qamp": 0.01}
"""Learning rates of heads that are little more than a threshold, and of QAMP's, which is far from its end at the others' rate."""
FLOW = {"steps": 2000, "pairs": 8, "lr": 1e-4, "schedule": "cosine", "optimiser": "adam", "weight_decay": 0.0}


def config_for(method: str, data: tuple[tuple[str, ...], ...], out: str, *, published: bool = False, **given: Any) -> FitConfig:
    """The configuration of a training; `given` fields of FitConfig win over the defaults of the method.

    By default the papers' learning rate with batches of four episodes, a cosine and 2,000 steps; a head on a frozen encoder
    learns with Adam in 300. `published`: the papers' encoder, steps, schedule and batches of one, without clipping, in float32.

    Raises:
        ConfigError: unknown method or option, or impossible settings.
    """
    if method == "carry":
        return FitConfig(data, out, **given)
    if method == "flow":
        return FitConfig(data, out, **{**FLOW, **given, "method": method})
    recipe = create_objective(method, channels=given.get("channels", 256), **dict(given.get("options", ()))).recipe
    defaults = {**OURS, "lr": recipe.lr}
    if published:
        defaults = _published(recipe)
    elif given.get("freeze_encoder"):
        defaults = {**HEAD, "lr": HEAD_RATE.get(method, 2e-3)}
    return FitConfig(data, out, **{**defaults, **given, "method": method})


def _published(recipe: Recipe) -> dict[str, Any]:
    return {
        "steps": recipe.steps,
        "pairs": 1,
        "lr": recipe.lr,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "schedule": "decay",
        "decay": recipe.decay,
        "decay_every": recipe.decay_every,
        "clip": 0.0,
        "bf16": False,
        "encoder": recipe.encoder,
    }
