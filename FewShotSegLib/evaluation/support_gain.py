"""What several supports are worth in a cohort: the same queries after the 1, 2, 3, 5 drawn scans most like them.

    python -m FewShotSegLib.evaluation.support_gain DATA_DIR FILE --checkpoint FOLD --query 19 --query 20 ...

All labelled scans that are no queries are drawn. For comparison, each query is also segmented after as many that all queries
share (the first ones), and after the one that is least like it. A line per query and choice is appended to FILE; what is in it is
not done again. For all scans as queries, run it twice with one half each, on the same FILE.
"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from FewShotSegLib.cohort.nearest import Descriptor, nearest
from FewShotSegLib.drawings import EncodedSupport
from FewShotSegLib.encoding import EncodedScan
from FewShotSegLib.evaluation.annotation import draw
from FewShotSegLib.evaluation.datasets import Dataset
from FewShotSegLib.evaluation.metrics import dice, mean_interval
from FewShotSegLib.progress import Reporter
from FewShotSegLib.segmenter import Segmenter
from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT, SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

COUNTS = (1, 2, 3, 5)
SHARED, FARTHEST = "shared 1", "farthest 1"
REFERENCES = ("nearest 1", SHARED)


@dataclass(frozen=True, eq=False)
class Chooser:
    """A `Segmenter.segment(choose=...)`: which supports teach, by `kind`; `kept` holds what was described and chosen."""

    kind: str
    kept: dict[int, Descriptor]
    chosen: list[int]

    def __call__(self, scan: EncodedScan, encoded: Sequence[EncodedSupport]) -> list[int]:
        """Indices of the supports, the most alike first."""
        mine = Descriptor.of(scan.regular())
        for index, support in enumerate(encoded):
            if index not in self.kept:
                self.kept[index] = Descriptor.of(support.scan.regular())
        order = nearest([mine.similarity(self.kept[i]) for i in range(len(encoded))], 0)
        way, count = self.kind.split()
        self.chosen[:] = {"shared": list(range(int(count))), "farthest": order[-1:]}.get(way, order[: int(count)])
        return self.chosen


class QueryKeeper(Segmenter):
    """A Segmenter that keeps the last query encoded."""

    _last: tuple[Volume, EncodedScan] | None = None

    def _encode_query(self, query: Volume, pixel_mm: float, report: Reporter) -> EncodedScan:
        if self._last is None or self._last[0] is not query:
            self._last = (query, super()._encode_query(query, pixel_mm, report))
        return self._last[1]


def drawings(dataset: Dataset, cases: Sequence[str]) -> dict[str, Support]:
    """The cases that show every organ, with all of it drawn."""
    found = {}
    for case in cases:
        drawn = draw(*dataset.load(case), dataset.organs, None, "spread")
        if drawn is not None and len(drawn.organs) == len(dataset.organs):
            found[case] = drawn
    return found


def measure(dataset: Dataset, file: Path, checkpoint: str, queries: Sequence[str], counts: Sequence[int] = COUNTS) -> None:
    """Append what is not in `file` yet."""
    segmenter = QueryKeeper(SegmenterConfig(checkpoint=checkpoint))
    supports = drawings(dataset, [case for case in dataset.labelled if case not in queries])
    kept: dict[int, Descriptor] = {}
    done = {(row["query"], row["kind"]) for row in rows(file)}
    for query in queries:
        image, truth = dataset.load(query)
        for kind in (*(f"{way} {count}" for way in ("nearest", "shared") for count in counts), FARTHEST):
            if (query, kind) in done:
                continue
            chooser, started = Chooser(kind, kept, []), time.monotonic()
            result = segmenter.segment(list(supports.values()), image, choose=chooser)
            scores = {organ.name: round(dice(result.mask(organ), truth == organ.label), 4) for organ in result.organs}
            used = [list(supports)[index] for index in chooser.chosen]
            row = {
                "query": query,
                "kind": kind,
                "supports": used,
                "dice": scores,
                "seconds": round(time.monotonic() - started, 1),
            }
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")


def rows(file: Path) -> list[dict]:
    """The lines of a file; none of one that does not exist yet."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def table(found: Sequence[dict]) -> str:
    """Mean Dice (percent) over organs, then queries, by choice; and what is gained over one support, with its 95 % interval."""
    means = {(row["query"], row["kind"]): 100 * float(np.nanmean(list(row["dice"].values()))) for row in found}
    lines = []
    for kind in dict.fromkeys(row["kind"] for row in found):
        mine = {query: mean for (query, other), mean in means.items() if other == kind}
        gains = [_gain(mine, means, reference) for reference in REFERENCES if reference != kind]
        lines.append(f"{kind}: {np.mean(list(mine.values())):.1f} ({len(mine)} queries){''.join(gains)}")
    return "\n".join(lines)


def _gain(mine: Mapping[str, float], means: Mapping[tuple[str, str], float], reference: str) -> str:
    """The mean gain of paired queries over another choice."""
    gains = [mean - means[query, reference] for query, mean in mine.items() if (query, reference) in means]
    if not gains:
        return ""
    found = mean_interval(gains, lowest=-np.inf)
    better = f"{sum(gain > 0 for gain in gains)} of {len(gains)} better"
    return f"; {found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f}) over {reference}, {better}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it from the command line; prints the table."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--query", action="append", required=True)
    given = parser.parse_args(arguments)
    measure(Dataset.open(given.data_dir), given.file, given.checkpoint, given.query)
    sys.stdout.write(table(rows(given.file)) + "\n")


if __name__ == "__main__":
    main()
