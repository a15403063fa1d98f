"""Classical methods to be measured against, segmenting through the same call as the library's own methods."""

from __future__ import annotations

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.baselines.base import Baseline
from FewShotSegLib.evaluation.baselines.elastix import Elastix
from FewShotSegLib.evaluation.baselines.fill_between import FillBetween
from FewShotSegLib.evaluation.baselines.grow_from_seeds import GrowFromSeeds
from FewShotSegLib.evaluation.baselines.paste import Paste

__all__ = ["Baseline", "create_baseline", "list_baselines"]

BASELINES: dict[str, type[Baseline]] = {kind.name: kind for kind in (Elastix, FillBetween, GrowFromSeeds, Paste)}


def list_baselines() -> list[str]:
    """Names that `create_baseline` knows."""
    return sorted(BASELINES)


def create_baseline(name: str, *, seed: int = 0) -> Baseline:
    """A baseline by name; ConfigError for an unknown one."""
    if name not in BASELINES:
        raise ConfigError(f"No baseline {name!r}", f"one of {', '.join(list_baselines())}")
    return BASELINES[name](seed)
