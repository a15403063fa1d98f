"""Figures of a comparison: box plots per organ, and its worst and best cases as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.evaluation.annotation import draw
from FewShotSegLib.evaluation.comparison import Outcome, by_protocol
from FewShotSegLib.evaluation.config import EvaluateConfig
from FewShotSegLib.evaluation.datasets import Dataset
from FewShotSegLib.evaluation.result import EvaluationResult, Record
from FewShotSegLib.evaluation.run import create_segmenter, is_told
from FewShotSegLib.evaluation.scoring import Case
from FewShotSegLib.report.sheet import contact_sheet


def box_plot(outcomes: Sequence[Outcome]) -> bytes:
    """PNG: Dice of every case as boxes, one group an organ, one box a method; all outcomes of one data set and protocol.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("Figures need matplotlib", "", "pip install 'fewshotseg[baselines]'") from error
    measured = [(o.cell.label, o.result) for o in outcomes if o.result is not None]
    organs = list(dict.fromkeys(organ for _, result in measured for organ in result.organs))
    figure = Figure(figsize=(max(6, 2 + 0.35 * len(organs) * len(measured)), 3.6 + 0.2 * len(measured)), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / max(len(measured), 1)
    for number, (method, result) in enumerate(measured):
        values = [[100 * r.dice for r in result.records if r.organ == organ and not np.isnan(r.dice)] for organ in organs]
        at = np.arange(len(organs)) - 0.4 + width * (number + 0.5)
        boxes = axes.boxplot(values, positions=at, widths=0.85 * width, patch_artist=True, manage_ticks=False, label=method)
        for box in boxes["boxes"]:
            box.set_facecolor(f"C{number % 10}")
    axes.set(ylabel="Dice, %", ylim=(-2, 102), xticks=np.arange(len(organs)), xticklabels=organs)
    axes.axhline(50, linewidth=0.5, color="grey")
    figure.legend(fontsize="small", loc="outside upper left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def box_plots(outcomes: Sequence[Outcome]) -> dict[tuple[str, str], bytes]:
    """A box plot for each data set and protocol that something was measured on."""
    groups = by_protocol(outcomes)
    return {key: box_plot(group) for key, group in groups.items() if any(o.result is not None for o in group)}


@dataclass(frozen=True)
class Picture:
    """A case of an evaluation as a contact sheet, with the truth dashed."""

    case: str
    support: str
    dice: float
    jpeg: bytes


def extreme_cases(result: EvaluationResult, worst: int = 3, best: int = 1) -> list[tuple[float, Record]]:
    """Mean Dice and one record of the worst cases, then of the best, each scan and support once."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in result.records:
        groups.setdefault((record.support, record.case), []).append(record)
    ranked = sorted(((float(np.nanmean([r.dice for r in g])), g[0]) for g in groups.values()), key=lambda pair: pair[0])
    worst = min(worst, len(ranked))
    return [*ranked[:worst], *ranked[max(worst, len(ranked) - best) :]]


def pictures(config: EvaluateConfig, result: EvaluationResult, worst: int = 3, best: int = 1) -> list[Picture]:
    """Segment the worst and the best cases of a result again and draw them."""
    dataset = Dataset.open(config.data_dir, config.organs)
    found = []
    for dice, record in extreme_cases(result, worst, best):
        support_image, support_labels = dataset.load(record.support)
        query = Case(support_image, support_labels) if record.case == record.support else Case(*dataset.load(record.case))
        organs = [organ for organ in dataset.organs if organ.name in result.organs and (support_labels == organ.label).any()]
        support = draw(support_image, support_labels, organs, config.slices_drawn, config.slice_rule)
        if support is None:
            continue
        segmenter = create_segmenter(config, record.fold)
        told = query.extents(support.organs) if is_told(config, segmenter) else None
        sheet = contact_sheet(query.image, segmenter.segment(support, query.image, extent=told), truth=query.labels)
        buffer = io.BytesIO()
        sheet.convert("RGB").save(buffer, format="JPEG", quality=85)
        found.append(Picture(record.case, record.support, dice, buffer.getvalue()))
    return found


def picture_all(outcomes: Sequence[Outcome], method: str, worst: int) -> dict[tuple[str, str, str], list[Picture]]:
    """The worst cases and the best one of `method` on every data set and protocol; nothing when `worst` is 0."""
    return {
        (o.cell.dataset, o.cell.protocol, o.cell.method): pictures(o.cell.config, o.result, worst)
        for o in outcomes
        if o.result is not None and o.cell.method == method and worst
    }
