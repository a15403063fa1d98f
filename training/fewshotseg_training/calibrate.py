"""Calibration of the expected Dice (`FewShotSegLib.cohort.quality`): measure on scans that the encoder has not seen, then fit.

    python -m fewshotseg_training.calibrate collect DATA_DIR FILE --checkpoint FOLD --case 01 --case 02 ...
    python -m fewshotseg_training.calibrate fit FILE ... --output Resources/quality

`collect` lets every one of the named cases teach every other one, and appends a line per organ: the features, and the true Dice.
Scans are encoded once. Pairs that are in the file already are passed over, so that it may be stopped and started.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from scipy import stats

from FewShotSegLib.cohort.features import DESCRIPTIONS, measure
from FewShotSegLib.cohort.nearest import Descriptor
from FewShotSegLib.cohort.quality import FILE, RIDGE, Calibration
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.evaluation.annotation import draw, organ_slices
from FewShotSegLib.evaluation.datasets import Dataset
from FewShotSegLib.evaluation.metrics import FAILURE_DICE, dice
from FewShotSegLib.methods.match import Match
from FewShotSegLib.progress import Reporter
from FewShotSegLib.segmenter import Segmenter, Solved
from FewShotSegLib.segmenter_config import SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

FEATURES = tuple(DESCRIPTIONS)
LEAST_SURE = 0.2

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


class PatientSegmenter(Segmenter):
    """A Segmenter that keeps every encoded scan and support."""

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__(config)
        self._scans: dict[tuple[int, float], tuple[Volume, EncodedScan]] = {}
        self._supports: dict[tuple[int, float], tuple[Support, EncodedSupport]] = {}

    def _encode_query(self, query: Volume, pixel_mm: float, report: Reporter) -> EncodedScan:
        key = (id(query), pixel_mm)
        if key not in self._scans:
            self._scans[key] = (query, super()._encode_query(query, pixel_mm, report))
        return self._scans[key][1]

    def _encode_supports(self, supports: Sequence[Support], pixel_mm: float, report: Reporter) -> list[EncodedSupport]:
        for support in supports:
            key = (id(support), pixel_mm)
            if key not in self._supports:
                self._supports[key] = (support, super()._encode_supports([support], pixel_mm, report)[0])
        return [self._supports[(id(s), pixel_mm)][1] for s in supports]


@app.command()
def collect(
    data_dir: Annotated[Path, typer.Argument(help="Folder with dataset.json.")],
    file: Annotated[Path, typer.Argument(help="JSON lines; appended to.")],
    checkpoint: Annotated[str, typer.Option(help="An encoder that has not seen the cases.")],
    case: Annotated[list[str], typer.Option(help="A case; repeat for more.")],
    organ: Annotated[list[str] | None, typer.Option(help="Only this organ; repeat for more. All by default.")] = None,
    limit: Annotated[int, typer.Option(help="So many pairs in the file are enough; 0 for all.")] = 0,
    device: str = "cpu",
) -> None:
    """Measure every ordered pair of the cases, those of neighbours in the list first."""
    dataset = Dataset.open(data_dir, organ)
    segmenter = PatientSegmenter(SegmenterConfig(checkpoint=checkpoint, device=device))
    scans = {name: dataset.load(name) for name in case}
    done = {(r["support"], r["case"], r["checkpoint"]) for r in read_rows([file])}
    drawings: dict[str, Support] = {}
    name = segmenter.card.name if segmenter.card else ""
    pairs = sorted(permutations(case, 2), key=lambda pair: (case.index(pair[0]) - case.index(pair[1])) % len(case))
    for support, query in [pair for pair in pairs if (*pair, name) not in done][: max(limit - len(done), 0) if limit else None]:
        if support not in drawings:
            image, labels = scans[support]
            shown = [o for o in dataset.organs if organ_slices(labels, o)]
            drawn = draw(image, labels, shown, None, "spread")
            if drawn is None:
                continue
            drawings[support] = drawn
        rows = list(_pair(segmenter, drawings[support], *scans[query]))
        facts = {"dataset": dataset.name, "checkpoint": name}
        with file.open("a", encoding="utf-8") as out:
            for row in rows:
                out.write(json.dumps({**facts, "support": support, "case": query, **row}) + "\n")
        typer.echo(f"{support} -> {query}: " + ", ".join(f"{row['organ']} {row['dice']:.2f}" for row in rows))


def _pair(segmenter: Segmenter, support: Support, query: Volume, truth: np.ndarray) -> Iterator[dict[str, Any]]:
    """A row for each organ that the query has or in which something was found."""
    solved: list[Solved] = []
    start = time.perf_counter()
    found = segmenter.segment(support, query, inspect=solved.append)
    middle = time.perf_counter()
    matcher = segmenter.method if isinstance(segmenter.method, Match) else None
    features = measure(solved[0], found.confidence, matcher)
    end = time.perf_counter()
    a, b = (Descriptor.of(scan.regular()) for scan in (solved[0].scan, solved[0].supports[0].scan))
    for organ, values in zip(found.organs, features, strict=True):
        score = dice(found.mask(organ), truth == organ.label)
        if np.isnan(score):
            continue
        yield {
            "organ": organ.name,
            "dice": round(score, 5),
            "similarity": round(a.similarity(b), 5),
            "seconds": [round(middle - start, 2), round(end - middle, 2)],
            "features": values,
        }


@app.command()
def fit(
    files: Annotated[list[Path], typer.Argument(help="What `collect` wrote.")],
    output: Annotated[Path | None, typer.Option(help=f"Folder for {FILE}.")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="Only this feature; repeat for more. All by default.")] = None,
    ridge: Annotated[float, typer.Option(help="See `Calibration.fit`.")] = RIDGE,
) -> None:
    """Fit the calibration to all rows; report how it predicts every data set when that is left out of the fit."""
    rows, how = read_rows(files), Fit(tuple(feature or FEATURES), ridge)
    report = {name: asdict(left_out(rows, name, how)) for name in sorted({row["dataset"] for row in rows})}
    calibration = fitted(rows, how)
    typer.echo(f"weights {dict(zip(how.features, [round(weight, 3) for weight in calibration.weights], strict=True))}")
    for name, found in report.items():
        typer.echo(f"{name} left out of the fit: {found}")
    pooled = pooled_left_out(rows, how)
    typer.echo(f"all data sets left out in turn: {pooled}")
    if output is not None:
        made_from = {
            "fitted_on": _counts(rows),
            "left_out": report,
            "pooled": asdict(pooled),
            "encoder": sorted({row["checkpoint"] for row in rows}),
        }
        replace(calibration, made_from=made_from).write(output / FILE)


@app.command(name="judge")
def judge_rows(
    files: Annotated[list[Path], typer.Argument(help="What `collect` wrote, of scans that the calibration was not fitted on.")],
    calibration: Annotated[Path, typer.Option(help="The calibration.")],
) -> None:
    """Report how a calibration predicts other rows."""
    rows, made = read_rows(files), Calibration.read(calibration)
    typer.echo(_judge(rows, [made.predict(row["features"]) for row in rows]))


@dataclass(frozen=True)
class Fit:
    """What is fitted: which features, and how strongly they are pulled together."""

    features: tuple[str, ...] = FEATURES
    ridge: float = RIDGE


@dataclass(frozen=True)
class Report:
    """How well expected Dice ranks organs: Spearman correlation with the truth, and how many of the failures (Dice below 0.5)
    are among the fifth that is least sure (which holds `places` organs), and among as many as there are failures; mean
    absolute error.
    """

    organs: int
    spearman: float
    failures: int
    places: int
    failures_found: int
    failures_first: int
    error: float
    spearman_of_confidence: float


def judge(expected: Sequence[float], dice_values: Sequence[float], confidence: Sequence[float]) -> Report:
    """Compare what was expected with the true Dice; organs that were not found have confidence 0."""
    expect, true = np.asarray(expected, float), np.asarray(dice_values, float)
    order, places = np.argsort(expect, kind="stable"), round(LEAST_SURE * len(expect))
    failed = true < FAILURE_DICE
    return Report(
        len(true),
        _spearman(expect, true),
        int(failed.sum()),
        places,
        int(failed[order[:places]].sum()),
        int(failed[order[: failed.sum()]].sum()),
        round(float(np.abs(expect - true).mean()), 4),
        _spearman(np.asarray(confidence, float), true),
    )


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    return round(float(stats.spearmanr(a, b).statistic), 3)


def fitted(rows: Sequence[dict[str, Any]], how: Fit) -> Calibration:
    """The calibration of all rows with an organ that was found."""
    found = [row for row in rows if row["features"]]
    return Calibration.fit([row["features"] for row in found], [row["dice"] for row in found], how.features, ridge=how.ridge)


def left_out(rows: Sequence[dict[str, Any]], name: str, how: Fit) -> Report:
    """How the calibration of all other data sets predicts this one."""
    mine = [row for row in rows if row["dataset"] == name]
    return _judge(mine, _expected(rows, name, how))


def pooled_left_out(rows: Sequence[dict[str, Any]], how: Fit) -> Report:
    """The same of all data sets together, each predicted by the calibration of the others."""
    found = {name: iter(_expected(rows, name, how)) for name in {row["dataset"] for row in rows}}
    return _judge(rows, [next(found[row["dataset"]]) for row in rows])


def _expected(rows: Sequence[dict[str, Any]], name: str, how: Fit) -> list[float]:
    """Expected Dice of the organs of a data set, after the calibration of the others."""
    calibration = fitted([row for row in rows if row["dataset"] != name], how)
    return [calibration.predict(row["features"]) for row in rows if row["dataset"] == name]


def _judge(rows: Sequence[dict[str, Any]], expected: Sequence[float]) -> Report:
    return judge(expected, [row["dice"] for row in rows], [row["features"].get("confidence", 0.0) for row in rows])


def _counts(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Pairs and organs of each data set."""
    names = sorted({row["dataset"] for row in rows})
    mine = {name: [row for row in rows if row["dataset"] == name] for name in names}
    return {name: {"pairs": len({(r["support"], r["case"]) for r in part}), "organs": len(part)} for name, part in mine.items()}


def read_rows(files: Sequence[Path]) -> list[dict[str, Any]]:
    """The lines of all files; none of one that does not exist yet."""
    lines = [line for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines if line.strip()]


if __name__ == "__main__":
    app()
