"""How fast the main job is: `python -m FewShotSegLib.evaluation.bench`.

Times a warm segmentation of an invented 36-slice scan with four organs, and the published per-slice loop on the same scan
with the same encoder: for every organ and every query slice, the support slice and the query slice are encoded together
(alpnet_visa.md, section 7).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from FewShotSegLib.app import bench as page_bench
from FewShotSegLib.checkpoints import list_checkpoints, load_checkpoint
from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.drawings import encode_support
from FewShotSegLib.encoders import Encoder, create_encoder
from FewShotSegLib.encoding import encode_scan
from FewShotSegLib.evaluation.annotation import organ_slices
from FewShotSegLib.evaluation.result import machine_facts, say_json
from FewShotSegLib.grid import AxialGrid, normalise
from FewShotSegLib.memory import peak_memory_mb
from FewShotSegLib.methods import upsample
from FewShotSegLib.methods.alpnet import Alpnet
from FewShotSegLib.methods.match import Match
from FewShotSegLib.phantom import Phantom, make_patient
from FewShotSegLib.segmenter import DEFAULT_CHECKPOINT, Segmenter, SegmenterConfig
from FewShotSegLib.strategies.chunks import chunk_of, pick_slices
from FewShotSegLib.support import Support

SUPPORT_SEED, QUERY_SEED = 1, 2
SHAPE = (36, 256, 256)


@dataclass(frozen=True, order=True)
class Seconds:
    """What a piece of work took: `wall` by the clock, `cpu` by the process in all its threads (steadier on a busy machine)."""

    wall: float
    cpu: float

    def scaled(self, factor: float) -> Seconds:
        """So many times as much work."""
        return Seconds(self.wall * factor, self.cpu * factor)


@dataclass(frozen=True)
class Benchmark:
    """Times of one scan with all its organs; medians where repeated.

    encoder: which weights. scan: voxels (z, y, x). organs: how many. match, alpnet: warm, the support already encoded.
    carry: the part of match that follows the encoder, registration and labels on all cells.
    first_match: the first call, the support encoded on the way. published: the loop, from `published_pairs` of its
    `published_of` pairs of slices, scaled. ratio: published / match, by the clock. ratio_alpnet: published / alpnet, the
    same head. peak_memory_mb: of the whole process.
    """

    encoder: str
    scan: tuple[int, int, int]
    organs: int
    match: Seconds
    carry: Seconds
    first_match: Seconds
    alpnet: Seconds
    published: Seconds
    published_pairs: int
    published_of: int
    ratio: float
    ratio_alpnet: float
    peak_memory_mb: float
    machine: dict[str, Any]


def run(
    *, checkpoint: str = DEFAULT_CHECKPOINT, repeats: int = 3, pairs: int = 24, shape: tuple[int, int, int] = SHAPE
) -> Benchmark:
    """Measure. Without the checkpoint an encoder with random weights serves: the times are the same, the result is not.

    Args:
        checkpoint: name or path.
        repeats: warm runs of which the median counts.
        pairs: how many pairs of slices of the published loop are timed, spread over organs and slices.
        shape: voxels (z, y, x) of both scans.
    """
    encoder, name = _encoder(checkpoint)
    teacher, query = (make_patient(seed, shape=shape) for seed in (SUPPORT_SEED, QUERY_SEED))
    first, match = _time_segmenter("match", encoder, teacher, query, repeats)
    _, alpnet = _time_segmenter("alpnet", encoder, teacher, query, repeats)
    jobs = list(published_jobs(teacher, query))
    timed = [jobs[i] for i in np.unique(np.linspace(0, len(jobs) - 1, pairs).astype(int))]
    published = _time_loop(encoder, timed).scaled(len(jobs) / len(timed))
    return Benchmark(
        encoder=name,
        scan=shape,
        organs=len(query.organs),
        match=match,
        carry=_time_carry(encoder, teacher, query, repeats),
        first_match=first,
        alpnet=alpnet,
        published=published,
        published_pairs=len(timed),
        published_of=len(jobs),
        ratio=published.wall / match.wall,
        ratio_alpnet=published.wall / alpnet.wall,
        peak_memory_mb=peak_memory_mb(),
        machine=machine_facts(),
    )


def _encoder(checkpoint: str) -> tuple[Encoder, str]:
    """The encoder and what to call it; random weights where the default checkpoint is not on this computer."""
    if checkpoint == DEFAULT_CHECKPOINT and checkpoint not in [card.name for card in list_checkpoints()]:
        torch.manual_seed(0)
        return create_encoder().eval(), f"random weights, no {checkpoint} here"
    encoder, card = load_checkpoint(checkpoint)
    return encoder, card.name


def _time_segmenter(method: str, encoder: Encoder, teacher: Phantom, query: Phantom, repeats: int) -> tuple[Seconds, Seconds]:
    """The first call, and the median of the following ones."""
    support = _support(teacher)
    segmenter = Segmenter(SegmenterConfig(method=method, device="cpu"), encoder=encoder)
    times = [_seconds(lambda: segmenter.segment(support, query.volume)) for _ in range(repeats + 1)]
    return times[0], statistics.median_low(times[1:])


@torch.no_grad()
def _time_carry(encoder: Encoder, teacher: Phantom, query: Phantom, repeats: int) -> Seconds:
    """Registration and labels from features at hand, the median after a run that is not timed."""
    config = SegmenterConfig(device="cpu")
    runner = FeatureRunner(encoder, torch.device("cpu"), config.batch)
    support = encode_support(_support(teacher), runner, every_mm=config.every_mm)
    scan = encode_scan(query.volume, runner, every_mm=config.every_mm, pixel_mm=support.scan.grid.pixel_mm)
    known = (support.scan.regular(), support.values(list(range(len(teacher.organs)))))
    method, regular = Match(), scan.regular()
    times = [_seconds(lambda: method.carry(regular, [known])) for _ in range(repeats + 1)]
    return statistics.median_low(times[1:])


Job = tuple[Tensor, Tensor]
"""A support and a query slice (2 H W), and the organ's mask on the former (1 H W)."""


def published_jobs(teacher: Phantom, query: Phantom) -> Iterator[Job]:
    """Every pair of slices that the published loop encodes: organ by organ, every slice of the query."""
    pixels, taught = (_pixels(patient) for patient in (query, teacher))
    grid = AxialGrid.of(teacher.volume.geometry)
    for organ, mask in zip(teacher.organs, _masks(teacher), strict=True):
        masks = torch.from_numpy(grid.forward(mask.astype(np.float32), order=0, fill=0.0))
        chosen = pick_slices(torch.nonzero(masks.amax((1, 2))).flatten().tolist())
        shown = organ_slices(query.labels, organ)
        for z in range(len(pixels)):
            k = chosen[chunk_of(z, (shown[0], shown[-1]))]
            yield torch.stack([taught[k], pixels[z]]), masks[k : k + 1]


@torch.no_grad()
def _time_loop(encoder: Encoder, jobs: Sequence[Job]) -> Seconds:
    """These pairs, after one that is not timed."""
    head = Alpnet()

    def segment(pair: Tensor, mask: Tensor) -> Tensor:
        features = encoder(pair)
        logits = head.score(features[1:], head.remember(features[:1], mask))
        return upsample(logits, (pair.shape[1], pair.shape[2])).argmax(1)

    segment(*jobs[0])
    return _seconds(lambda: [segment(*job) for job in jobs])


def _pixels(patient: Phantom) -> Tensor:
    """Normalised slices (n, H, W) on the network's grid."""
    image = normalise(patient.volume)
    return torch.from_numpy(AxialGrid.of(patient.volume.geometry).forward(image, order=1, fill=float(image.min())))


def _masks(patient: Phantom) -> np.ndarray:
    return np.stack([patient.labels == organ.label for organ in patient.organs])


def _support(patient: Phantom) -> Support:
    return Support.create(patient.volume, _masks(patient), patient.organs, slices="all")


def _seconds(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def table(found: Benchmark) -> Table:
    """The benchmark for a terminal."""
    facts = found.machine
    shown = Table(
        title=f"{found.scan[0]} slices of {found.scan[1]} x {found.scan[2]}, {found.organs} organs, {found.encoder}",
        caption=f"{facts['machine']}, {facts['cores']} cores, {facts['threads']} threads, torch {facts['torch']}; "
        f"peak memory {found.peak_memory_mb:.0f} MB; loop timed on {found.published_pairs} of its {found.published_of} pairs",
    )
    shown.add_column("what")
    for heading in ("seconds", "processor s", "loop / this"):
        shown.add_column(heading, justify="right")
    rows = {
        "match, warm": found.match,
        "- registration and labels": found.carry,
        "match, with its support": found.first_match,
        "alpnet, warm": found.alpnet,
        "published loop (alpnet)": found.published,
    }
    for what, took in rows.items():
        shown.add_row(what, f"{took.wall:.2f}", f"{took.cpu:.2f}", f"{found.published.wall / took.wall:.1f}")
    return shown


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: prints the table and the JSON."""
    parser = argparse.ArgumentParser(description="Time the segmentation of a 36-slice scan and the published per-slice loop.")
    parser.add_argument("--checkpoint", default=DEFAULT_CHECKPOINT)
    parser.add_argument("--repeats", type=int, default=3, help="warm runs; the median counts")
    parser.add_argument("--pairs", type=int, default=24, help="pairs of slices of the published loop that are timed")
    parser.add_argument("--no-page", action="store_true", help="leave the web page out")
    parser.add_argument("--json", type=Path, help="also write the JSON here")
    options = parser.parse_args(arguments)
    found = run(checkpoint=options.checkpoint, repeats=options.repeats, pairs=options.pairs)
    page = None if options.no_page else page_bench.measure("" if options.checkpoint == DEFAULT_CHECKPOINT else options.checkpoint)
    Console().print(table(found))
    if page is not None:
        Console().print(page.told())
    say_json({**asdict(found), "page": page and asdict(page)}, options.json)


if __name__ == "__main__":
    main()
