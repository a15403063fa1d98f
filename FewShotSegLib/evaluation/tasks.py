"""Which scan teaches which: folds, support choice, limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.config import EvaluateConfig
from FewShotSegLib.evaluation.protocol import FOLDS, circular_folds


@dataclass(frozen=True)
class Task:
    """One support scan and the scans it is carried to (itself, in same-scan use); `fold` is None without folds.

    `beside`: further support scans, which teach together with it.
    """

    fold: int | None
    support: str
    queries: tuple[str, ...]
    beside: tuple[str, ...] = ()


def plan(cases: Sequence[str], config: EvaluateConfig) -> list[Task]:
    """All tasks over the labelled cases of a dataset, fold by fold.

    A fold's validation list is its share of the scans and, circularly, the next one; its last scan is the support
    (alpnet_visa.md, section 1.6). With several shots the next ones follow it. Without folds all scans are one such list.

    Raises:
        ConfigError: too few scans, or support scans or folds that do not exist.
    """
    tasks = [task for fold, scans in _validation_lists(cases, config) for task in _tasks(fold, scans, config)]
    if not tasks:
        wanted = ", ".join(config.supports or ("one that leaves something to segment",))
        raise ConfigError(f"No scan to evaluate: the lists of scans have no support {wanted}", f"some of {', '.join(cases)}")
    return tasks


def taught_by(tasks: Sequence[Task], theirs: Sequence[Task]) -> list[Task]:
    """The tasks with the supports of the same folds of another dataset, one task a fold in both."""
    return [replace(task, support=other.support, beside=other.beside) for task, other in zip(tasks, theirs, strict=True)]


def _validation_lists(cases: Sequence[str], config: EvaluateConfig) -> list[tuple[int | None, tuple[str, ...]]]:
    unknown = [case for case in config.supports or () if case not in cases]
    if unknown:
        raise ConfigError(f"No labelled scan {', '.join(unknown)}", f"support scans among {', '.join(cases)}")
    if config.folds is False:
        return [(None, tuple(cases))]
    folds = circular_folds(range(len(cases)), shots=config.shots)
    chosen = range(FOLDS) if config.folds is True else config.folds
    if any(not 0 <= k < FOLDS for k in chosen):
        raise ConfigError(f"Folds {list(chosen)}", f"numbers from 0 to {FOLDS - 1}")
    return [(k, tuple(cases[i] for i in (*folds[k].queries, *folds[k].supports))) for k in chosen]


def _tasks(fold: int | None, scans: tuple[str, ...], config: EvaluateConfig) -> list[Task]:
    if config.protocol == "same-scan":
        own = scans if fold is None else scans[:-1]
        return [Task(fold, case, (case,)) for case in own[: config.limit]]
    if config.shots > 1:
        queries, (support, *beside) = scans[: -config.shots], scans[-config.shots :]
        return [Task(fold, support, queries[: config.limit], tuple(beside))] if queries else []
    supports = config.supports or (scans if config.support == "all" else scans[-1:])
    pairs = [(s, tuple(case for case in scans if case != s)[: config.limit]) for s in supports if s in scans]
    return [Task(fold, support, queries) for support, queries in pairs if queries]
