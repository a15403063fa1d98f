"""Slicer's "Fill between slices": morphological contour interpolation between drawn slices (Zukic et al., 2016)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np

import FewShotSegLib
from FewShotSegLib.errors import FewShotSegError
from FewShotSegLib.evaluation.baselines.base import Baseline, Extent, missing_package
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

WORKER = "FewShotSegLib.evaluation.baselines.contour_worker"


class FillBetween(Baseline):
    """Same scan only: fills between drawn slices and never beyond the outermost ones; the image is not looked at."""

    name: ClassVar[str] = "fill-between"
    description: ClassVar[str] = "Slicer's fill between slices (contour interpolation)"
    protocols: ClassVar[tuple[str, ...]] = ("same-scan",)

    def masks(self, support: Support, query: Volume, extent: Extent) -> np.ndarray:
        """The drawn slices and what lies between them."""
        return fill_between(support.masks, support.drawn)


def fill_between(masks: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Masks bool (organ, z, y, x) known on the drawn slices (organ, z), interpolated on the slices between them.

    The work is done by a child process with one ITK thread: with several threads the filter corrupts the memory of its
    process (seen with slicer-core 5.13 and, the same filter, with itk-morphologicalcontourinterpolation 2.1.2).

    Raises:
        ConfigError: the package slicer-core is not installed.
        FewShotSegError: the filter failed.
    """
    if importlib.util.find_spec("slicer_core") is None:
        raise missing_package("slicer-core", FillBetween.name)
    known = masks & drawn[:, :, None, None]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "known.npy", Path(folder) / "filled.npy"
        np.save(source, known)
        _run_worker(source, target)
        filled = np.load(target)
    return np.where(drawn[:, :, None, None], known, filled)


def _run_worker(source: Path, target: Path) -> None:
    environment = os.environ | {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "PYTHONPATH": _python_path()}
    command = [sys.executable, "-m", WORKER, str(source), str(target)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not target.exists():
        raise FewShotSegError(f"Slicer's contour interpolation failed (exit {done.returncode}): {done.stderr.strip()[-500:]}")


def _python_path() -> str:
    """Where the child finds this library."""
    library = str(Path(FewShotSegLib.__file__).parents[1])
    return os.pathsep.join(filter(None, (library, os.environ.get("PYTHONPATH", ""))))
