"""Classical methods to be measured against, segmenting through the same call as the library's own methods.

A baseline's module is imported only when it is asked for: their packages are large and optional.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from FewShotSegLib.errors import ConfigError

if TYPE_CHECKING:
    from FewShotSegLib.evaluation.baselines.base import Baseline

__all__ = ["create_baseline", "list_baselines"]

CLASSES = {"elastix": "Elastix", "fill-between": "FillBetween", "grow-from-seeds": "GrowFromSeeds", "paste": "Paste"}


def list_baselines() -> list[str]:
    """Names that `create_baseline` knows."""
    return sorted(CLASSES)


def create_baseline(name: str, *, seed: int = 0) -> Baseline:
    """A baseline by name; ConfigError for an unknown one."""
    if name not in CLASSES:
        raise ConfigError(f"No baseline {name!r}", f"one of {', '.join(list_baselines())}")
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    baseline: Baseline = getattr(module, CLASSES[name])(seed)
    return baseline
