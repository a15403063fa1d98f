"""Chunks: an organ's extent cut into thirds, each taught by one slice (SSL-ALPNet; alpnet_visa.md section 7).

Slices are counted along the axial axis; an extent is the first and the last slice of the organ, both included.
"""

from __future__ import annotations

from collections.abc import Sequence

from FewShotSegLib.errors import SupportError

CHUNKS = 3


def chunk_centres(chunks: int = CHUNKS) -> tuple[float, ...]:
    """Where in 0..1 each chunk's teacher lies: 1/6, 1/2, 5/6 for three chunks."""
    half = 1 / (2 * chunks)
    step = (1 - 1 / chunks) / max(chunks - 1, 1)
    return tuple(half + p * step for p in range(chunks))


def pick_slices(slices: Sequence[int], chunks: int = CHUNKS) -> tuple[int, ...]:
    """One slice per chunk out of the sorted slices that show the organ: L[int(c_p * len L)]; few slices repeat.

    Raises SupportError when there is none.
    """
    if not slices:
        raise SupportError("No slice shows this organ", "at least one", "draw the organ on a slice of the support")
    return tuple(slices[int(centre * len(slices))] for centre in chunk_centres(chunks))


def chunk_of(z: int, extent: tuple[int, int], chunks: int = CHUNKS, *, clip: bool = True) -> int:
    """The chunk in which slice z of the extent lies; slices outside belong to the nearest chunk.

    `clip=False` is VISA-FSS as published: the last slice, and all outside, get a chunk that no slice teaches (except where
    the floating-point division rounds down). An extent of one slice is chunk 0.
    """
    first, last = extent
    if first == last:
        return 0
    chunk = int((z - first) // ((last - first) / chunks))
    return min(max(chunk, 0), chunks - 1) if clip else chunk
