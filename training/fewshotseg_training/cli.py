"""The command `fewshotseg-train`: scans in, an encoder's checkpoint out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console

from fewshotseg_training.augment import AugmentConfig
from fewshotseg_training.export import export_run
from fewshotseg_training.fit import Paused, fit
from fewshotseg_training.held_out import training_part, without
from fewshotseg_training.presets import config_for
from fewshotseg_training.queue.commands import app as queue
from fewshotseg_training.queue.tasks import PAUSED
from FewShotSegLib.commands.options import method_options
from FewShotSegLib.errors import FewShotSegError

if TYPE_CHECKING:
    from fewshotseg_training.prepare import Prepared

app = typer.Typer(help="Train FewShotSeg on unlabelled scans.", no_args_is_help=True, add_completion=False)
app.add_typer(queue, name="queue")
SHOWN = 20  # broken scans


@app.command()
def prepare(
    folder: Annotated[Path, typer.Argument(help="Folder of NIfTI, NRRD or MHA files and DICOM series, searched through.")],
    cache: Annotated[Path, typer.Argument(help="Where the prepared scans go.")],
    min_size: Annotated[int, typer.Option(help="Smallest supervoxel, in voxels (papers: 5000 abdomen, 1000 heart).")] = 5000,
    superpixels: Annotated[bool, typer.Option(help="Also 2D superpixels, for the methods' own episodes.")] = True,
    preset: Annotated[str, typer.Option(help="`general` for any scan, or `paper`, as the papers prepare MR and CT.")] = "general",
    every_mm: Annotated[float, typer.Option(help="Thin slices are thinned to about this distance, mm.")] = 3.0,
    order: Annotated[str, typer.Option(help="Of equal edges: `stable`, or `numpy-introsort` as published files.")] = "stable",
    keep_labels: Annotated[bool, typer.Option(help="Keep label maps beside the scans, for `fit --labelled`.")] = False,
    workers: Annotated[int, typer.Option(help="Scans at once, each in a process of its own.")] = 1,
) -> None:
    """Preprocess all scans below a folder and segment their pseudo-labels; what is done is kept, broken scans are named."""
    from fewshotseg_training.prepare import PrepareConfig, prepare_folder  # not on top: a machine that only trains lacks much

    console = Console(stderr=True)
    config = PrepareConfig(
        min_size=min_size,
        superpixels=superpixels,
        preset=_one_of("--preset", preset, "general", "paper"),
        every_mm=every_mm,
        order=_one_of("--order", order, "stable", "numpy-introsort"),
        keep_labels=keep_labels,
    )
    with console.status("Looking for scans") as status:
        done = prepare_folder(
            folder,
            cache,
            config,
            workers=workers,
            on_scan=lambda name, n, of: status.update(f"{n} of {of} scans, {name}"),
        )
    _report(done, folder, cache)


def _report(done: Prepared, folder: Path, cache: Path) -> None:
    typer.echo(f"{len(done.done)} scans of {folder.name} are ready in {cache}.")
    for name, reason in list(done.failed.items())[:SHOWN]:
        typer.echo(f"Skipped {name}: {reason}", err=True)
    if done.failed:
        typer.echo(f"{len(done.failed)} scans were skipped; prepare.json in the cache lists them all.", err=True)
    if not done.done:
        raise typer.Exit(1)


@app.command()
def pseudolabels(
    cache: Annotated[list[Path], typer.Argument(help="Prepared folders.")],
    superpixel_size: Annotated[int, typer.Option(help="Smallest superpixel, in pixels.")] = 400,
    min_size: Annotated[int, typer.Option(help="Cut new supervoxels of at least so many voxels; 0 keeps the present ones.")] = 0,
    order: Annotated[str, typer.Option(help="Of equal edges: `stable`, or `numpy-introsort` as published files.")] = "stable",
    again: Annotated[bool, typer.Option(help="Replace superpixels that are there.")] = False,
    workers: Annotated[int, typer.Option(help="Scans at once.")] = 1,
) -> None:
    """Add superpixels to prepared scans, or cut other supervoxels."""
    from fewshotseg_training.pseudolabels import PseudoConfig, label_folder

    config = PseudoConfig(superpixel_size, min_size, _one_of("--order", order, "stable", "numpy-introsort"), again)
    for folder in cache:
        done = label_folder(folder, config, workers=workers)
        typer.echo(f"{len(done)} scans of {folder.name} have their pseudo-labels.")


@app.command(name="fit")
def fit_command(
    cache: Annotated[list[Path], typer.Argument(help="Prepared folders, one per data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the state, run.json and the weights.")],
    method: Annotated[str, typer.Option(help="carry, flow, or whose episodes: alpnet, visa, adnet, ...")] = "carry",
    option: Annotated[list[str] | None, typer.Option(help="Option of the method, key=value; repeat.")] = None,
    weights: Annotated[Path | None, typer.Option(help="ImageNet weights (safetensors) to start from.")] = None,
    base: Annotated[str, typer.Option(help="Checkpoint, or encoder.safetensors of a run, to start from.")] = "",
    freeze_encoder: Annotated[bool, typer.Option(help="Only the method's head learns.")] = False,
    published: Annotated[bool, typer.Option(help="Encoder, steps and schedule of the method's paper.")] = False,
    source: Annotated[str, typer.Option(help="Episodes from superpixel, supervoxel, mixed, flow or volume.")] = "",
    flow: Annotated[Path | None, typer.Option(help="Trained flow network, for episodes of neighbouring slices.")] = None,
    exclude: Annotated[str, typer.Option(help="Setting 2: never draw slices that show these labels, as 2,3.")] = "",
    exclude_rule: Annotated[str, typer.Option(help="Slices with `any` of them, or with `all`, as published.")] = "any",
    steps: Annotated[int | None, typer.Option(help="Optimiser steps (carry 450, others 2000).")] = None,
    batch: Annotated[int | None, typer.Option(help="Slice pairs or episodes a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    schedule: Annotated[str | None, typer.Option(help="poly, cosine, decay or constant.")] = None,
    ema: Annotated[float, typer.Option(help="Running mean of the weights: the part kept a step, as 0.999.")] = 0.0,
    encoder: Annotated[str | None, typer.Option(help="resnet50v2, resnet101, ...")] = None,
    leave_out: Annotated[str, typer.Option(help="Cases that training must not see: SET:ID,ID;SET:ID.")] = "",
    fold: Annotated[int | None, typer.Option(help="Leave out what the papers' fold 0 to 4 of each set tests.")] = None,
    curves: Annotated[float, typer.Option(help="Carry: part of the slices through a random grey-level curve.")] = 0.0,
    recolour: Annotated[float, typer.Option(help="Carry: part of the slices with a new grey level for every region.")] = 0.0,
    labelled: Annotated[float, typer.Option(help="Carry: part of the pairs from two scans, whose labels are carried.")] = 0.0,
    labels_of: Annotated[str, typer.Option(help="Only these data sets' labels, as SET,SET; all without it.")] = "",
    keep_base: Annotated[float, typer.Option(help="What the base weighs in the saved encoder, 0 to 1.")] = 0.0,
    minutes: Annotated[float, typer.Option(help="Pause, saved, after so many minutes (exit code 75); 0 = never.")] = 0.0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = all.")] = 0,
    tensorboard: Annotated[int, typer.Option(help="Steps between records for TensorBoard; 0 = none.")] = 10,
    seed: int = 0,
) -> None:
    """Train with the carry objective or a method's own episodes; a run that was killed continues where it was saved last."""
    if threads:
        torch.set_num_threads(threads)
    data = without(cache, leave_out)
    if fold is not None:
        data = tuple(training_part(files, fold) for files in data)
    empty = [str(folder) for folder, files in zip(cache, data, strict=True) if not files]
    if empty:
        raise typer.BadParameter(f"No prepared scans in {', '.join(empty)}; run `fewshotseg-train prepare` first.")
    if method != "flow" and not (weights or base):
        typer.echo("The encoder starts from random numbers, which takes far more steps; see --weights and --base.", err=True)
    given: dict[str, Any] = {
        "steps": steps, "pairs": batch, "lr": lr, "schedule": schedule, "encoder": encoder, "seed": seed, "ema": ema,
        "options": tuple(method_options(option).items()), "base": base, "weights": str(weights or ""), "flow": str(flow or ""),
        "freeze_encoder": freeze_encoder, "source": source, "exclude": _numbers(exclude), "exclude_rule": exclude_rule,
        "labelled": labelled, "labels_of": tuple(name for name in labels_of.split(",") if name),
        "keep_base": keep_base, "device": device, "minutes": minutes, "augment": AugmentConfig(curves=curves, recolour=recolour),
        "log_every": tensorboard, "pictures_every": 20 * tensorboard, "show": "auto",
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    try:
        weights_file = fit(config_for(method, data, str(out), published=published, **given))
    except Paused as paused:
        typer.echo(str(paused))
        raise typer.Exit(PAUSED) from paused
    typer.echo(f"Weights: {weights_file}")


def _one_of(option: str, value: str, *known: str) -> Any:
    if value not in known:
        raise typer.BadParameter(f"{option} {value!r}; expected {' or '.join(known)}.")
    return value


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise typer.BadParameter(f"--exclude {text!r}; expected label numbers, as 2,3.") from error


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished `fit`.")],
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint goes, such as Resources/checkpoints.")],
    name: Annotated[str, typer.Option(help="Name of the checkpoint.")],
    description: Annotated[str, typer.Option(help="One or two sentences for the card.")] = "",
    modality: Annotated[list[str] | None, typer.Option(help="MR or CT; repeat for both.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.", show_default="that of the base")] = "unknown",
    data_licence: Annotated[list[str] | None, typer.Option(help="Licence of a data set, SET=LICENCE; repeat.")] = None,
    results: Annotated[Path | None, typer.Option(help="JSON list of the card's measured results.")] = None,
    encoder_from: Annotated[str, typer.Option(help="Checkpoint that holds the frozen encoder: only the head is stored.")] = "",
) -> None:
    """Turn a run into a checkpoint: fp16 weights and a card that says what they learned from."""
    licences = dict(text.split("=", 1) for text in data_licence or [])
    measured = json.loads(results.read_text()) if results else []
    path = export_run(
        run,
        folder,
        name=name,
        description=description,
        modalities=modality or [],
        licence=licence,
        data_licences=licences,
        results=measured,
        encoder_from=encoder_from,
    )
    typer.echo(f"Checkpoint: {path}, {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except FewShotSegError as error:
        raise SystemExit(f"fewshotseg-train: {error}") from error
