"""`fewshotseg cohort`: a list of scans after one or a few drawings, ranked by doubt, improved by corrections."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from FewShotSegLib.commands import options
from FewShotSegLib.commands.console import DASH, progress_bars, show_file, show_warning, stdout
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.interrupts import cancel_on_interrupt

if TYPE_CHECKING:
    from FewShotSegLib.cohort.config import CohortConfig
    from FewShotSegLib.cohort.record import CaseRecord
    from FewShotSegLib.cohort.run import Executor, Tally
    from FewShotSegLib.cohort.status import CaseState

SOME_FAILED = 1
SHOWN = 40
DOUBTFUL = 0.8

cohort = typer.Typer(
    help="Segment a list of scans after one or a few drawings; then look where it is least sure.", no_args_is_help=True
)
Folder = Annotated[Path, typer.Argument(help="Folder of the cohort: the --output of `cohort run`.")]


@cohort.command(name="run")
def run_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of scans, a CSV with a column `image` (and `name`, `series`), or a cohort's folder to go on."
        ),
    ],
    output: Annotated[Path | None, typer.Option(help="Folder of the cohort: results, records, review.")] = None,
    support_image: Annotated[list[Path] | None, typer.Option(help="Drawn scan; repeat for more.")] = None,
    support_labels: Annotated[list[Path] | None, typer.Option(help="Its drawing; one per scan.")] = None,
    support_slices: Annotated[list[str] | None, typer.Option(help="Drawn slices, as for `segment`.")] = None,
    organ: Annotated[list[str] | None, typer.Option(help="Organ by name or label number; 3='left kidney' also names it.")] = None,
    pattern: Annotated[str, typer.Option(help="Which files of a folder are scans, such as '*_image.nii.gz'.")] = "",
    method: Annotated[str, typer.Option(help="See `fewshotseg methods`.")] = "match",
    option: Annotated[list[str] | None, typer.Option(help="Option of the method, key=value; repeat for more.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Name or path.", show_default="built in")] = "",
    device: Annotated[list[str] | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...; a worker for each.")] = None,
    nearest: Annotated[int, typer.Option(help="So many supports, those most like the scan, teach it; 0 = all.")] = 3,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Results of DICOM series also as DICOM SEG; those done before, too.")
    ] = False,
    shard: Annotated[str, typer.Option(help="i/n: only the i-th of n parts of the list, for a job array.")] = "1/1",
    readers: Annotated[int, typer.Option(help="Scans read ahead of each worker.")] = 1,
    ray: Annotated[
        str, typer.Option(help="Run on a Ray cluster: its host:port, auto for that of this machine, local to try it here.")
    ] = "",
    ray_workers: Annotated[int, typer.Option(help="Workers on the cluster; 0: one per GPU, else one per machine.")] = 0,
    ray_cpus: Annotated[int, typer.Option(help="Cores of each; 0: all of the smallest machine.")] = 0,
    verify: Annotated[bool, typer.Option("--verify", help="Hash all scans again, whatever their time of change.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and write everything, find nothing.")] = False,
) -> None:
    """Segment every scan of a list that is not done yet.

    Done are cases with the same scan, the same settings and the same supports; run again to go on after a stop, with new scans,
    or after corrections. A scan that fails is recorded with the reason and tried again the next time. Several runs, on several
    machines, may share one output folder.
    """
    from FewShotSegLib.cohort.config import FILE, CohortConfig
    from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT, SegmenterConfig

    parts, devices, executor = _shard(shard), tuple(device or ()), _executor(ray, ray_workers, ray_cpus)
    if (source / FILE).is_file() and output is None:
        _run(_again(source, parts, devices, readers, verify, dicom_seg), executor)
        return
    if output is None:
        raise ConfigError("No --output", "a folder for the cohort", "name one")
    chosen, names = options.organs(organ)
    config = CohortConfig(
        source=source,
        output=output,
        supports=options.drawings(support_image or [], support_labels or [], support_slices),
        organs=chosen,
        names=names,
        segmenter=SegmenterConfig(
            method=method,
            options=options.method_options(option),
            checkpoint=checkpoint or DEFAULT_CHECKPOINT,
            device=devices[0] if len(devices) == 1 else "auto",
        ),
        devices=devices if len(devices) > 1 else (),
        nearest=nearest,
        pattern=pattern,
        shard=parts,
        readers=readers,
        dicom_seg=dicom_seg,
        verify=verify,
        dry_run=dry_run,
    )
    _run(config, executor)


@cohort.command()
def status(
    folder: Folder, everything: Annotated[bool, typer.Option("--all", help="Show every case, also those that are done.")] = False
) -> None:
    """How far a cohort is: done, failed and why, waiting, running."""
    from FewShotSegLib.cohort.status import STATES, states

    found = states(folder)
    counts = {state: sum(s.state == state for s in found) for state in STATES}
    stdout().print(f"{len(found)} cases: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    listed = [s for s in found if everything or s.state in ("failed", "running") or s.reason]
    if listed:
        stdout().print(_table(listed if everything else listed[:SHOWN]))
    if not everything and len(listed) > SHOWN:
        stdout().print(f"... and {len(listed) - SHOWN} more (--all)")


@cohort.command()
def review(
    folder: Folder,
    pictures: Annotated[int, typer.Option(help="Cases, the least sure first, whose picture is inside the page.")] = 300,
    title: Annotated[str, typer.Option(help="Of the page.")] = "",
) -> None:
    """Write review.html: all cases, the least sure first, with pictures, volumes and what is unusual."""
    from FewShotSegLib.cohort.review import write_review

    show_file("Review", write_review(folder, pictures=pictures, title=title))


@cohort.command(name="add-support")
def add_support(
    folder: Folder,
    case: Annotated[str, typer.Argument(help="Name of the case.")],
    corrected: Annotated[
        Path | None,
        typer.Argument(
            help="Its corrected labels: .seg.nrrd or a label map, all organs. Left out: its result is right.", show_default=False
        ),
    ] = None,
    rerun: Annotated[
        str,
        typer.Option(
            help="What is done again. likely: doubtful cases, and those that are more like this one than like any other support. "
            "any: also those that it would teach among others. all; none."
        ),
    ] = "likely",
    below: Annotated[float, typer.Option(help="Doubtful are cases with an organ whose expected Dice is below this.")] = DOUBTFUL,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Do them again now, or only mark them for the next run.")] = True,
) -> None:
    """Make a corrected case, or one whose result is right, an additional support, and do again what it may change.

    Earlier results stay in history/.
    """
    from FewShotSegLib.cohort import corrections

    added = corrections.add_support(folder, case, corrected, rerun=rerun, below=below)  # type: ignore[arg-type]  # checked there
    stdout().print(f"{added.case} teaches now. Cases to do again: {len(added.again)}.", highlight=False)
    if run and added.again:
        _run(_again(folder, (1, 1), (), 1, False))


def _again(
    folder: Path, shard: tuple[int, int], devices: tuple[str, ...], readers: int, verify: bool, dicom_seg: bool = False
) -> CohortConfig:
    """The last run's configuration, for this process."""
    from dataclasses import replace

    from FewShotSegLib.cohort.config import CohortConfig

    config = replace(CohortConfig.read(folder), shard=shard, readers=readers, verify=verify)
    config = replace(config, dicom_seg=config.dicom_seg or dicom_seg)
    return replace(config, devices=devices) if devices else config


def _shard(text: str) -> tuple[int, int]:
    number, sign, of = text.partition("/")
    if not (sign and number.isdecimal() and of.isdecimal()):
        raise ConfigError(f"Shard {text!r}", "i/n, such as 3/16", "correct the shard")
    return int(number), int(of)


def _executor(address: str, workers: int, cpus: int) -> Executor | None:
    """A cluster, if one is named."""
    if not address:
        if workers or cpus:
            raise ConfigError(
                "--ray-workers or --ray-cpus without --ray", "the address of a cluster", "name it, or leave them out"
            )
        return None
    from FewShotSegLib.cohort.cluster import RayExecutor

    return RayExecutor(address, workers, cpus)


def _run(config: CohortConfig, executor: Executor | None = None) -> None:
    """Run with a progress bar; Ctrl-C stops at the next step."""
    from FewShotSegLib.cohort.manifest import plan
    from FewShotSegLib.cohort.run import Tally
    from FewShotSegLib.cohort.run import run as run_cohort

    count, tally = len(plan(config)), Tally()
    with progress_bars() as bars, cancel_on_interrupt(_say_stopping) as cancelled:
        bar = bars.start(f"{count} cases")
        listener = _listener(lambda part, stage: bars.progress.update(bar, completed=part, stage=stage), count)
        tally = run_cohort(config, listener, cancelled, executor)
        bars.end(bar, _told(tally))
    stdout().print(_told(tally), highlight=False)
    if tally.busy:
        show_warning(f"{tally.busy} cases were left to another run that is at them.")
    show_file("Cohort", config.output)
    if tally.failed:
        raise typer.Exit(SOME_FAILED)


def _listener(show: Callable[[float, str], None], count: int) -> Callable[[CaseRecord, Tally], None]:
    def heard(record: CaseRecord, tally: Tally) -> None:
        show((tally.done + tally.kept + tally.failed + tally.busy) / count, record.name)
        if record.status == "failed":
            show_warning(f"{record.name}: {record.error.get('found', 'failed')}")

    return heard


def _told(tally: Tally) -> str:
    parts = {"done": tally.done, "done before": tally.kept, "failed": tally.failed, "left to another run": tally.busy}
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count or what == "done")


def _say_stopping() -> None:
    show_warning("Stopping ... Ctrl-C again ends the program at once. What is done stays done.")


def _table(found: list[CaseState]) -> Table:
    table = Table()
    for heading in ("case", "state", "least sure organ", "reason"):
        table.add_column(heading, overflow="fold")
    for state in found:
        score = state.record.score if state.record else math.nan
        table.add_row(state.case.name, state.state, DASH if math.isnan(score) else f"{score:.2f}", state.reason)
    return table
