"""Where each query cell lies in the support, found with the features themselves (dense_matching.md, sections 2 and 3).

Tensors in, tensors out. A *cell* is one position of a feature map; a *place* (3, n, h, w) holds, for every query cell, its
expected support position (slice, row, column) in support cells. Everything that has a physical size is given in millimetres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.smoothing import weighted_smooth

STRIP = 4  # rows of query cells that share their keys
LOG2E = math.log2(math.e)  # powers of 2 are far quicker than of e where they vanish, as outside a window they do
BODY = 0.05  # area fraction from which a cell counts as part of the body
CHUNK = 256  # query cells compared with all keys at once


@dataclass(frozen=True)
class ScanFeatures:
    """A scan on the network's grid: unit features (n, c, h, w), the body's area fraction (n, h, w), and sizes in mm."""

    features: Tensor
    body: Tensor
    slice_mm: float
    cell_mm: float

    @property
    def inside(self) -> Tensor:
        """Cells that hold some of the body, bool (n, h, w)."""
        return self.body > BODY

    def half(self) -> ScanFeatures:
        """The same scan at half the in-plane resolution (rounded up)."""
        features = F.normalize(F.avg_pool2d(self.features, 2, ceil_mode=True), dim=1)
        body = F.avg_pool2d(self.body[:, None], 2, ceil_mode=True)[:, 0]
        return ScanFeatures(features, body, self.slice_mm, 2 * self.cell_mm)

    def sigma(self, mm: float) -> Tensor:
        """A length in mm as (slices, rows, columns) of this scan."""
        return torch.tensor([mm / self.slice_mm, mm / self.cell_mm, mm / self.cell_mm], device=self.features.device)


@dataclass(frozen=True)
class RegistrationConfig:
    """Rounds of the registration; windows and smoothing widths are Gaussian sigmas in mm."""

    temperature: float = 40.0
    affine_mm: tuple[float, ...] = (90.0, 70.0, 50.0)
    deform_mm: tuple[tuple[float, float], ...] = ((50.0, 30.0), (35.0, 25.0), (25.0, 20.0))  # (window, smoothing)
    fine_mm: tuple[tuple[float, float], ...] = ((16.0, 25.0), (8.0, 16.0))  # (reach in z, smoothing)
    fine_sigma: float = 2.0  # cells
    fine_window: int = 3  # cells
    affine_samples: int = 3000


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


def _positions_of(features: Tensor) -> Tensor:
    """Positions (n*h*w, 3) of the cells of features (n, c, h, w), where these are."""
    n, _, h, w = features.shape
    return cell_positions(n, h, w, features.device)


def _flat(features: Tensor) -> Tensor:
    """(n, c, h, w) -> (n*h*w, c)"""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


# ---------------------------------------------------------------------------------------------- axial start
def axial_start(query: ScanFeatures, support: ScanFeatures) -> Tensor:
    """Support slice (n,), fractional, of every query slice: the scale and offset under which whole slices look most alike.

    Slices are compared by 4x4-pooled features; the similarity is centred over both axes, so that only what tells slices
    apart counts.
    """
    q, s = (F.normalize(F.adaptive_avg_pool2d(x.features, 4), dim=1).flatten(1) / 4 for x in (query, support))
    similarity = (q @ s.T).double()
    for axis in (0, 1):
        if similarity.shape[axis] > 1:  # a single slice has nothing to be told apart from
            similarity = similarity - similarity.mean(axis, keepdim=True)
    table = similarity.cpu().numpy()
    z = torch.arange(len(q), dtype=torch.float64).numpy()
    ratio = query.slice_mm / support.slice_mm
    best, found = -math.inf, z * ratio
    for scale in (0.8, 0.9, 1.0, 1.1, 1.25):
        offset = -len(q) * ratio * scale * 0.7
        while offset < 0.7 * len(s):
            at = z * ratio * scale + offset
            rows = (at.round() >= 0) & (at.round() < len(s))
            if rows.sum() >= max(1, 0.4 * min(len(q), len(s) / ratio)):
                score = table[rows, at[rows].round().astype(int)].sum() / rows.sum() ** 0.75
                if score > best:
                    best, found = score, at
            offset += 0.5
    return torch.as_tensor(found, dtype=torch.float32, device=query.features.device)


# ---------------------------------------------------------------------------------------------- coarse place
def _expected(
    query: Tensor, near: Tensor, keys: Tensor, where: Tensor, sigma: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Expected key position (N, 3) of query cells (N, c) under a Gaussian window around `near`, and the sharpness (N,)."""
    place, sharpness = torch.empty_like(near), torch.empty(len(near), device=near.device)
    scaled = where / sigma
    norm = scaled.square().sum(1) / 2
    similar, logits = _Buffer(query), _Buffer(near)
    for start in range(0, len(query), CHUNK):
        part = slice(start, start + CHUNK)
        run = _slices_within(where[:, 0], near[part, 0], 3 * float(sigma[0]))
        size = (len(near[part]), len(norm[run]))
        weights = logits(*size).copy_(torch.mm(query[part], keys[run].T, out=similar(*size))).mul_(temperature)
        weights.addmm_(near[part] / sigma, scaled[run].T).sub_(norm[run]).mul_(LOG2E)
        total = _weigh(weights)
        place[part] = (weights @ where[run]) / total[:, None]
        sharpness[part] = 1 / total  # the highest weight: its exponential is 1
    return place, sharpness


def _slices_within(z: Tensor, near: Tensor, reach: float) -> slice:
    """The run of keys, ordered by slice `z`, that lie within `reach` of some `near`; all keys when none does."""
    first, last = torch.searchsorted(z.contiguous(), torch.stack([near.min() - reach, near.max() + reach + 1e-3])).tolist()
    return slice(first, last) if last > first else slice(0, len(z))


def _weigh(logits: Tensor) -> Tensor:
    """Turn logits (N, M) in units of log 2, in place, into powers of 2 whose largest is 1 per row; returns their sums."""
    return logits.sub_(logits.amax(1, keepdim=True)).exp2_().sum(1)


class _Buffer:
    """Memory that is used again for matrices of changing size, like `like` in type: fresh pages cost more than the sums."""

    def __init__(self, like: Tensor) -> None:
        self._flat = like.new_empty(0)

    def __call__(self, *size: int) -> Tensor:
        """An uninitialised tensor of this size; the one before is overwritten."""
        if self._flat.numel() < math.prod(size):
            self._flat = self._flat.new_empty(math.prod(size) * 5 // 4)
        return self._flat[: math.prod(size)].view(size)


def _fit_affine(cells: Tensor, place: Tensor, expected: Tensor, weight: Tensor, sigma: Tensor) -> Tensor:
    """Weighted affine map (4, 3) from query cells to expected places; far outliers count less (Cauchy weights)."""
    weight = weight / (1 + ((expected - place) / sigma).square().sum(1))
    design = torch.cat([cells, torch.ones_like(cells[:, :1])], 1) * weight[:, None]
    return torch.linalg.lstsq(design.double(), (expected * weight[:, None]).double()).solution.float()


def _apply_affine(cells: Tensor, affine: Tensor) -> Tensor:
    return torch.cat([cells, torch.ones_like(cells[:, :1])], 1) @ affine


def _start_place(query: ScanFeatures, support: ScanFeatures, cells: Tensor) -> Tensor:
    """First guess: slices from `axial_start`, image centres on each other."""
    place = cells.clone()
    place[:, 0] = axial_start(query, support)[cells[:, 0].long()]
    for axis in (1, 2):
        size_q, size_s = query.features.shape[axis + 1], support.features.shape[axis + 1]
        place[:, axis] = ((cells[:, axis] + 0.5 - size_q / 2) * query.cell_mm / support.cell_mm) + size_s / 2 - 0.5
    return place


def coarse_place(query: ScanFeatures, support: ScanFeatures, config: RegistrationConfig) -> Tensor:
    """Place at half resolution from all-to-all similarities: a robust affine map, then a smooth deformation."""
    n, _, h, w = query.features.shape
    cells = _positions_of(query.features)
    where = _positions_of(support.features)
    q, s = _flat(query.features).bfloat16(), _flat(support.features).bfloat16()
    inside = torch.nonzero(query.body.flatten() > 0.1)[:, 0]
    if len(inside) < 16:
        inside = torch.arange(len(cells), device=cells.device)
    body = query.body.flatten() + 1e-3
    place = _start_place(query, support, cells)
    some = inside[:: max(1, len(inside) // config.affine_samples)]
    for mm in config.affine_mm:
        sigma = support.sigma(mm)
        expected, sharp = _expected(q[some], place[some], s, where, sigma, config.temperature)
        place = _apply_affine(cells, _fit_affine(cells[some], place[some], expected, body[some] * sharp, sigma))
    for mm, smooth in config.deform_mm:
        expected, sharp = _expected(q[inside], place[inside], s, where, support.sigma(mm), config.temperature)
        shift, weight = torch.zeros_like(place), torch.zeros(len(place), device=place.device)
        shift[inside], weight[inside] = expected - place[inside], body[inside] * sharp
        place = place + _smooth_shift(shift.T.reshape(3, n, h, w), weight.reshape(n, h, w), query, smooth).reshape(3, -1).T
    return place.T.reshape(3, n, h, w)


def _smooth_shift(shift: Tensor, weight: Tensor, query: ScanFeatures, mm: float) -> Tensor:
    return weighted_smooth(shift, weight, tuple(query.sigma(mm).tolist()), floor=1e-6)


def _double(place: Tensor, size: torch.Size) -> Tensor:
    """A place between half-resolution cells as a place between full-resolution cells, cut to `size` (rows, columns)."""
    place = F.interpolate(place, scale_factor=2, mode="bilinear")[..., : size[0], : size[1]].contiguous()
    place[1:] = place[1:] * 2 + 0.5
    return place


def register(query: ScanFeatures, support: ScanFeatures, config: RegistrationConfig = RegistrationConfig()) -> Tensor:
    """Place (3, n, h, w) of every query cell in the support: coarse place, then windowed matches at full resolution."""
    place = _double(coarse_place(query.half(), support.half(), config), query.features.shape[2:])
    for reach, smooth in config.fine_mm:
        look = attend(
            query.features,
            support.features,
            place,
            None,
            Window(config.temperature, config.fine_sigma, config.fine_window, reach, support.slice_mm, support.cell_mm),
            query.inside,
        )
        weight = query.body * look.best.clamp(min=0) ** 4
        place = place + weighted_smooth(look.place - place, weight, tuple(query.sigma(smooth).tolist()))
    return place


# ---------------------------------------------------------------------------------------------- windowed attention
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


def attend(
    query: Tensor, support: Tensor, place: Tensor, values: Tensor | None, window: Window, wanted: Tensor | None = None
) -> Attention:
    """Every query cell (n, c, h, w) gathers `values` (m, v, hs, ws) of the support (m, c, hs, ws) around its place.

    Logit = temperature x similarity - squared distance from the place over 2 sigma^2 (z in in-plane cells); cells outside the
    window are out, where the cells of a strip share their slices. `values=None` gathers positions alone. Strips of rows without
    any `wanted` cell (n, h, w) are left out: they keep their place, with values 0 and mass -infinity.
    """
    n, _, h, w = query.shape
    positions = _positions_of(support).reshape(-1, *support.shape[2:], 3)
    held = positions if values is None else torch.cat([values.permute(0, 2, 3, 1), positions], -1)
    keys = _with_position(support.permute(0, 2, 3, 1), positions, window)
    near = place.permute(1, 2, 3, 0)
    asking = _asking(query.permute(0, 2, 3, 1), near, window)
    gathered = torch.cat([query.new_zeros(n, h, w, held.shape[-1] - 3), near], -1)
    top, mass, buffer = near.new_full((n, h, w), -math.inf), near.new_full((n, h, w), -math.inf), _Buffer(query)
    for i in range(n):
        for rows in (slice(y, min(y + STRIP, h)) for y in range(0, h, STRIP)):
            if wanted is not None and not wanted[i, rows].any():
                continue
            at = near[i, rows].reshape(-1, 3)
            found = _attend_strip(asking[i, rows].flatten(0, 1), at, keys, held, window, buffer)
            for target, part in zip((gathered, top, mass), found, strict=True):
                target[i, rows] = part.reshape(target[i, rows].shape)
    offset = (_scaled(near, window).square().sum(-1) / 2).neg_()
    best = ((top + offset) / window.temperature).clamp(min=-1)
    gathered = gathered.permute(0, 3, 1, 2)
    return Attention(gathered[:, :-3], best, mass + offset, gathered[:, -3:].transpose(0, 1))


def _scaled(positions: Tensor, window: Window) -> Tensor:
    """Positions (..., 3) in units of the window's sigma."""
    units = [window.slice_mm / window.cell_mm / window.sigma, 1 / window.sigma, 1 / window.sigma]
    return positions * torch.tensor(units, device=positions.device)


def _with_position(features: Tensor, positions: Tensor, window: Window) -> Tensor:
    """Keys (..., c + 4) whose product with `_asking` is the logit, but for a term that all keys of a query cell share."""
    scaled = _scaled(positions, window)
    return torch.cat([features, scaled, -scaled.square().sum(-1, keepdim=True) / 2], -1).contiguous()


def _asking(features: Tensor, near: Tensor, window: Window) -> Tensor:
    """Query cells (..., c + 4), expected at `near` (..., 3), in units of log 2: see `_with_position`."""
    scaled = _scaled(near, window)
    return torch.cat([window.temperature * features, scaled, torch.ones_like(scaled[..., :1])], -1).mul_(LOG2E)


def _attend_strip(
    asking: Tensor, at: Tensor, keys: Tensor, held: Tensor, window: Window, buffer: _Buffer
) -> tuple[Tensor, Tensor, Tensor]:
    """A strip of query cells (b, c + 4), expected `at` (b, 3), looks into whole rows of the slices around.

    Returns gathered values (b, v), the highest logit (b,) and the log of the summed exponentials (b,).
    """
    z = _range(round(float(at[:, 0].min())), round(float(at[:, 0].max())), window.depth, len(keys))
    y = _range(float(at[:, 1].min()), float(at[:, 1].max()), window.radius + 0.5, keys.shape[1])
    part = keys[slice(*z), slice(*y)].flatten(1, 2)
    logits = buffer(len(part), len(asking), part.shape[1])
    torch.bmm(asking.expand(len(part), -1, -1), part.transpose(1, 2), out=logits)
    logits += _outside(at, y, keys.shape[2], window)
    top = logits.amax((0, 2))
    total = logits.sub_(top[:, None]).exp2_().sum((0, 2))
    values = torch.bmm(logits, held[slice(*z), slice(*y)].flatten(1, 2)).sum(0)
    return values / total[:, None], top / LOG2E, (top + total.log2()) / LOG2E


def _outside(at: Tensor, rows: tuple[int, int], width: int, window: Window) -> Tensor:
    """0 inside the window around `at` (b, 3), a large negative number outside: (b, rows * width)."""
    far_y = (torch.arange(*rows, device=at.device) - at[:, 1:2]).abs() > window.radius + 0.5
    far_x = (torch.arange(width, device=at.device) - at[:, 2:]).abs() > window.radius + 0.5
    return (far_y[:, :, None] | far_x[:, None, :]).flatten(1).float().mul_(-1e4)


def _range(low: float, high: float, margin: float, size: int) -> tuple[int, int]:
    """Half-open index range of `low - margin .. high + margin`, inside 0..size and never empty."""
    first = min(max(math.ceil(low - margin), 0), size - 1)
    last = min(max(math.floor(high + margin), 0), size - 1)
    return first, max(last, first) + 1
