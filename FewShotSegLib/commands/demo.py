"""`fewshotseg demo`: both uses of the program on an embedded case."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from FewShotSegLib.commands.console import organ_table, progress_bars, show_file, show_warning, stdout
from FewShotSegLib.interrupts import cancel_on_interrupt

if TYPE_CHECKING:
    from FewShotSegLib.demo import DemoConfig, Demonstration, Shown


def demo(
    output: Annotated[Path, typer.Option(help="Folder for scans, drawings, results, pictures and report.")] = Path("build/demo"),
    modality: Annotated[str, typer.Option(help="Of the invented patients: MR or CT.")] = "MR",
    sample: Annotated[
        str | None, typer.Option(help="Download this sample scan of 3D Slicer instead: MRHead, CTChest or CTLiver.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of labelled scans instead: its first case teaches its second.")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Name or path; see `fewshotseg checkpoints`.", show_default="built in")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Show both uses: a patient drawn whole teaches a new patient; one drawn slice goes through its own scan."""
    from FewShotSegLib.demo import DemoConfig
    from FewShotSegLib.segmenter import DEFAULT_CHECKPOINT, SegmenterConfig

    segmenter = SegmenterConfig(checkpoint=checkpoint or DEFAULT_CHECKPOINT, device=device)
    done = _run(DemoConfig(output, modality, sample=sample, data=data, segmenter=segmenter))  # type: ignore[arg-type]
    for shown in done.uses:
        _show(shown)
    show_file("Report", done.report)


def _run(config: DemoConfig) -> Demonstration:
    from FewShotSegLib.demo import demonstrate
    from FewShotSegLib.progress import OnProgress

    with progress_bars() as bars, cancel_on_interrupt(_say_stopping) as cancelled:

        def begin(title: str) -> OnProgress:
            bar = bars.start(title)
            return lambda moment: bars.move(bar, moment)

        return demonstrate(config, begin, cancelled)


def _say_stopping() -> None:
    show_warning("Stopping ... Ctrl-C again ends the program at once.")


def _show(shown: Shown) -> None:
    """Table, files, and the command that does the same."""
    stdout().print(organ_table(f"{shown.title} ({shown.seconds:.1f} s)", shown.organs, dice=shown.scored))
    for note in shown.notes:
        show_warning(note)
    show_file("Scan", shown.query)
    show_file("Segmentation", shown.result)
    show_file("Picture", shown.picture)
    command = f"fewshotseg segment --support-image {shown.image} --support-labels {shown.drawing} --query {shown.query}"
    show_file("The same again", f"{command} --output OUT.seg.nrrd\n")
