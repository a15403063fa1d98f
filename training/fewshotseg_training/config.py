"""What a training run depends on, in one frozen object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fewshotseg_training.augment import AugmentConfig
from fewshotseg_training.transforms import PaperAugment
from FewShotSegLib.errors import ConfigError

Schedule = Literal["poly", "cosine", "decay", "constant"]

FREE = {"out", "steps", "keep_base", "save_every_s", "minutes", "log_every", "pictures_every", "device", "show"}
"""Fields that may differ when a run goes on: they do not change what a step does."""
PATHS = ("data", "weights", "base", "flow")
"""Fields that are paths, which may lie elsewhere on another machine."""


@dataclass(frozen=True)
class FitConfig:
    """Everything a training run depends on. The defaults are the carry training of the released checkpoints.

    data: one tuple of prepared scan files per data set; the sets are drawn from equally often.
    out: folder for the state, `run.json` and the weights.
    weights: public weights of the trunk. base: checkpoint (name or path) or `encoder.safetensors` of a run to start from; the
        encoder's name and channels are then its own.
    method: `carry`, `flow` (VISA's flow network), or a method of `fewshotseg_training.objectives`. options: of that method.
    pairs: slice pairs or episodes a step, over all processes. source: where episodes come from, "" = as the method's paper.
    flow: weights of a trained flow network, for realistic episodes.
    exclude, exclude_rule: setting 2: slices that show `any` (or `all`, as published) of these labels are never drawn.
    labelled, labels_of: carry: part of the pairs that are slices of two scans of one data set, whose labels are carried instead
        of supervoxels, and the names of the data sets whose labels are used; all without any.
    keep_base: what the encoder of the base weighs in the saved one, 0 = nothing: a mean of both has what the training taught and
        loses less of what the base knew.
    min_pixels: least pixels of an episode's region, 0 = as the paper.
    lr, schedule: `poly` falls to nothing with the power 0.9, `cosine` likewise, `decay` multiplies by `decay` every
        `decay_every` steps. optimiser: `sgd` or `adam`. clip: largest norm of the gradient, 0 = none.
    ema: share that a running mean of the weights keeps a step; 0 = the weights themselves are saved at the end.
    freeze_encoder: only the method's head learns.
    save_every_s: seconds between saved states. minutes: pause, saved, after so long; 0 = train to the end.
    device, bf16: where, and whether the encoder computes in bfloat16. show: progress; `auto` is live in a terminal.
    log_every: steps between records for TensorBoard, pictures_every: between example pictures; 0 = none.
    """

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
    minutes: float = 0.0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    method: str = "carry"
    options: tuple[tuple[str, Any], ...] = ()
    base: str = ""
    freeze_encoder: bool = False
    source: str = ""
    flow: str = ""
    exclude: tuple[int, ...] = ()
    exclude_rule: Literal["any", "all"] = "any"
    labelled: float = 0.0
    labels_of: tuple[str, ...] = ()
    keep_base: float = 0.0
    min_pixels: int = 0
    episode_augment: PaperAugment = field(default_factory=PaperAugment)
    schedule: Schedule = "poly"
    decay: float = 0.95
    decay_every: int = 1000
    optimiser: Literal["sgd", "adam"] = "sgd"
    ema: float = 0.0
    device: str = "cpu"
    bf16: bool = True
    log_every: int = 0
    pictures_every: int = 0
    show: Literal["auto", "lines", "none"] = "lines"

    def __post_init__(self) -> None:
        wrong = [
            *(f"{name} = {getattr(self, name)}" for name in ("steps", "pairs") if getattr(self, name) < (name == "pairs")),
            *([f"ema = {self.ema}"] if not 0 <= self.ema < 1 else []),
            *([f"labelled = {self.labelled}"] if not 0 <= self.labelled <= 1 else []),
            *([f"keep_base = {self.keep_base}"] if not 0 <= self.keep_base < 1 else []),
            *(["keep_base without an encoder's base"] if self.keep_base and (not self.base or self.method == "flow") else []),
            *([f"schedule = {self.schedule}"] if self.schedule not in ("poly", "cosine", "decay", "constant") else []),
            *([f"optimiser = {self.optimiser}"] if self.optimiser not in ("sgd", "adam") else []),
            *([f"exclude_rule = {self.exclude_rule}"] if self.exclude_rule not in ("any", "all") else []),
        ]
        if wrong:
            raise ConfigError(f"A training cannot have {', '.join(wrong)}", "possible values; see `fit --help`", "correct it")

    def to_json(self) -> str:
        """The configuration as indented JSON, for `run.json`."""
        return json.dumps(asdict(self), indent=1)


def check_same(config: FitConfig, saved: Mapping[str, Any]) -> None:
    """Raise ConfigError where a run would go on with another configuration than the one of its folder's `run.json`.

    A field that an older version did not know has its default.
    """
    now = json.loads(config.to_json())
    saved = {**saved, **{name: _portable(name, saved[name]) for name in PATHS if name in saved}}
    now |= {name: _portable(name, now[name]) for name in PATHS}
    defaults = {f.name: json.loads(json.dumps(_default(f))) for f in fields(FitConfig) if f.name not in ("data", "out")}
    differ = [
        name
        for name, value in now.items()
        if name not in FREE and json.loads(json.dumps(saved.get(name, defaults.get(name)))) != value
    ]
    if differ:
        raise ConfigError(
            f"{config.out} holds a run with another {', '.join(differ)}",
            "the same configuration, to go on with it",
            "choose another folder for --out, or delete this one",
        )


def _portable(name: str, value: Any) -> Any:
    """A path as its last two names, and that weights were given: a run may go on on another machine."""
    if name == "data":
        return [["/".join(Path(file).parts[-2:]) for file in files] for files in value]
    return bool(value) if name == "weights" else "/".join(Path(value).parts[-2:])


def _default(f: Any) -> Any:
    value = f.default_factory() if callable(f.default_factory) else f.default
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
