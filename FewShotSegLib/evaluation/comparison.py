"""Several methods on several data sets under several protocols: every cell of the table is one evaluation, kept on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from FewShotSegLib.errors import ConfigError, FewShotSegError
from FewShotSegLib.evaluation.config import EvaluateConfig
from FewShotSegLib.evaluation.journal import same_options, without_place
from FewShotSegLib.evaluation.result import EvaluationResult
from FewShotSegLib.evaluation.untrained import NAME as UNTRAINED
from FewShotSegLib.evaluation.untrained import describe, is_untrained
from FewShotSegLib.files import atomic_path


@dataclass(frozen=True)
class CompareConfig:
    """A comparison.

    Args:
        data_dirs: folders of labelled scans.
        methods: methods of the library and baselines, in the order of the table's rows. `untrained` is `match`, and
            `untrained-alpnet` is `alpnet`, with an encoder that was trained on no scan.
        protocols: "oracle-z", "full-volume" or "same-scan", each with ":K" behind it when only K slices are drawn.
        output: folder for one JSON a cell, tables, figures and the page.
        checkpoints: method to checkpoint; others take the default one.
        untrained_weights: public weights (ImageNet) of the untrained encoder's trunk; "" for random ones.
        checkpoint_template, folds, support, organs, limit, device: as in `EvaluateConfig`, for all cells.

    Raises:
        ConfigError: a method or protocol that does not exist, or nothing to compare.
    """

    data_dirs: tuple[Path, ...]
    methods: tuple[str, ...]
    protocols: tuple[str, ...]
    output: Path
    checkpoints: tuple[tuple[str, str], ...] = ()
    untrained_weights: str = ""
    checkpoint_template: str | None = None
    folds: bool | tuple[int, ...] = False
    support: str = "last"
    organs: tuple[str | int, ...] | None = None
    limit: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("data_dirs", "methods", "protocols"):
            if not getattr(self, name):
                raise ConfigError(f"No {name.replace('_', ' ')} to compare", "at least one")
        for _ in cells(self):
            pass


@dataclass(frozen=True)
class Cell:
    """One evaluation of the table, and the file that keeps it."""

    dataset: str
    method: str
    protocol: str
    config: EvaluateConfig
    path: Path

    @property
    def label(self) -> str:
        """What the table calls it: the method, and which weights an untrained encoder has."""
        checkpoint = self.config.checkpoint
        if checkpoint is None or not is_untrained(checkpoint):
            return self.method
        return f"{self.config.method}, {describe(checkpoint)}"


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: its result, or why there is none."""

    cell: Cell
    result: EvaluationResult | None
    reason: str = ""


Measure = Callable[[EvaluateConfig], EvaluationResult]


def cells(config: CompareConfig) -> Iterator[Cell]:
    """Every combination of data set, protocol and method."""
    own = dict(config.checkpoints)
    for folder in config.data_dirs:
        for protocol in config.protocols:
            for method in config.methods:
                options = _protocol(protocol)
                path = config.output / folder.resolve().name / f"{method}-{protocol.replace(':', '-')}.json"
                used, checkpoint = _used(method, config.untrained_weights)
                checkpoint = checkpoint or own.get(method)
                evaluation = EvaluateConfig(
                    folder,
                    used,
                    support=config.support,
                    folds=config.folds,
                    organs=config.organs,
                    checkpoint=checkpoint,
                    checkpoint_template=None if checkpoint else config.checkpoint_template,
                    limit=config.limit,
                    device=config.device,
                    json=path,
                    **options,
                )
                yield Cell(folder.resolve().name, method, protocol, evaluation, path)


def _used(method: str, weights: str) -> tuple[str, str | None]:
    """The method that a row uses, and the checkpoint when that is the untrained encoder."""
    if method.partition("-")[0] != UNTRAINED:
        return method, None
    return method.partition("-")[2] or "match", f"{UNTRAINED}:{weights}" if weights else UNTRAINED


def _protocol(text: str) -> dict[str, Any]:
    """`same-scan:3` as options of `EvaluateConfig`."""
    name, _, drawn = text.partition(":")
    if drawn and not drawn.isdigit():
        raise ConfigError(f"The protocol {text!r}", "full-volume, oracle-z or same-scan, with :K behind it")
    return {"protocol": name, "slices_drawn": int(drawn) if drawn else None}


def compare(
    config: CompareConfig, measure: Measure, on_cell: Callable[[int, int, Cell], None] = lambda done, total, cell: None
) -> list[Outcome]:
    """Measure what is not on disk yet, scan by scan; a cell that cannot be measured says why and does not stop the others.

    Args:
        config: what to compare.
        measure: `run.evaluate`, or `isolated.evaluate_apart`, which also tells each cell's memory.
        on_cell: told before each cell how many are done, of how many.

    Raises:
        OutputError: a result cannot be written.
    """
    every = list(cells(config))
    outcomes = []
    for done, cell in enumerate(every):
        on_cell(done, len(every), cell)
        outcomes.append(_outcome(cell, measure))
    return outcomes


def _outcome(cell: Cell, measure: Measure) -> Outcome:
    kept = _kept(cell)
    if kept is not None:
        return Outcome(cell, kept)
    try:
        result = measure(cell.config)
    except FewShotSegError as error:
        return Outcome(cell, None, str(error))
    with atomic_path(cell.path) as part:
        part.write_text(result.to_json(), encoding="utf-8")
    return Outcome(cell, result)


def _kept(cell: Cell) -> EvaluationResult | None:
    """The result on disk, when it is one of the same configuration."""
    try:
        found = json.loads(cell.path.read_text(encoding="utf-8"))
        same = same_options(found["config"], without_place(cell.config))
        return EvaluationResult.from_json(found) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def by_protocol(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], list[Outcome]]:
    """Outcomes grouped by data set and protocol, in their order."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.cell.dataset, outcome.cell.protocol), []).append(outcome)
    return groups
