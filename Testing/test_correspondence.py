"""Registration on fields whose deformation is known, and its parts against brute force."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from smooth_scans import CELL_MM, SLICE_MM, random_case, random_field, scan_of
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib import correspondence, windows
from FewShotSegLib.correspondence import (
    RegistrationConfig,
    ScanFeatures,
    axial_start,
    cell_positions,
    coarse_place,
    register,
)

SIZE = (10, 24, 24)
CONFIG = RegistrationConfig()


# ---------------------------------------------------------------------------------------------- parts of the registration
@pytest.mark.parametrize("size", [(2, 6, 6), (1, 7, 5)])
def test_half_the_resolution_keeps_unit_features_and_the_extent(size: tuple[int, int, int]) -> None:
    scan = scan_of(random_field(), size)
    half = scan.half()
    assert half.features.shape == (size[0], 32, -(-size[1] // 2), -(-size[2] // 2))
    assert half.body.shape == half.features[:, 0].shape
    assert (half.slice_mm, half.cell_mm) == (scan.slice_mm, 2 * scan.cell_mm)
    torch.testing.assert_close(half.features.norm(dim=1), torch.ones_like(half.body))
    torch.testing.assert_close(half.body[:, 0, 0], scan.body[:, :2, :2].mean((1, 2)))


def test_sigma_in_slices_and_cells() -> None:
    assert scan_of(random_field(), (1, 4, 4)).sigma(40.0).tolist() == [5.0, 4.0, 4.0]


def test_expected_positions_are_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    query, support, place, _ = random_case((2, 5, 5), (4, 6, 6))
    q, s = correspondence._flat(query), correspondence._flat(support)
    near, where, sigma = place.reshape(3, -1).T.contiguous(), cell_positions(4, 6, 6), torch.tensor([2.0, 3.0, 4.0])
    logit = 20 * (q @ s.T) - ((where - near[:, None]) / sigma).square().sum(2) / 2
    monkeypatch.setattr(correspondence, "CHUNK", 7)
    monkeypatch.setattr(correspondence, "fast_type", lambda device: torch.float32)
    expected, sharpness = correspondence._expected(q, near, s, where, sigma, 20.0)
    torch.testing.assert_close(expected, logit.softmax(1) @ where, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sharpness, logit.softmax(1).amax(1), rtol=1e-4, atol=1e-4)


PLACES = ((2.0, 2.0, 2.0), (-60.0, 2.0, 3.0), (2.0, 90.0, -40.0))


@pytest.mark.parametrize("at", PLACES)
def test_expected_positions_are_the_formula_in_bfloat16_too_and_for_places_outside(
    at: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    query, support, _, _ = random_case((2, 5, 5), (4, 6, 6))
    q, s = correspondence._flat(query), correspondence._flat(support)
    near, where, sigma = torch.tensor(at).expand(len(q), 3).contiguous(), cell_positions(4, 6, 6), torch.tensor([2.0, 3.0, 4.0])
    logit = 20 * (q @ s.T) - ((where - near[:, None]) / sigma).square().sum(2) / 2
    monkeypatch.setattr(correspondence, "fast_type", lambda device: torch.bfloat16)
    expected, _ = correspondence._expected(q, near, s, where, sigma, 20.0)
    torch.testing.assert_close(expected, logit.softmax(1) @ where, rtol=0, atol=0.1)


@pytest.mark.parametrize("slices", [3, -4, 0])
def test_the_axial_start_finds_a_known_offset(slices: int) -> None:
    field = random_field(length_mm=20.0)
    shifted = scan_of(field, (16, 16, 16), lambda mm: mm + torch.tensor([slices * SLICE_MM, 0.0, 0.0]))
    found = axial_start(shifted, scan_of(field, (16, 16, 16)), CONFIG)
    torch.testing.assert_close(found, torch.arange(16.0) + slices, rtol=0, atol=1.0)


def test_the_axial_start_knows_the_distance_between_slices() -> None:
    field = random_field(length_mm=20.0)
    thin = scan_of(field, (24, 16, 16), lambda mm: mm + torch.tensor([16.0, 0.0, 0.0]), slice_mm=4.0)
    found = axial_start(thin, scan_of(field, (16, 16, 16)), CONFIG)
    torch.testing.assert_close(found, torch.arange(24.0) / 2 + 2, rtol=0, atol=1.0)
    back = axial_start(scan_of(field, (16, 16, 16)), thin, CONFIG)
    torch.testing.assert_close(back[2:14], torch.arange(24.0)[::2], rtol=0, atol=2.0)


def test_the_axial_start_of_a_short_scan_that_is_moved_in_plane_and_looks_a_little_different() -> None:
    """A field of view of 12 slices within 40, five cells further; half of every feature is noise."""
    field = random_field(length_mm=20.0)
    short = scan_of(field, (12, 16, 16), lambda mm: mm + torch.tensor([22 * SLICE_MM, 5 * CELL_MM, -5 * CELL_MM]))
    noise = F.normalize(torch.randn(short.features.shape, generator=torch.Generator().manual_seed(1)), dim=1)
    strange = dataclasses.replace(short, features=F.normalize(short.features + noise, dim=1))
    found = axial_start(strange, scan_of(field, (40, 16, 16)), CONFIG)
    torch.testing.assert_close(found, torch.arange(12.0) + 22, rtol=0, atol=1.5)


def test_a_single_slice_starts_at_the_slice_that_looks_most_alike() -> None:
    field = random_field(length_mm=20.0)
    one = scan_of(field, (1, 16, 16), lambda mm: mm + torch.tensor([9 * SLICE_MM, 0.0, 0.0]))
    assert axial_start(one, scan_of(field, (16, 16, 16)), CONFIG).item() == pytest.approx(9, abs=1)


# ---------------------------------------------------------------------------------------------- registration
def errors(query: ScanFeatures, support: ScanFeatures, where: Callable[[Tensor], Tensor]) -> Tensor:
    """Distance in cells between found and true place, of the body's cells whose true place lies in the support's body."""
    n, _, h, w = query.features.shape
    mm = cell_positions(n, h, w) * torch.tensor([query.slice_mm, query.cell_mm, query.cell_mm])
    true = where(mm) / torch.tensor([support.slice_mm, support.cell_mm, support.cell_mm])
    off = (register(query, support).reshape(3, -1).T - true) * torch.tensor([support.slice_mm / support.cell_mm, 1.0, 1.0])
    last = torch.tensor([*support.body.shape]) - 2.0
    inside = (query.body.flatten() > 0) & ((true >= 1) & (true <= last)).all(1)
    assert inside.float().mean() > 0.3
    return off.norm(dim=1)[inside]


def bent(mm: Tensor) -> Tensor:
    """The right half lies up to 2 cells lower and a slice higher than the left."""
    part = torch.sigmoid((mm[:, 2:] - 12 * CELL_MM) / 20.0)
    return mm + part * torch.tensor([SLICE_MM, 2 * CELL_MM, 0.0])


CENTRE = torch.tensor([4.5 * SLICE_MM, 11.5 * CELL_MM, 11.5 * CELL_MM])
MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "same": lambda mm: mm,
    "shifted": lambda mm: mm + torch.tensor([0.0, 23.0, -31.0]),
    "shifted along the slices": lambda mm: mm + torch.tensor([2 * SLICE_MM, 10.0, 5.0]),
    "larger": lambda mm: (mm - CENTRE) * torch.tensor([1.0, 0.88, 0.85]) + CENTRE,
    "taller": lambda mm: (mm - CENTRE) * torch.tensor([1.2, 1.0, 1.1]) + CENTRE,
    "bent": bent,
}


@pytest.mark.parametrize("name", MAPS)
def test_registration_finds_a_known_map_within_a_cell(name: str) -> None:
    field = random_field()
    found = errors(scan_of(field, SIZE, MAPS[name]), scan_of(field, SIZE), MAPS[name])
    assert found.median() < 0.5
    assert found.quantile(0.95) < 1.0


def test_registration_between_grids_of_other_size_and_spacing() -> None:
    field = random_field()
    query = scan_of(field, (19, 21, 17), MAPS["shifted"], slice_mm=4.0, cell_mm=12.0)
    found = errors(query, scan_of(field, SIZE), MAPS["shifted"])
    assert found.quantile(0.9) < 1.0


def test_scans_of_one_slice_register() -> None:
    field = random_field()
    one = scan_of(field, (1, 24, 24), lambda mm: mm + torch.tensor([6 * SLICE_MM, 12.0, 0.0]))
    place = register(one, scan_of(field, SIZE))
    assert place.shape == (3, 1, 24, 24)
    assert place[0][one.body > 0].median().item() == pytest.approx(6, abs=1)
    assert torch.isfinite(register(scan_of(field, SIZE), one)).all()


def test_noise_is_borne() -> None:
    field, generator = random_field(), torch.Generator().manual_seed(0)
    query = scan_of(field, SIZE, MAPS["shifted"])
    noisy = query.features + 0.1 * torch.randn(query.features.shape, generator=generator)
    noisy = dataclasses.replace(query, features=torch.nn.functional.normalize(noisy, dim=1))
    assert errors(noisy, scan_of(field, SIZE), MAPS["shifted"]).median() < 0.7


def test_without_a_body_all_cells_count() -> None:
    field = random_field()
    query, support = scan_of(field, SIZE), scan_of(field, SIZE)
    place = coarse_place(
        dataclasses.replace(query, body=torch.zeros_like(query.body)).half(), support.half(), RegistrationConfig()
    )
    true = cell_positions(SIZE[0], 12, 12).T.reshape(3, SIZE[0], 12, 12)
    assert (place - true)[:, 2:-2, 2:-2, 2:-2].abs().median() < 0.5


def test_memory_does_not_grow_with_the_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest matrix is no larger for a scan four times as long, but for a few slices at its ends."""
    largest: list[int] = []

    class Watched(correspondence.Buffer):
        def __call__(self, *size: int) -> Tensor:
            largest[-1] = max(largest[-1], math.prod(size))
            return super().__call__(*size)

    monkeypatch.setattr(correspondence, "Buffer", Watched)
    monkeypatch.setattr(windows, "Buffer", Watched)
    config = RegistrationConfig(affine_mm=(60.0,), deform_mm=((40.0, 30.0),))
    for slices in (40, 160):
        largest.append(0)
        scan = scan_of(random_field(), (slices, 8, 8), slice_mm=20.0)
        register(scan, scan, config)
    assert largest[1] <= 1.1 * largest[0]


@pytest.mark.parametrize(("slice_mm", "asked"), [(5.0, (5, 3)), (10.0, (2, 1)), (30.0, (1, 1))])
def test_fine_rounds_ask_as_many_slices_as_the_smoothness_needs(
    monkeypatch: pytest.MonkeyPatch, slice_mm: float, asked: tuple[int, int]
) -> None:
    """Smoothing of 25 and of 16 mm: so many slices apart, and everything of these slices that is in the body."""
    torch.manual_seed(1)
    features = torch.nn.functional.normalize(torch.randn(11, 8, 8, 8), dim=1)
    scan = ScanFeatures(features, torch.ones(11, 8, 8), slice_mm, 10.0)
    seen: list[Tensor] = []
    attend = correspondence.attend
    monkeypatch.setattr(correspondence, "attend", lambda *given: (seen.append(given[-1]), attend(*given))[1])
    register(scan, scan)
    assert [wanted.flatten(1).all(1).nonzero()[:, 0].tolist() for wanted in seen] == [list(range(0, 11, s)) for s in asked]
    assert all(int(wanted.sum()) == 64 * len(range(0, 11, s)) for wanted, s in zip(seen, asked, strict=True))
