"""How good a result probably is: the Dice that is predicted from what can be measured without the truth.

A ridge regression with weights that are not negative: more of a feature (each is oriented so that more is better) never lowers
the prediction. It was fitted on scans that the encoder had not seen; `Resources/quality` says on which, and how well it
predicted data sets that it was not fitted on (`fewshotseg_training.calibrate`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from FewShotSegLib.cohort.features import measure
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.files import write_json
from FewShotSegLib.methods.match import Match
from FewShotSegLib.resources import resource_dir
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, Solved

FILE = "calibration.json"
BEST = 0.98
RIDGE = 30.0


@dataclass(frozen=True)
class Calibration:
    """From features to the expected Dice: intercept + sum of weight x (value - mean) / scale, cut to 0..0.98.

    `made_from` says on which scans it was fitted and how good it is on others.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    made_from: Mapping[str, Any] = field(default_factory=dict)

    def predict(self, features: Mapping[str, float]) -> float:
        """The expected Dice of an organ; 0 for one that was not found, whose features are empty; NaN when some are missing."""
        if not features:
            return 0.0
        if any(name not in features for name in self.features):
            return math.nan
        values = (np.array([features[name] for name in self.features]) - self.means) / self.scales
        return float(np.clip(self.intercept + values @ np.array(self.weights), 0, BEST))

    @classmethod
    def fit(
        cls, rows: Sequence[Mapping[str, float]], dice: Sequence[float], names: Sequence[str], *, ridge: float = RIDGE
    ) -> Calibration:
        """Fit to organs that were found.

        Args:
            rows: their features.
            dice: the true Dice of each.
            names: the features to use.
            ridge: strength of the pull towards small weights, in organs.
        """
        values, target = np.array([[row[name] for name in names] for row in rows]), np.asarray(dice, float)
        means, scales = values.mean(0), values.std(0) + 1e-6
        scaled = (values - means) / scales
        middle = float(target.mean())
        pull = math.sqrt(ridge) * np.eye(len(names))
        weights, _ = nnls(np.concatenate([scaled, pull]), np.concatenate([target - middle, np.zeros(len(names))]))
        return cls(tuple(names), tuple(means.tolist()), tuple(scales.tolist()), tuple(weights.tolist()), middle)

    @classmethod
    def read(cls, path: str | Path) -> Calibration:
        """Read what `write` wrote. ConfigError: it cannot be."""
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            lists = {key: tuple(record[key]) for key in ("features", "means", "scales", "weights")}
            return cls(**lists, intercept=float(record["intercept"]), made_from=record["made_from"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"The calibration {path} cannot be read ({error!r})", "a whole file", "install again") from error

    def write(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        record = {key: [round(v, 6) if isinstance(v, float) else v for v in value] if isinstance(value, tuple) else value
                  for key, value in asdict(self).items()}  # fmt: skip
        write_json(path, record)


@cache
def built_in() -> Calibration:
    """The calibration that comes with the library."""
    return Calibration.read(resource_dir("quality") / FILE)


@dataclass(frozen=True)
class Prediction:
    """Measured features and expected Dice by organ; NaN where nothing is known."""

    features: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    dice: Mapping[str, float] = field(default_factory=dict)

    def expected(self, organ: str) -> float:
        """The expected Dice of an organ."""
        return self.dice.get(organ, math.nan)


def predict(solved: Solved, done: Segmentation, segmenter: Segmenter) -> Prediction:
    """Measure a result and predict its Dice. Nothing for a scan that teaches itself.

    Args:
        solved: what the Segmenter said about its result.
        done: the result.
        segmenter: that made it.
    """
    if any(support.scan is solved.scan for support in solved.supports):
        return Prediction()
    matcher = segmenter.method if isinstance(segmenter.method, Match) else None
    names = [organ.name for organ in done.organs]
    measured = dict(zip(names, measure(solved, done.confidence, matcher), strict=True))
    calibration = built_in()
    return Prediction(measured, {name: calibration.predict(values) for name, values in measured.items()})
