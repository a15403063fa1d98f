"""The methods by name. A method's module is imported only when it is asked for.

`methods/<name>.py` defines the class `<Name>` (the method, built from its config) and the frozen dataclass `<Name>Config`. A
method that learns more than the encoder is a `LearnedMethod` with its parameters in `head`.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.base import LearnedMethod, Memory, Method, upsample

__all__ = ["LearnedMethod", "Memory", "Method", "create_method", "has_option", "list_methods", "upsample"]

NAMES = ("match", "alpnet", "visa", "adnet", "adnet3d", "qnet", "rpt", "pami", "qamp")


def list_methods() -> list[str]:
    """Names that `create_method` accepts, the default first."""
    return [name for name in NAMES if find_spec(f"{__name__}.{name}")]


def create_method(name: str, **config: Any) -> Method[Any]:
    """The method `name` with these options. Raises ConfigError for an unknown name or option, naming the known ones.

    What a head starts from is the same every time; the random numbers of the caller stay as they are.
    """
    config_class = _config_class(name)
    known = _options(config_class)
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ConfigError(
            f"The method {name!r} has no option {', '.join(map(repr, unknown))}",
            f"some of {', '.join(known)}",
            "correct or leave out this option",
        )
    _check_types(name, config, config_class())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(import_module(config_class.__module__), name.capitalize())(config_class(**config))


def has_option(name: str, option: str) -> bool:
    """Whether the method `name` has this option."""
    return option in _options(_config_class(name))


def _config_class(name: str) -> Any:
    if name not in list_methods():
        raise ConfigError(f"There is no method {name!r}", f"one of {', '.join(list_methods())}", "choose a method from the list")
    return getattr(import_module(f"{__name__}.{name}"), f"{name.capitalize()}Config")


def _options(config_class: Any) -> list[str]:
    return [field.name for field in fields(config_class) if field.init]


def _check_types(name: str, config: dict[str, Any], defaults: Any) -> None:
    """Refuse values of another type than the option's default; a whole number is also a float."""
    for option, value in config.items():
        kind = type(getattr(defaults, option))
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"The option {option} = {value!r} of the method {name!r}", f"{kind.__name__}", "correct the option")
