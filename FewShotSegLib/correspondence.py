"""Where each query cell lies in the support, found with the features themselves (dense_matching.md, section 2).

Tensors in, tensors out. A *cell* is one position of a feature map; a *place* (3, n, h, w) holds, for every query cell, its
expected support position (slice, row, column) in support cells. Everything that has a physical size is given in millimetres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.smoothing import weighted_smooth
from FewShotSegLib.windows import LOG2E, Attention, Buffer, Window, aligned, attend, cell_positions, centred, fast_type

__all__ = [
    "Attention",
    "RegistrationConfig",
    "ScanFeatures",
    "Window",
    "align_slices",
    "attend",
    "axial_start",
    "cell_positions",
    "register",
]

BODY = 0.05  # area fraction from which a cell counts as part of the body
START_CELLS = 1000  # of the query that are asked for where a scan begins
START_MM = 15.0  # distance between slices within which they agree about where a scan begins
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


def _positions_of(features: Tensor) -> Tensor:
    """Positions (n*h*w, 3) of the cells of features (n, c, h, w), where these are."""
    n, _, h, w = features.shape
    return cell_positions(n, h, w, features.device)


def _flat(features: Tensor) -> Tensor:
    """(n, c, h, w) -> (n*h*w, c)"""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])


# ---------------------------------------------------------------------------------------------- axial start
def axial_start(query: ScanFeatures, support: ScanFeatures, config: RegistrationConfig) -> Tensor:
    """Support slice (n,), fractional, of every query slice: the scale and offset on which the cells agree most.

    Some cells of the body look at all cells of the support, wherever these lie: a cell's attention on a slice is its vote.
    """
    table = _near_slices(_slice_votes(query, support, config), START_MM / support.slice_mm)
    place = align_slices(table.double().cpu().numpy(), query.slice_mm / support.slice_mm)
    return torch.as_tensor(place, dtype=torch.float32, device=query.features.device)


def align_slices(table: np.ndarray, ratio: float) -> np.ndarray:
    """Column (n,), fractional, for every row of a table (n, m) of how well they agree: the straight line with the most.

    `ratio`: columns that a row goes on, if the scans had the same size; up to a quarter more or less is tried.
    """
    n, m = table.shape
    z = np.arange(n, dtype=float)
    best, found = -math.inf, z * ratio
    for scale in (0.8, 0.9, 1.0, 1.1, 1.25):
        offset = -n * ratio * scale * 0.7
        while offset < 0.7 * m:
            at = z * ratio * scale + offset
            rows = (at.round() >= 0) & (at.round() < m)
            if rows.sum() >= max(1, 0.4 * min(n, m / ratio)):
                score = table[rows, at[rows].round().astype(int)].sum() / rows.sum() ** 0.75
                if score > best:
                    best, found = score, at
            offset += 0.5
    return found


def _slice_votes(query: ScanFeatures, support: ScanFeatures, config: RegistrationConfig) -> Tensor:
    """Attention (n, m) of the slices of the query on those of the support; 1 for each slice that has any body."""
    asking, answering = _inside_body(query), _inside_body(support)
    asking = asking[:: max(1, len(asking) // START_CELLS)]
    n, m = len(query.features), len(support.features)
    kind, cells = fast_type(query.features.device), _flat(query.features)
    keys = aligned(_flat(support.features)[answering].to(kind))
    held = F.one_hot(answering // (len(support.body.flatten()) // m), m).float()
    votes = torch.zeros(n, m, device=cells.device)
    for part in asking.split(CHUNK):
        share = (aligned(cells[part].to(kind)) @ keys.T).float().mul_(config.temperature).softmax(1)
        votes.index_add_(0, part // (len(query.body.flatten()) // n), share @ held)
    return votes / votes.sum(1, keepdim=True).clamp(min=1e-6)


def _near_slices(votes: Tensor, sigma: float) -> Tensor:
    """Votes (n, m) that count for the slices beside those that got them, too: a Gaussian of `sigma` slices."""
    at = torch.arange(votes.shape[1], dtype=votes.dtype, device=votes.device)
    return votes @ (-((at[:, None] - at) / sigma).square() / 2).exp()


# ---------------------------------------------------------------------------------------------- coarse place
def _expected(
    query: Tensor, near: Tensor, keys: Tensor, where: Tensor, sigma: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Expected key position (N, 3) of query cells (N, c) under a Gaussian window around `near`, and the sharpness (N,)."""
    kind, span = fast_type(query.device), where.amax(0)
    asking = aligned(torch.cat([centred(query, temperature), *_split(_window_asks(near, span, sigma), kind)], 1).to(kind))
    answer = _window_answers(where, sigma)
    keys = aligned(torch.cat([keys, torch.ones_like(keys[:, :1]), *_split(answer, kind, twice=True)], 1).to(kind))
    held = torch.cat([where, torch.ones_like(where[:, :1])], 1)
    found, top = near.new_empty(len(near), 4), near.new_empty(len(near))
    logits, weights = Buffer(keys), Buffer(held)
    for start in range(0, len(query), CHUNK):
        part = slice(start, start + CHUNK)
        run = _slices_within(where[:, 0], near[part, 0], 3 * float(sigma[0]))
        size = (len(near[part]), len(held[run]))
        torch.mm(asking[part], keys[run].T, out=logits(*size))
        weighed = logits(*size).exp2_()
        torch.mm(weights(*size).copy_(weighed), held[run], out=found[part])
        top[part] = weighed.amax(1).float()
    return found[:, :3] / found[:, 3:], top / found[:, 3]


def _window_asks(near: Tensor, span: Tensor, sigma: Tensor) -> Tensor:
    """What query cells expected at `near` (N, 3) multiply `_window_answers` with, in units of log 2: (N, 7).

    The product is the Gaussian window's exponent, less its value at the nearest place inside the support (0 .. `span`), so
    that it neither overflows nor vanishes for cells expected outside.
    """
    scaled = near / sigma
    offset = (scaled.square() - ((near - near.clamp(min=0).minimum(span)) / sigma).square()).sum(1, keepdim=True) / 2
    return torch.cat([scaled, torch.ones_like(scaled), -offset], 1) * LOG2E


def _window_answers(where: Tensor, sigma: Tensor) -> Tensor:
    """See `_window_asks`: (M, 7)."""
    scaled = where / sigma
    return torch.cat([scaled, -scaled.square() / 2, torch.ones_like(scaled[:, :1])], 1)


def _split(numbers: Tensor, kind: torch.dtype, *, twice: bool = False) -> list[Tensor]:
    """Numbers as sums of numbers of fewer digits, so that products of two such lists are as exact as those of float32.

    For (a, b, ...) and (c, d, ...) split as [a1, a1, a2] and [c1, c2, c1] (`twice`), the sum over a1 c1 + a1 c2 + a2 c1.
    """
    high = numbers.to(kind).to(numbers.dtype)
    low = numbers - high
    return [high, low, high] if twice else [high, high, low]


def _slices_within(z: Tensor, near: Tensor, reach: float) -> slice:
    """The run of keys, ordered by slice `z`, that lie within `reach` of some `near`; all keys when none does."""
    first, last = torch.searchsorted(z.contiguous(), torch.stack([near.min() - reach, near.max() + reach + 1e-3])).tolist()
    return slice(first, last) if last > first else slice(0, len(z))


def _fit_affine(cells: Tensor, place: Tensor, expected: Tensor, weight: Tensor, sigma: Tensor) -> Tensor:
    """Weighted affine map (4, 3) from query cells to expected places; far outliers count less (Cauchy weights)."""
    weight = weight / (1 + ((expected - place) / sigma).square().sum(1))
    design = torch.cat([cells, torch.ones_like(cells[:, :1])], 1) * weight[:, None]
    return torch.linalg.lstsq(design.double(), (expected * weight[:, None]).double()).solution.float()


def _apply_affine(cells: Tensor, affine: Tensor) -> Tensor:
    return torch.cat([cells, torch.ones_like(cells[:, :1])], 1) @ affine


def _start_place(query: ScanFeatures, support: ScanFeatures, cells: Tensor, config: RegistrationConfig) -> Tensor:
    """First guess: slices from `axial_start`, image centres on each other."""
    place = cells.clone()
    place[:, 0] = axial_start(query, support, config)[cells[:, 0].long()]
    for axis in (1, 2):
        size_q, size_s = query.features.shape[axis + 1], support.features.shape[axis + 1]
        place[:, axis] = ((cells[:, axis] + 0.5 - size_q / 2) * query.cell_mm / support.cell_mm) + size_s / 2 - 0.5
    return place


def coarse_place(query: ScanFeatures, support: ScanFeatures, config: RegistrationConfig) -> Tensor:
    """Place at half resolution from all-to-all similarities: a robust affine map, then a smooth deformation."""
    n, _, h, w = query.features.shape
    cells = _positions_of(query.features)
    answering = _inside_body(support)
    where = _positions_of(support.features)[answering]
    q, s = _flat(query.features), _flat(support.features)[answering]
    inside = _inside_body(query)
    body = query.body.flatten() + 1e-3
    place = _start_place(query, support, cells, config)
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


def _inside_body(scan: ScanFeatures) -> Tensor:
    """Indices of the cells that hold some of the body; of all cells where hardly any do."""
    body = scan.body.flatten()
    inside = torch.nonzero(body > 0.1)[:, 0]
    return inside if len(inside) >= 16 else torch.arange(len(body), device=body.device)


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
        asked = torch.zeros_like(query.inside)
        asked[:: max(1, int(smooth / query.slice_mm))] = True  # the displacement is smoother than the slices between them
        look = attend(
            query.features,
            support.features,
            place,
            None,
            Window(config.temperature, config.fine_sigma, config.fine_window, reach, support.slice_mm, support.cell_mm),
            query.inside & asked,
        )
        weight = query.body * look.best.clamp(min=0) ** 4
        place = place + weighted_smooth(look.place - place, weight, tuple(query.sigma(smooth).tolist()))
    return place
