"""The methods by name. A method's module is imported only when it is asked for.

`methods/<name>.py` defines the class `<Name>` (the method, built from its config) and the frozen dataclass `<Name>Config`.
"""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.base import Memory, Method, upsample

__all__ = ["Memory", "Method", "create_method", "list_methods", "upsample"]

NAMES = ("match", "alpnet", "visa")


def list_methods() -> list[str]:
    """Names that `create_method` accepts, the default first."""
    return [name for name in NAMES if find_spec(f"{__name__}.{name}")]


def create_method(name: str, **config: Any) -> Method[Any]:
    """The method `name` with these options. Raises ConfigError for an unknown name or option, naming the known ones."""
    if name not in list_methods():
        raise ConfigError(f"There is no method {name!r}", f"one of {', '.join(list_methods())}", "choose a method from the list")
    module = import_module(f"{__name__}.{name}")
    config_class = getattr(module, f"{name.capitalize()}Config")
    known = [field.name for field in fields(config_class) if field.init]
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise ConfigError(
            f"The method {name!r} has no option {', '.join(map(repr, unknown))}",
            f"some of {', '.join(known)}",
            "correct or leave out this option",
        )
    _check_types(name, config, getattr(module, name.capitalize())().config)
    return getattr(module, name.capitalize())(config_class(**config))


def _check_types(name: str, config: dict[str, Any], defaults: Any) -> None:
    """Refuse values of another type than the option's default; a whole number is also a float."""
    for option, value in config.items():
        kind = type(getattr(defaults, option))
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ConfigError(f"The option {option} = {value!r} of the method {name!r}", f"{kind.__name__}", "correct the option")
