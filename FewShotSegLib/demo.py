"""The demonstration: both uses of the program on an embedded, a downloaded or one's own case.

(1) A patient drawn whole teaches a new patient. (2) One drawn slice of each organ goes through its own scan. The embedded
patients are invented (`phantom`), so that the truth is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.annotation import draw
from FewShotSegLib.evaluation.datasets import Dataset
from FewShotSegLib.evaluation.metrics import dice
from FewShotSegLib.files import write_json
from FewShotSegLib.job import Found, found_organs
from FewShotSegLib.job_output import RECORD, check_place
from FewShotSegLib.organs import Organ
from FewShotSegLib.phantom import make_patient
from FewShotSegLib.progress import OnProgress, ShouldCancel
from FewShotSegLib.provenance import record_of
from FewShotSegLib.report import ReportJob, picture_name, write_report
from FewShotSegLib.samples import find_sample
from FewShotSegLib.segfiles import write_segmentation
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

SEEDS = (1, 2)  # of the invented patients A and B


@dataclass(frozen=True)
class DemoConfig:
    """What to demonstrate, and where to write it.

    Args:
        output: folder, made when missing.
        modality, shape: of the invented patients; shape is (z, y, x).
        sample: a sample scan of 3D Slicer to download instead; it has no truth, so that only use (2) is shown.
        data: a folder of labelled scans instead (see `evaluation.datasets`): its first case teaches its second.
        segmenter: how to segment.
    """

    output: Path
    modality: Literal["MR", "CT"] = "MR"
    shape: tuple[int, int, int] = (36, 256, 256)
    sample: str | None = None
    data: Path | None = None
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)

    def __post_init__(self) -> None:
        if self.sample is not None and self.data is not None:
            raise ConfigError("Both a sample scan and a data folder", "one of them, or none")


@dataclass(frozen=True, eq=False)
class Use:
    """One use of the program: what is drawn, what is segmented, and the truth (z, y, x) where it is known.

    `stem` begins the names of its files.
    """

    title: str
    stem: str
    support: Support
    query: Volume
    truth: np.ndarray | None

    @property
    def same_scan(self) -> bool:
        """Whether the drawing lies in the segmented scan itself."""
        return self.support.image is self.query

    def scores(self, result: Segmentation) -> list[float]:
        """Dice 0..1 of each organ, on the slices where it was not drawn; NaN without truth."""
        if self.truth is None:
            return [float("nan")] * len(result.organs)
        scored = ~self.support.drawn if self.same_scan else np.ones((len(result.organs), len(self.truth)), bool)
        pairs = zip(result.organs, scored, strict=True)
        return [dice(result.mask(organ), self.truth == organ.label, slices) for organ, slices in pairs]


@dataclass(frozen=True)
class Shown:
    """What came out of one use, and its files; `scored` says which Dice this is, "" without truth."""

    title: str
    organs: tuple[Found, ...]
    scored: str
    notes: tuple[str, ...]
    seconds: float
    image: Path
    drawing: Path
    query: Path
    result: Path
    picture: Path


@dataclass(frozen=True)
class Demonstration:
    """All uses and the report."""

    uses: tuple[Shown, ...]
    report: Path


Begin = Callable[[str], OnProgress]
"""Told the title of each use; gives what hears its progress."""


def demonstrate(config: DemoConfig, begin: Begin | None = None, cancel: ShouldCancel | None = None) -> Demonstration:
    """Run the demonstration and write its scans, drawings, results, pictures, report and record.

    Raises:
        FewShotSegError: no checkpoint, no network, an unusable data folder, an output that cannot be written, Cancelled.
    """
    check_place(config.output / RECORD)
    segmenter = Segmenter(config.segmenter)
    shown: list[Shown] = []

    def pages() -> Iterator[ReportJob]:
        for use in _uses(config):
            heard = begin(use.title) if begin else None
            result = segmenter.segment(use.support, use.query, progress=heard, cancel=cancel)
            result = replace(result, name=use.title)
            shown.append(_write(use, result, len(shown) + 1, config.output))
            yield ReportJob(use.query, result, use.truth, _settings(use, config.segmenter))

    report = write_report(config.output, pages(), title="FewShotSeg: demonstration")
    write_json(config.output / RECORD, {**record_of(segmenter), "demo": _described(config)})
    return Demonstration(tuple(shown), report)


def _uses(config: DemoConfig) -> Iterator[Use]:
    if config.sample is not None:
        yield _sample_use(config.sample)
        return
    first, second = _dataset_cases(config.data) if config.data else _phantom_cases(config)
    yield Use(
        f"{first.volume.name} drawn whole, then {second.volume.name}", "new_scan", first.drawn(), second.volume, second.labels
    )
    own = second.drawn(slices=1)
    yield Use(f"One drawn slice of each organ of {second.volume.name}", "same_scan", own, second.volume, second.labels)


@dataclass(frozen=True, eq=False)
class _Case:
    """A scan with its true labels (z, y, x)."""

    volume: Volume
    labels: np.ndarray
    organs: tuple[Organ, ...]

    def drawn(self, slices: int | None = None) -> Support:
        """Drawn whole, or on the middle slices of each organ."""
        support = draw(self.volume, self.labels, self.organs, slices)
        if support is None:
            raise ConfigError(f"{self.volume.name} shows none of the organs", "labelled organs", "choose another data folder")
        return support


def _phantom_cases(config: DemoConfig) -> list[_Case]:
    patients = [make_patient(seed, config.modality, config.shape) for seed in SEEDS]
    named = [replace(p.volume, name=f"patient {letter}") for p, letter in zip(patients, "AB", strict=True)]
    return [_Case(volume, p.labels, p.organs) for volume, p in zip(named, patients, strict=True)]


def _dataset_cases(folder: Path) -> list[_Case]:
    dataset = Dataset.open(folder)
    if len(dataset.labelled) < 2:
        raise ConfigError(f"{folder} has {len(dataset.labelled)} labelled cases", "two", "choose another data folder")
    cases = [dataset.load(case) for case in dataset.labelled[:2]]
    return [_Case(replace(volume, name=f"case {volume.name}"), labels, dataset.organs) for volume, labels in cases]


def _sample_use(name: str) -> Use:
    sample = find_sample(name)
    support = sample.drawing.draw(sample.read())
    return Use(f"One drawn slice of {sample.drawing.organ} in {sample.name}", "same_scan", support, support.image, None)


def _write(use: Use, result: Segmentation, number: int, folder: Path) -> Shown:
    """The scans, the drawing and the result, for people to open."""
    image = use.support.image.write(folder / f"{_stem(use.support.image)}.nii.gz")
    query = image if use.same_scan else use.query.write(folder / f"{_stem(use.query)}.nii.gz")
    return Shown(
        use.title,
        found_organs(result, use.scores(result)),
        "" if use.truth is None else "Dice, slices not drawn" if use.same_scan else "Dice",
        result.notes,
        result.seconds,
        image,
        _write_drawing(use.support, folder / f"{use.stem}_drawing.seg.nrrd"),
        query,
        result.write(folder / f"{use.stem}.seg.nrrd"),
        folder / picture_name(number, use.title),
    )


def _write_drawing(support: Support, path: Path) -> Path:
    labels = np.zeros(support.image.geometry.shape, np.uint8)
    for organ, mask in zip(support.organs, support.masks, strict=True):
        labels[mask] = organ.label
    return write_segmentation(support.image.geometry.to_sitk(labels), support.organs, path)


def _stem(volume: Volume) -> str:
    return volume.name.replace(" ", "_")


def _settings(use: Use, config: SegmenterConfig) -> dict[str, str]:
    """What the report says about how a result was made."""
    settings = {"method": config.method, "checkpoint": config.checkpoint}
    if use.same_scan and use.truth is not None:
        settings["Dice"] = "over all slices, the drawn ones included"
    return settings


def _described(config: DemoConfig) -> dict[str, Any]:
    return {key: value for key, value in vars(config).items() if key != "segmenter"} | {"seeds": SEEDS}
