"""The command `fewshotseg-train`: scans in, an encoder's checkpoint out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from fewshotseg_training.export import export_run
from fewshotseg_training.fit import FitConfig, fit
from fewshotseg_training.scans import prepare_folder
from FewShotSegLib.errors import FewShotSegError

app = typer.Typer(help="Train FewShotSeg's encoder on unlabelled scans.", no_args_is_help=True, add_completion=False)


@app.command()
def prepare(
    folder: Annotated[Path, typer.Argument(help="Folder with dataset.json and <case>_image.nii.gz.")],
    cache: Annotated[Path, typer.Argument(help="Where the prepared scans go.")],
    min_size: Annotated[int, typer.Option(help="Smallest supervoxel, in voxels (papers: 5000 abdomen, 1000 heart).")] = 5000,
) -> None:
    """Preprocess the scans of a folder and segment their supervoxels; scans that are done are kept."""
    done = prepare_folder(folder, cache, min_size=min_size)
    typer.echo(f"{len(done)} scans of {folder.name} are ready in {cache}.")


@app.command(name="fit")
def fit_command(
    cache: Annotated[list[Path], typer.Argument(help="Prepared folders, one per data set.")],
    out: Annotated[Path, typer.Option(help="Folder for the state, run.json and the weights.")],
    weights: Annotated[Path | None, typer.Option(help="ImageNet weights (safetensors) to start from.")] = None,
    steps: Annotated[int, typer.Option(help="Optimiser steps of four slice pairs.")] = 450,
    leave_out: Annotated[str, typer.Option(help="Cases that training must not see: SET:ID,ID;SET:ID.")] = "",
    threads: Annotated[int, typer.Option(help="CPU threads; 0 = all.")] = 0,
    seed: int = 0,
) -> None:
    """Train with the carry objective; a run that was killed continues where it was saved last."""
    if threads:
        torch.set_num_threads(threads)
    data = _without(cache, leave_out)
    empty = [str(folder) for folder, files in zip(cache, data, strict=True) if not files]
    if empty:
        raise typer.BadParameter(f"No prepared scans in {', '.join(empty)}; run `fewshotseg-train prepare` first.")
    weights_file = fit(FitConfig(data, str(out), str(weights) if weights else "", steps=steps, seed=seed))
    typer.echo(f"Encoder weights: {weights_file}")


def _without(cache: list[Path], leave_out: str) -> tuple[tuple[str, ...], ...]:
    """The prepared scans of every folder, less those left out; a scan to leave out that is not there is an error."""
    held = {name: set(ids.split(",")) for name, _, ids in (part.partition(":") for part in leave_out.split(";")) if name}
    files = {folder: sorted(folder.glob("*.npz")) for folder in cache}
    known = {(folder.name, file.stem) for folder, found in files.items() for file in found}
    strange = [f"{name}:{case}" for name, cases in held.items() for case in sorted(cases) if (name, case) not in known]
    if strange:
        raise typer.BadParameter(f"--leave-out names scans that are not there: {', '.join(strange)}.")
    return tuple(tuple(str(f) for f in found if f.stem not in held.get(folder.name, ())) for folder, found in files.items())


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished `fit`.")],
    folder: Annotated[Path, typer.Argument(help="Where the checkpoint goes, such as Resources/checkpoints.")],
    name: Annotated[str, typer.Option(help="Name of the checkpoint.")],
    description: Annotated[str, typer.Option(help="One or two sentences for the card.")] = "",
    modality: Annotated[list[str] | None, typer.Option(help="MR or CT; repeat for both.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights.")] = "unknown",
    data_licence: Annotated[list[str] | None, typer.Option(help="Licence of a data set, SET=LICENCE; repeat.")] = None,
    results: Annotated[Path | None, typer.Option(help="JSON list of the card's measured results.")] = None,
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
    )
    typer.echo(f"Checkpoint: {path}")


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except FewShotSegError as error:
        raise SystemExit(f"fewshotseg-train: {error}") from error
