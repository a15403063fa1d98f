"""What corrections of the least sure cases are worth: the use of a cohort, imitated on labelled scans.

    python -m FewShotSegLib.evaluation.cohort_experiment DATA_DIR OUTPUT --support 01

One scan is drawn, all others are segmented; the least sure cases get their true labels, as a user would correct them, and become
supports; what they may change is done again. Reported: the mean full-volume Dice of the cases that were not corrected, before
and after, and how the expected Dice ranks the organs of the first run.
"""

from __future__ import annotations

import csv
import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from scipy import stats

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.corrections import Rerun, add_support
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.run import run
from FewShotSegLib.evaluation.datasets import Dataset
from FewShotSegLib.evaluation.metrics import FAILURE_DICE, dice
from FewShotSegLib.files import atomic_path, write_json
from FewShotSegLib.job import Drawing
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT, SegmenterConfig

LEAST_SURE = 0.2
Scores = dict[str, dict[str, float]]
"""Full-volume Dice by case and organ."""


@dataclass(frozen=True)
class Outcome:
    """What came out: mean Dice (over organs, then cases) of the cases that were not corrected, before and after."""

    corrected: tuple[str, ...]
    again: tuple[str, ...]
    others: int
    before: float
    after: float
    better: int
    worse: int
    spearman: float
    failures: int
    failures_found: int


def experiment(
    dataset: Dataset,
    output: Path,
    support: str,
    *,
    corrections: int = 3,
    checkpoint: str = "",
    rerun: Rerun = "likely",
    nearest: int = 3,
) -> Outcome:
    """Run it all; what is done already in `output` is not done again, so that it may be stopped.

    Args:
        dataset: labelled scans.
        output: folder of the cohort.
        support: the drawn case.
        corrections: how many of the least sure cases are corrected, all at once.
        checkpoint: the default one when empty.
        rerun: see `corrections.add_support`.
        nearest: see `CohortConfig`.
    """
    cases = [case for case in dataset.labelled if case != support]
    config = _config(dataset, output, support, cases, checkpoint or DEFAULT_CHECKPOINT, nearest)
    first = output / "first_run.json"
    if not first.exists():
        run(config)
        write_json(first, {"dice": scores(dataset, output, cases), "expected": expected(output, cases)})
    facts = json.loads(first.read_text(encoding="utf-8"))
    before, sure = facts["dice"], facts["expected"]
    chosen = sorted(cases, key=lambda case: min(sure[case].values()))[:corrections]
    again: set[str] = set()
    for case in chosen:
        if CaseRecord.read(Places(output).record(case)).status != "corrected":  # type: ignore[union-attr]  # it is done
            again |= set(add_support(output, case, dataset.label_path(case), rerun=rerun).again)
    run(config)
    after = scores(dataset, output, cases)
    others = [case for case in cases if case not in chosen]
    gains = [_mean(after, [case]) - _mean(before, [case]) for case in others]
    ranks = _ranking(before, sure)
    return Outcome(
        tuple(chosen),
        tuple(sorted(again - set(chosen))),
        len(others),
        _mean(before, others),
        _mean(after, others),
        sum(gain > 0.001 for gain in gains),
        sum(gain < -0.001 for gain in gains),
        *ranks,
    )


def _config(dataset: Dataset, output: Path, support: str, cases: Sequence[str], checkpoint: str, nearest: int) -> CohortConfig:
    manifest = output / "list.csv"
    with atomic_path(manifest) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "name"))
        writer.writerows((dataset.image_path(case).absolute(), case) for case in cases)
    return CohortConfig(
        manifest,
        output,
        (Drawing(dataset.image_path(support), dataset.label_path(support), "all"),),
        tuple(str(organ.label) for organ in dataset.organs),
        {organ.label: organ.name for organ in dataset.organs},
        SegmenterConfig(checkpoint=checkpoint),
        nearest=nearest,
    )


def scores(dataset: Dataset, output: Path, cases: Sequence[str]) -> Scores:
    """Full-volume Dice of all results; organs that a scan lacks, and that were not found, are left out."""
    found: Scores = {}
    for case in cases:
        truth = dataset.load(case)[1]
        labels = read_labels(Places(output).result(case))
        masks = {segment.organ.name: labels.mask(segment) for segment in labels.segments}
        none = np.zeros_like(truth, bool)
        values = {organ.name: dice(masks.get(organ.name, none), truth == organ.label) for organ in dataset.organs}
        found[case] = {name: value for name, value in values.items() if not np.isnan(value)}
    return found


def expected(output: Path, cases: Sequence[str]) -> Scores:
    """What was expected of each organ."""
    records = {case: CaseRecord.read(Places(output).record(case)) for case in cases}
    return {case: {organ.name: organ.score for organ in record.organs} for case, record in records.items() if record}


def _mean(found: Scores, cases: Sequence[str]) -> float:
    return float(np.mean([np.mean(list(found[case].values())) for case in cases]))


def _ranking(found: Scores, sure: Scores) -> tuple[float, int, int]:
    """Spearman correlation of expected and true Dice, failures, and those of them among the fifth that is least sure."""
    pairs = np.array([(sure[case][organ], value) for case, organs in found.items() for organ, value in organs.items()])
    worst = np.argsort(pairs[:, 0], kind="stable")[: round(LEAST_SURE * len(pairs))]
    failed = pairs[:, 1] < FAILURE_DICE
    return float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic), int(failed.sum()), int(failed[worst].sum())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it from the command line; prints the outcome, and writes it to OUTPUT/experiment.json."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--support", required=True)
    parser.add_argument("--corrections", type=int, default=3)
    parser.add_argument("--checkpoint", default="")
    parser.add_argument("--rerun", choices=get_args(Rerun), default="likely")
    parser.add_argument("--nearest", type=int, default=3)
    given = parser.parse_args(arguments)
    options = {key: getattr(given, key) for key in ("corrections", "checkpoint", "rerun", "nearest")}
    outcome = experiment(Dataset.open(given.data_dir), given.output, given.support, **options)
    write_json(given.output / "experiment.json", {**asdict(outcome), "support": given.support, **options})
    sys.stdout.write(json.dumps(asdict(outcome), indent=1) + "\n")


if __name__ == "__main__":
    main()
