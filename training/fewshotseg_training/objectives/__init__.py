"""The methods' self-supervised trainings by name; their models are in FewShotSegLib.methods.

`objectives/<name>.py` defines the class `<Name>Objective`. A module is imported only when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from fewshotseg_training.objectives.base import Objective, Recipe, encode
from FewShotSegLib.errors import ConfigError

__all__ = ["Objective", "Recipe", "create_objective", "encode", "list_objectives"]

NAMES = ("alpnet", "visa", "adnet", "adnet3d", "qnet", "rpt", "pami", "qamp")


def list_objectives() -> list[str]:
    """Names that `create_objective` accepts."""
    return [name for name in NAMES if find_spec(f"{__name__}.{name}")]


def objective_class(name: str) -> type[Objective]:
    """The class behind a name. Raises ConfigError for an unknown one, naming the known ones."""
    if name not in list_objectives():
        found = f"There is no training for a method {name!r}"
        raise ConfigError(found, f"carry or one of {', '.join(list_objectives())}", "choose one from the list")
    return getattr(import_module(f"{__name__}.{name}"), f"{name.capitalize()}Objective")


def create_objective(name: str, *, channels: int = 256, **options: Any) -> Objective:
    """The training of a method, its learned head new; `channels` of the encoder's features, `options` of the method."""
    return objective_class(name)(channels=channels, **options)  # type: ignore[call-arg]
