"""`fewshotseg-train queue`: the next training, on whatever machine this is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fewshotseg_training.queue.runner import in_background, run_queue
from fewshotseg_training.queue.tasks import PAUSED, Places, Training, read_queue
from fewshotseg_training.queue.travel import PACK_LIMIT, RESULT_LIMIT, of_one_pack, unpack, write_results
from fewshotseg_training.queue.travel import pack as write_pack
from FewShotSegLib.devices import choose_device

GPU_MINUTES = 25.0
MIB = 2**20
app = typer.Typer(help="Run the trainings of QUEUE.md, here or on a machine without network.", no_args_is_help=True)
Queue = Annotated[Path, typer.Option("--queue", help="The list of trainings.")]
Root = Annotated[Path, typer.Option(help="Folder with cache/SET, weights/FILE.safetensors and runs.")]
Folder = Annotated[Path | None, typer.Option(help="If elsewhere than in --root.")]
DEFAULT_QUEUE, DEFAULT_ROOT = Path("training/QUEUE.md"), Path("build/training")


def places_of(root: Path, cache: Path | None, runs: Path | None, weights: Path | None) -> Places:
    """The places that the options name."""
    found = sorted((root / "weights").glob("*.safetensors"))
    weights = weights or (found[0] if found else root / "weights" / "imagenet.safetensors")
    return Places(cache or root / "cache", runs or root / "runs", weights)


@app.command(name="list")
def list_trainings(
    queue: Queue = DEFAULT_QUEUE, root: Root = DEFAULT_ROOT, cache: Folder = None, runs: Folder = None, weights: Folder = None
) -> None:
    """What is finished, under way and waiting."""
    places = places_of(root, cache, runs, weights)
    for training in read_queue(queue):
        typer.echo(f"{training.name}: {training.state(places.runs)}")


@app.command()
def run(
    queue: Queue = DEFAULT_QUEUE,
    root: Root = DEFAULT_ROOT,
    cache: Folder = None,
    runs: Folder = None,
    weights: Folder = None,
    minutes: Annotated[float | None, typer.Option(help="0 = no limit.", show_default="25 on a GPU, else 0")] = None,
    here: Annotated[bool, typer.Option("--here", help="Not in the background, even on a CPU.")] = False,
    bring: Annotated[Path | None, typer.Option("--unpack", help="Folder of a pack to unpack first.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where to pack the results, in files of at most 16 MiB.")] = None,
) -> None:
    """Train what comes next: on a GPU as much as fits the minutes, on a CPU in the background; go on where it stopped."""
    places = places_of(root, cache, runs, weights)
    if bring is not None:
        queue = _unpack(bring, places, queue)
        places = places_of(root, cache, runs, weights)
    gpu = choose_device("auto").type == "cuda"
    trainings = read_queue(queue)
    if not gpu and not here:
        words = ["--queue", queue, "--cache", places.cache, "--runs", places.runs, "--weights", places.weights]
        words += [] if results is None else ["--results", results]
        number, log = in_background([str(w) for w in [*words, "--minutes", minutes or 0.0]], places.runs)
        typer.echo(f"Training in the background, process {number}; it tells what it does in {log}.")
        return
    limit = minutes if minutes is not None else GPU_MINUTES if gpu else 0.0
    found = run_queue(trainings, places, minutes=limit, tell=lambda text: print(text, flush=True))
    if results is not None:
        _write_results(trainings, places, results)
    if not found:
        typer.echo("Nothing to train: everything is finished, or waits for something that is not.")
    if any(said.startswith("failed") for said in found.values()):
        raise typer.Exit(1)
    if "paused" in found.values():
        raise typer.Exit(PAUSED)


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="Where the parts of the pack go.")],
    queue: Queue = DEFAULT_QUEUE,
    root: Root = DEFAULT_ROOT,
    cache: Folder = None,
    runs: Folder = None,
    weights: Folder = None,
    limit_mib: Annotated[int, typer.Option(help="Largest part.", min=1)] = PACK_LIMIT // MIB,
) -> None:
    """Pack what the next trainings need for a machine without network: 8-bit scans, fp16 weights."""
    places = places_of(root, cache, runs, weights)
    chosen = of_one_pack(read_queue(queue), places.runs)
    parts = write_pack(queue, chosen, places, folder, limit_mib * MIB)
    typer.echo(f"{', '.join(t.name for t in chosen)}: {_sizes(parts)} in {folder}")


@app.command(name="unpack")
def unpack_command(
    folder: Annotated[Path, typer.Argument(help="Folder with the parts of a pack, or of results.")],
    root: Root = DEFAULT_ROOT,
    cache: Folder = None,
    runs: Folder = None,
    weights: Folder = None,
) -> None:
    """Put a pack, or results, where they belong."""
    _unpack(folder, places_of(root, cache, runs, weights), root / "QUEUE.md")


def _unpack(folder: Path, places: Places, queue: Path) -> Path:
    """Unpack; returns the queue that came along, or else `queue`."""
    written = unpack(sorted(folder.iterdir()), places, places.runs)
    typer.echo(f"{len(written)} files unpacked.")
    brought = places.runs / "QUEUE.md"
    return brought if brought in written else queue


def _write_results(trainings: list[Training], places: Places, folder: Path) -> None:
    found = write_results(trainings, places, folder, RESULT_LIMIT)
    typer.echo(f"Results: {_sizes(found.parts)} in {folder}")
    for name in found.left_out:
        typer.echo(f"The state of {name} is too large to come along; it starts anew elsewhere.", err=True)


def _sizes(parts: list[Path]) -> str:
    return f"{len(parts)} files, {sum(p.stat().st_size for p in parts) / MIB:.1f} MiB"
