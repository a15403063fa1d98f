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
    held = {name: set(ids.split(",")) for name, _, ids in (part.partition(":") for part in leave_out.split(";")) if name}
    data = tuple(tuple(str(p) for p in sorted(f.glob("*.npz")) if p.stem not in held.get(f.name, set())) for f in cache)
    empty = [str(folder) for folder, files in zip(cache, data, strict=True) if not files]
    if empty:
        raise typer.BadParameter(f"No prepared scans in {', '.join(empty)}; run `fewshotseg-train prepare` first.")
    weights_file = fit(FitConfig(data, str(out), str(weights) if weights else "", steps=steps, seed=seed))
    typer.echo(f"Encoder weights: {weights_file}")


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
    app()
