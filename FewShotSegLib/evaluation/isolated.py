"""An evaluation in a process of its own, so that its peak memory is its own and a crash ends nothing else."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context

import torch

from FewShotSegLib.errors import FewShotSegError
from FewShotSegLib.evaluation.config import EvaluateConfig
from FewShotSegLib.evaluation.result import EvaluationResult
from FewShotSegLib.evaluation.run import evaluate
from FewShotSegLib.memory import peak_memory_mb


def evaluate_apart(config: EvaluateConfig) -> EvaluationResult:
    """As `run.evaluate`, in a fresh process; `machine` also holds `peak_memory_mb`.

    Raises:
        FewShotSegError: as `run.evaluate`, or when the process died.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(_measured, config, torch.get_num_threads()).result()
        except BrokenProcessPool as error:
            raise FewShotSegError(
                f"The process that evaluated {config.method} died ({error})", "an evaluation", "look for too little memory"
            ) from error


def _measured(config: EvaluateConfig, threads: int) -> EvaluationResult:
    torch.set_num_threads(threads)
    result = evaluate(config)
    return replace(result, machine={**result.machine, "peak_memory_mb": round(peak_memory_mb())})
