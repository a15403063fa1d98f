"""`fewshotseg segment`: drawn scans and queries in, segmentations out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from FewShotSegLib.commands import options
from FewShotSegLib.commands.console import Bars, organ_table, progress_bars, show_error, show_file, show_warning, stdout
from FewShotSegLib.interrupts import cancel_on_interrupt

if TYPE_CHECKING:
    from rich.progress import TaskID

    from FewShotSegLib.job import Listener, Outcome, SegmentJob

SOME_FAILED = 1


def segment(
    support_image: Annotated[list[Path], typer.Option(help="Drawn scan: NIfTI, NRRD, MHA or a DICOM folder; repeat for more.")],
    support_labels: Annotated[list[Path], typer.Option(help="Its drawing: .seg.nrrd, a label map, DICOM SEG or RTSTRUCT.")],
    query: Annotated[list[Path], typer.Option(help="Scan to segment; repeat for more. May be the drawn scan itself.")],
    output: Annotated[Path, typer.Option(help="Result file (.seg.nrrd, .nii.gz, .nrrd, .mha, .dcm), or a folder.")],
    support_slices: Annotated[
        list[str] | None,
        typer.Option(
            help="Drawn slices, first = 0: 17,30 or 3-7; all; auto = only the labelled ones of an organ on one slice or with "
            "gaps. Once, or once per support."
        ),
    ] = None,
    organ: Annotated[
        list[str] | None, typer.Option(help="Organ by name or label number; 3='left kidney' also names it. Repeat for more.")
    ] = None,
    method: Annotated[str, typer.Option(help="See `fewshotseg methods`.")] = "match",
    strategy: Annotated[str, typer.Option(help="auto, direct or propagate; for the published methods.")] = "auto",
    checkpoint: Annotated[str, typer.Option(help="Name or path; see `fewshotseg checkpoints`.", show_default="built in")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    report: Annotated[Path | None, typer.Option(help="Folder for an HTML report with pictures.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write the probabilities.")] = False,
    option: Annotated[list[str] | None, typer.Option(help="Option of the method, key=value; repeat for more.")] = None,
    result_format: Annotated[
        str, typer.Option("--format", help="Of results in a folder: seg.nrrd, nii.gz, nrrd, mha, or dicom-seg for DICOM queries.")
    ] = "seg.nrrd",
    turns: Annotated[bool, typer.Option(help="Where a result is unsure, look whether the scan is mirrored or turned.")] = True,
    relays: Annotated[
        bool, typer.Option(help="Segment unsure scans of a list once more, taught by the surest results of the others as well.")
    ] = True,
    series: Annotated[
        str | None,
        typer.Option(help="Series of a DICOM query that holds several: UID, number or description.", show_default="longest"),
    ] = None,
    support_series: Annotated[
        list[str] | None,
        typer.Option(help="The same for supports; once, or once per support.", show_default="that of the drawing"),
    ] = None,
) -> None:
    """Segment scans after one or several drawings.

    A query that is the drawn scan itself is completed from its drawn slices. One query and an output with a file suffix give
    this file; otherwise the output is a folder with <query>.seg.nrrd for each query (see --format). Beside the results lies
    run.json: how they were made.
    """
    from FewShotSegLib.job import SegmentJob
    from FewShotSegLib.segmenter import DEFAULT_CHECKPOINT, SegmenterConfig

    drawings = options.drawings(support_image, support_labels, support_slices, support_series)
    chosen, names = options.organs(organ)
    config = SegmenterConfig(
        turns=turns,
        relays=relays,
        method=method,
        options=options.method_options(option),
        strategy=strategy,
        checkpoint=checkpoint or DEFAULT_CHECKPOINT,
        device=device,
        probabilities=probabilities,
    )
    outcomes = _run(SegmentJob(drawings, tuple(query), output, chosen, names, report, config, result_format, series))
    if report is not None:
        show_file("Report", report / "report.html")
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(SOME_FAILED)


def _run(job: SegmentJob) -> list[Outcome]:
    """Run a job with progress bars; Ctrl-C stops it at its next step."""
    from FewShotSegLib.job import run

    with progress_bars() as bars, cancel_on_interrupt(_say_stopping) as cancelled:
        outcomes = run(job, _listener(bars, cancelled))
    for outcome in outcomes:
        _show(outcome)
    return outcomes


def _say_stopping() -> None:
    show_warning("Stopping ... Ctrl-C again ends the program at once.")


def _listener(bars: Bars, cancelled: Callable[[], bool]) -> Listener:
    from FewShotSegLib import job
    from FewShotSegLib.progress import Progress

    class Shown(job.Listener):
        """Moves the progress bars."""

        def __init__(self) -> None:
            self.bars: dict[Path, TaskID] = {}

        def started(self, query: Path) -> None:
            self.bars[query] = self.bar = bars.start(query.name)

        def progressed(self, progress: Progress) -> None:
            bars.move(self.bar, progress)

        def postponed(self, query: Path) -> None:
            bars.end(self.bars[query], "unsure: once more at the end")

        def finished(self, outcome: Outcome) -> None:
            bars.end(self.bars[outcome.query], "failed" if outcome.error else f"done in {outcome.seconds:.1f} s")

        def cancelled(self) -> bool:
            return cancelled()

    return Shown()


def _show(outcome: Outcome) -> None:
    """The result of a query, or why there is none."""
    if outcome.error is not None:
        show_warning(f"{outcome.query}: no result")
        show_error(outcome.error)
        return
    stdout().print(organ_table(str(outcome.query.name), outcome.organs))
    for note in outcome.notes:
        show_warning(note)
    show_file("Segmentation", outcome.output)
