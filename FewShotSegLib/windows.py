"""Windowed attention: query cells gather values from the support cells around their places (dense_matching.md, section 3).

Tensors in, tensors out. Logits are kept in units of log 2, since powers of 2 are quicker than powers of e, and relative to
those of a similarity of `TYPICAL`: then neither powers nor sums overflow, and bfloat16 is most exact where it matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.devices import multiplies_bf16, timed

BLOCK = 8  # rows and columns of query cells that share a box of keys
GROUP = 8  # blocks that look at once, with boxes of one size
KEYS_AT_ONCE = 100_000  # in all their boxes: about 50 MB
LOG2E = math.log2(math.e)
TYPICAL = 0.875  # similarity of a good match
ALIGNED = 32  # columns
OUTSIDE = -1e4  # logit outside the window


@dataclass(frozen=True)
class Window:
    """Window of the attention: `sigma` and `radius` in cells in plane, `reach_mm` in z; sizes of a support cell in mm."""

    temperature: float
    sigma: float
    radius: int
    reach_mm: float
    slice_mm: float
    cell_mm: float

    @property
    def depth(self) -> int:
        """Slices to look at on either side."""
        return math.ceil(self.reach_mm / self.slice_mm)

    @property
    def sigmas(self) -> tuple[float, float, float]:
        """The Gaussian's sigma in slices, rows and columns."""
        return self.sigma * self.cell_mm / self.slice_mm, self.sigma, self.sigma

    @property
    def margins(self) -> tuple[float, float, float]:
        """How far it reaches from its centre, in slices, rows and columns."""
        return self.depth + 0.5, self.radius + 0.5, self.radius + 0.5


@dataclass(frozen=True)
class Attention:
    """What windowed attention found for every query cell."""

    values: Tensor  # (n, v, h, w): attention-weighted values
    best: Tensor  # (n, h, w): highest similarity (less the price of distance) in the window, -1 where it holds no key
    mass: Tensor  # (n, h, w): log of the summed weights, to join the answers of several supports
    place: Tensor  # (3, n, h, w): attention-weighted support position


def cell_positions(n: int, h: int, w: int, device: torch.device | str = "cpu") -> Tensor:
    """Positions (n*h*w, 3) of all cells as (slice, row, column)."""
    axes = [torch.arange(float(size), device=device) for size in (n, h, w)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


@cache
def fast_type(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor says, or a short probe shows, that its products are faster there, otherwise float32."""
    if device.type not in ("cpu", "cuda"):
        return torch.float32
    if (said := multiplies_bf16(device)) is not None:
        return torch.bfloat16 if said else torch.float32
    a, b = (torch.ones(256, 288, device=device) for _ in range(2))

    def seconds(kind: torch.dtype) -> float:
        x, y = a.to(kind), b.to(kind)

        def run() -> None:
            for _ in range(8):
                product = x @ y.T
            product[0, 0].item()

        return timed(run)

    try:
        return torch.bfloat16 if 2 * seconds(torch.bfloat16) < seconds(torch.float32) else torch.float32
    except RuntimeError:  # this device has no bfloat16
        return torch.float32


def centred(features: Tensor, temperature: float, kind: torch.dtype = torch.float32) -> Tensor:
    """Query features (..., c) as (..., c + 1): their product with keys (..., c) and a 1 is the logit of the similarity."""
    scale = temperature * LOG2E
    return _ended(scale * features, -scale * TYPICAL, kind)


def _ended(columns: Tensor, last: float, kind: torch.dtype) -> Tensor:
    """Columns (..., c) and a last one, in the precision `kind`: (..., c + 1)."""
    out = columns.new_empty((*columns.shape[:-1], columns.shape[-1] + 1), dtype=kind)
    out[..., :-1], out[..., -1] = columns, last
    return out


def aligned(columns: Tensor) -> Tensor:
    """Columns of zeros added, (..., c) -> (..., next multiple of ALIGNED): products of such matrices are up to a third faster."""
    return F.pad(columns, (0, -columns.shape[-1] % ALIGNED))


class Buffer:
    """Memory that is used again for matrices of changing size, like `like` in type: fresh pages cost more than the sums."""

    def __init__(self, like: Tensor) -> None:
        self._flat = like.new_empty(0)

    def __call__(self, *size: int) -> Tensor:
        """An uninitialised tensor of this size; the one before is overwritten."""
        if self._flat.numel() < math.prod(size):
            self._flat = self._flat.new_empty(math.prod(size) * 5 // 4)
        return self._flat[: math.prod(size)].view(size)


def attend(
    query: Tensor, support: Tensor, place: Tensor, values: Tensor | None, window: Window, wanted: Tensor | None = None
) -> Attention:
    """Every query cell (n, c, h, w) gathers `values` (m, v, hs, ws) of the support (m, c, hs, ws) around its place.

    Logit = temperature x similarity - squared distance from the place over 2 sigma^2 (z in in-plane cells); cells outside the
    window are out, or outside the window around the support's nearest cell, when the place lies outside the support.
    `values=None` gathers positions alone. Blocks without any `wanted` cell (n, h, w) are left out: they keep their place,
    with values 0 and mass -infinity.
    """
    n, _, h, w = query.shape
    m, _, hs, ws = support.shape
    kind = fast_type(query.device)
    near = blocks_of(place.permute(1, 2, 3, 0))
    asking = blocks_of(centred(query.permute(0, 2, 3, 1), window.temperature, kind))
    held = cell_positions(m, hs, ws, query.device)
    if values is not None:
        held = torch.cat([values.permute(0, 2, 3, 1).flatten(0, 2).to(held), held], 1)
    held = torch.cat([held, torch.ones_like(held[:, :1])], 1)
    gathered = torch.cat([near.new_zeros(*near.shape[:2], held.shape[1] - 4), near], 2)
    top, mass = near.new_full(near.shape[:2], -math.inf), near.new_full(near.shape[:2], -math.inf)
    look = Look(support.permute(0, 2, 3, 1), kind, window)
    for some in look.groups(near, wanted):
        gathered[some], top[some], mass[some] = look(asking[some], near[some], held)
    gathered, top, mass = (unblocked(x, (n, h, w)) for x in (gathered, top[..., None], mass[..., None]))
    gathered = gathered.permute(0, 3, 1, 2)
    best = (top[..., 0] / window.temperature).clamp(min=-1)
    return Attention(gathered[:, :-3], best, mass[..., 0], gathered[:, -3:].transpose(0, 1))


def blocks_of(cells: Tensor) -> Tensor:
    """(n, h, w, k) -> (blocks, BLOCK * BLOCK, k), the last rows and columns repeated where a block is not full."""
    for axis in (1, 2):
        if short := -cells.shape[axis] % BLOCK:
            last = cells.narrow(axis, cells.shape[axis] - 1, 1)
            cells = torch.cat([cells, *[last] * short], axis)
    return rearrange(cells, "n (y b) (x c) k -> (n y x) (b c) k", b=BLOCK, c=BLOCK)


def unblocked(blocks: Tensor, size: tuple[int, int, int]) -> Tensor:
    """The inverse of `blocks_of` for cells of this size (n, h, w)."""
    n, h, w = size
    x = -(-w // BLOCK)
    return rearrange(blocks, "(n y x) (b c) k -> n (y b) (x c) k", n=n, x=x, b=BLOCK)[:, :h, :w]


@lru_cache(maxsize=64)
def _places_in(size: tuple[int, int, int], width: int, device: torch.device, kind: torch.dtype) -> Tensor:
    """Where in a box of this `size` its keys lie: (keys, width), with a 1 at the place along each axis."""
    each = zip(cell_positions(*size, device=device).long().T, size, strict=True)
    marks = torch.cat([F.one_hot(at, length) for at, length in each], 1)
    return F.pad(marks, (0, width - sum(size))).to(kind)


class Look:
    """Blocks of query cells look into boxes of keys, all of the same size: features (m, h, w, c) in the precision `kind`."""

    def __init__(self, features: Tensor, kind: torch.dtype, window: Window) -> None:
        self.window = window
        self.keys = _ended(features, 1, kind).flatten(0, 2)
        self.size = torch.tensor(features.shape[:3], device=features.device)
        self.sigmas = torch.tensor(window.sigmas, device=features.device)
        kinds = {"keys": self.keys, "logits": self.keys, "held": features.float(), "weights": features.float()}
        self._memory = {name: Buffer(like) for name, like in kinds.items()}

    def groups(self, near: Tensor, wanted: Tensor | None) -> Iterator[Tensor]:
        """Indices of the blocks (b, cells, 3) with `wanted` cells (n, h, w), by as many as may look at once for their memory."""
        asked = torch.arange(len(near)) if wanted is None else blocks_of(wanted[..., None]).flatten(1).any(1).nonzero()[:, 0]
        for group in asked.split(GROUP) if len(asked) else ():
            yield from group.split(max(1, KEYS_AT_ONCE // math.prod(self._boxes(near[group])[1])))

    def __call__(self, asking: Tensor, near: Tensor, held: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Blocks (b, cells, c + 1), expected `near` (b, cells, 3), ask what the keys hold (keys, k), the last of it 1.

        Returns what was gathered, the highest logits, and the logs of the summed powers.
        """
        index, weights = self.weigh(asking, near)
        top = weights.amax(2).float()
        found = torch.bmm(self._memory["weights"](*weights.shape).copy_(weights), self._held(held, index))
        total = found[..., -1]
        beyond = ((near - self._nearest(near)) / self.sigmas).square().sum(2) / 2
        offset = self.window.temperature * TYPICAL - beyond
        return found[..., :-1] / total[..., None], top.log() + offset, total.log() + offset

    def weigh(self, asking: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """Which keys (b, keys) these blocks look at, and the weights (b, cells, keys), which the next call overwrites."""
        first, size = self._boxes(near)
        axes = [first[:, axis, None] + torch.arange(length, device=near.device) for axis, length in enumerate(size)]
        index = (
            (axes[0][:, :, None] * self.size[1] + axes[1][:, None])[..., None] * self.size[2] + axes[2][:, None, None]
        ).flatten(1)
        nearest = self._nearest(near)
        biases = [self._bias(near[..., axis, None], nearest[..., axis, None], axes[axis], axis) for axis in range(3)]
        return index, self._logits(torch.cat([asking, *biases], 2), index, size).exp2_()

    def _nearest(self, near: Tensor) -> Tensor:
        """Places inside the support that are nearest to these."""
        return near.clamp(min=0).minimum(self.size - 1)

    def _boxes(self, near: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
        """First cell (b, 3) of each block's box, and the size of all boxes."""
        nearest = self._nearest(near)
        margin = torch.tensor(self.window.margins, device=near.device)
        low = (nearest.amin(1) - margin).ceil().clamp(min=0).long()
        high = (nearest.amax(1) + margin).floor().minimum(self.size - 1).long()
        size = (high - low).amax(0) + 1
        slices, rows, columns = size.tolist()
        return low.minimum(self.size - size), (slices, rows, columns)

    def _logits(self, asking: Tensor, index: Tensor, size: tuple[int, int, int]) -> Tensor:
        """Similarities and biases (b, cells, keys) in one product: `asking` ends with the biases of places along each axis."""
        asking, known = aligned(asking), self.keys.shape[1]
        width = asking.shape[2]
        keys = self._memory["keys"](index.numel(), width)
        torch.index_select(self.keys, 0, index.flatten(), out=keys[:, :known])
        keys = keys.view(*index.shape, width)
        keys[..., known:] = _places_in(size, width - known, keys.device, keys.dtype)
        return torch.bmm(asking, keys.transpose(1, 2), out=self._memory["logits"](*asking.shape[:2], index.shape[1]))

    def _held(self, held: Tensor, index: Tensor) -> Tensor:
        """What the keys of `index` (b, keys) hold: (b, keys, k)."""
        out = self._memory["held"](index.numel(), held.shape[1])
        return torch.index_select(held, 0, index.flatten(), out=out).view(*index.shape, -1)

    def _bias(self, near: Tensor, nearest: Tensor, keys: Tensor, axis: int) -> Tensor:
        """One axis of the window around `near` (b, cells, 1), 0 at the support's `nearest` place: (b, cells, keys)."""
        distance = (keys[:, None] - near).square_() - (nearest - near).square_()
        bias = distance.mul_(-LOG2E / 2 / self.window.sigmas[axis] ** 2)
        return bias.masked_fill_((keys[:, None] - nearest).abs() > self.window.margins[axis], OUTSIDE).to(self.keys.dtype)
