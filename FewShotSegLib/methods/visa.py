"""VISA-FSS (MICCAI 2023): the ALP head, and labels handed from slice to slice inside the query (alpnet_visa.md, 9.6).

The propagation knows no network: it is told by callables how a slice learns from another, and records nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from FewShotSegLib.flow import s2v
from FewShotSegLib.methods.alpnet import Alpnet, AlpnetConfig


@dataclass(frozen=True)
class VisaConfig(AlpnetConfig):
    """The ALP head's options; `faithful` is also meant for `propagate_chunks`.

    anchored: a slice learns from the drawn slice of its chunk as well as from its neighbour; as published (`faithful`), from the
    neighbour alone.
    """

    anchored: bool = True


class Visa(Alpnet):
    """The ALP head under VISA's name; used with slice-to-slice propagation."""

    name: ClassVar[str] = "visa"
    default_strategy: ClassVar[str] = "propagate"
    config: VisaConfig

    def __init__(self, config: VisaConfig | None = None) -> None:
        super().__init__(config or VisaConfig())


@dataclass(frozen=True, eq=False)
class Teacher:
    """Whom a slice learns from: the drawn support slice of `chunk`, or slice `z` of the query with its new `mask` (H W)."""

    chunk: int
    z: int | None = None
    mask: Tensor | None = None


Segment = Callable[[Teacher, int], Tensor]
"""(teacher, z) -> mask (H W) bool of query slice z."""
Refine = Callable[[Teacher, int, Tensor], Tensor]
"""(teacher, z, mask of z) -> cleaned mask of z."""


def propagate_chunks(
    extent: tuple[int, int],
    pivots: Sequence[int],
    chunk_of: Callable[[int], int],
    segment: Segment,
    refine: Refine | None = None,
    *,
    faithful: bool = False,
) -> Iterator[tuple[int, Tensor]]:
    """Slices of the query in `extent` (first, last, both included) and their masks, in the order in which they are learned.

    Each chunk's pivot learns from the drawn slice of that chunk; from there the mask is handed on, upwards and then
    downwards, to the end of the chunk. A slice may come twice (a pivot that lies in another's chunk); the later mask holds,
    so `dict(...)` gives the result. `refine` cleans every mask but the pivots'. `faithful`: chunk numbers beyond the last
    are kept, so that the extent's last slice is mostly never reached, and an empty mask teaches emptiness. Otherwise they
    count as the last chunk, a slice after an empty mask learns from the drawn slice, and slices that no chunk reaches learn
    from their neighbour.
    """
    learn = _learner(segment, refine, faithful)

    def chunk(z: int) -> int:
        return chunk_of(z) if faithful else min(chunk_of(z), len(pivots) - 1)

    starts = []
    for p, pivot in enumerate(pivots):
        starts.append(segment(Teacher(p), pivot))
        yield pivot, starts[p]
    reached = dict(zip(pivots, starts, strict=True))
    for p, pivot in enumerate(pivots):
        for path in _both_ways(extent, pivot, pivot):
            mask = starts[p]
            for previous, z in path:
                if chunk(z) != p:
                    break
                mask = reached[z] = learn(p, previous, mask, z)
                yield z, mask
    if not faithful:
        for path in _both_ways(extent, *extent):
            for previous, z in path:
                if z not in reached and previous in reached:
                    reached[z] = learn(chunk(z), previous, reached[previous], z)
                    yield z, reached[z]


def _learner(segment: Segment, refine: Refine | None, faithful: bool) -> Callable[[int, int, Tensor, int], Tensor]:
    """(chunk, neighbour, its mask, z) -> the mask of z."""

    def learn(chunk: int, previous: int, mask: Tensor, z: int) -> Tensor:
        teacher = Teacher(chunk, previous, mask) if faithful or mask.any() else Teacher(chunk)
        found = segment(teacher, z)
        return found if refine is None else refine(teacher, z, found)

    return learn


def _both_ways(extent: tuple[int, int], up_from: int, down_from: int) -> tuple[Iterator[tuple[int, int]], ...]:
    """Steps (previous slice, next slice) up to the end of the extent, and down to its beginning."""
    first, last = extent
    return pairwise(range(up_from, last + 1)), pairwise(range(down_from, first - 1, -1))


def s2v_refine(support_slices: Tensor, support_masks: Tensor, query_slices: Tensor, window: int = 2) -> Refine:
    """The s2v cleaning as `refine` of `propagate_chunks`.

    support_slices, support_masks (k H W): the drawn slice of each chunk; query_slices (z H W): the query's intensities.
    """

    def refine(teacher: Teacher, z: int, mask: Tensor) -> Tensor:
        if teacher.z is None or teacher.mask is None:
            return s2v(support_slices[teacher.chunk], query_slices[z], support_masks[teacher.chunk], mask, window)
        return s2v(query_slices[teacher.z], query_slices[z], teacher.mask, mask, window)

    return refine
