"""Registration and windowed attention against brute force, and on fields whose deformation is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from smooth_scans import CELL_MM, SLICE_MM, random_field, scan_of
from torch import Tensor

from FewShotSegLib import correspondence
from FewShotSegLib.correspondence import (
    STRIP,
    RegistrationConfig,
    ScanFeatures,
    Window,
    attend,
    axial_start,
    cell_positions,
    coarse_place,
    register,
)

SIZE = (10, 24, 24)
WINDOW = Window(temperature=10.0, sigma=1.5, radius=2, reach_mm=9.0, slice_mm=5.0, cell_mm=8.0)


# ---------------------------------------------------------------------------------------------- windowed attention
def random_case(
    query: tuple[int, int, int], support: tuple[int, int, int], seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random features of query and support, places inside the support, and values."""
    g = torch.Generator().manual_seed(seed)
    (n, h, w), (m, hs, ws) = query, support
    features = [torch.nn.functional.normalize(torch.randn(k, 6, *s, generator=g), dim=1) for k, *s in (query, support)]
    place = torch.rand(3, n, h, w, generator=g) * (torch.tensor([m, hs, ws]) - 1)[:, None, None, None]
    place[0] = place[0, :, :1, :1] + 0.1 * place[0]  # the cells of a slice lie at about the same height
    return features[0], features[1], place, torch.rand(m, 3, hs, ws, generator=g)


def slices_of_strip(place: Tensor, row: int, window: Window) -> tuple[int, int]:
    """First and last slice that the strip around a row of one query slice looks into: place (3, h, w)."""
    z = place[0, row // STRIP * STRIP : (row // STRIP + 1) * STRIP]
    return round(float(z.min())) - window.depth, round(float(z.max())) + window.depth


def brute_force(query: Tensor, support: Tensor, place: Tensor, values: Tensor, window: Window) -> dict[str, Tensor]:
    """The formula of `attend`, one query cell after another over all cells of the support, in float64."""
    (n, _, h, w), (m, _, hs, ws) = query.shape, support.shape
    positions = cell_positions(m, hs, ws).double()
    keys, held = (
        support.permute(0, 2, 3, 1).reshape(m * hs * ws, -1).double(),
        values.permute(0, 2, 3, 1).reshape(m * hs * ws, -1),
    )
    sizes = torch.tensor([window.slice_mm / window.cell_mm, 1.0, 1.0])
    out = {"values": torch.empty(n, values.shape[1], h, w), "best": torch.empty(n, h, w), "mass": torch.empty(n, h, w)}
    out["place"] = torch.empty(3, n, h, w)
    for i, y, x in cell_positions(n, h, w).long().tolist():
        at = place[:, i, y, x].double()
        logit = window.temperature * (keys @ query[i, :, y, x].double())
        logit -= ((positions - at) * sizes).square().sum(1) / (2 * window.sigma**2)
        low, high = slices_of_strip(place[:, i], y, window)
        outside = (positions[:, 0] < low) | (positions[:, 0] > high)
        outside |= ((positions[:, 1:] - at[1:]).abs() > window.radius + 0.5).any(1)
        logit[outside] = -math.inf
        weight = logit.softmax(0)
        out["values"][i, :, y, x] = weight @ held.double()
        out["place"][:, i, y, x] = weight @ positions
        out["best"][i, y, x], out["mass"][i, y, x] = logit.max() / window.temperature, logit.logsumexp(0)
    return out


@pytest.mark.parametrize(
    ("query", "support"),
    [
        ((1, 1, 1), (1, 1, 1)),
        ((2, STRIP - 1, 5), (3, 5, 4)),
        ((2, STRIP, 6), (6, 7, 9)),
        ((3, STRIP + 1, 4), (2, 3, 8)),
        ((2, 2 * STRIP + 3, 3), (5, 12, 5)),
        ((1, 6, 6), (7, 6, 6)),
    ],
)
def test_attention_is_the_formula(query: tuple[int, int, int], support: tuple[int, int, int]) -> None:
    case = random_case(query, support)
    found, expected = attend(*case, WINDOW), brute_force(*case, WINDOW)
    for name, tensor in expected.items():
        torch.testing.assert_close(getattr(found, name), tensor, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    "change", [{"radius": 0}, {"radius": 9}, {"sigma": 0.5}, {"reach_mm": 0.0}, {"reach_mm": 99.0}, {"temperature": 50.0}]
)
def test_every_setting_of_the_window_counts(change: dict[str, float]) -> None:
    case, window = random_case((2, 6, 5), (7, 8, 7), seed=1), dataclasses.replace(WINDOW, **change)
    found, expected = attend(*case, window).values, brute_force(*case, window)["values"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - attend(*case, WINDOW).values).abs().max() > 1e-3


def test_the_window_is_cut_in_plane() -> None:
    """A key that equals the query cell is found just inside the window and not just outside."""
    query, support = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 9)
    query[0, 0], support[0, 1], support[0, :, 0, 6] = 1, 1, torch.tensor([1.0, 0.0])
    place = torch.tensor([0.0, 0.0, 3.6]).reshape(3, 1, 1, 1)
    window = Window(100.0, 50.0, 2, 0.0, 5.0, 8.0)
    assert attend(query, support, place, None, window).place[2].item() == pytest.approx(6, abs=1e-3)
    place[2] -= 0.2
    assert attend(query, support, place, None, window).place[2].item() < 6


def test_the_window_is_cut_along_the_slices() -> None:
    query, support = torch.ones(1, 1, 1, 1), torch.zeros(9, 1, 1, 1)
    support[6] = 1
    for reach, expected in ((10.0, 6.0), (9.9, 6.0), (5.0, 4.0)):  # 2, 2 and 1 slices of 5 mm on either side of slice 4
        place = torch.tensor([4.0, 0.0, 0.0]).reshape(3, 1, 1, 1)
        found = attend(query, support, place, None, Window(100.0, 50.0, 2, reach, 5.0, 8.0))
        assert found.place[0].item() == pytest.approx(expected, abs=1e-3)


def test_without_values_only_positions_are_gathered() -> None:
    query, support, place, values = random_case((2, 5, 5), (3, 6, 6))
    with_values, without = attend(query, support, place, values, WINDOW), attend(query, support, place, None, WINDOW)
    assert without.values.shape == (2, 0, 5, 5)
    torch.testing.assert_close(without.place, with_values.place)


def test_strips_without_a_wanted_cell_are_left_out() -> None:
    query, support, place, values = random_case((2, 2 * STRIP + 1, 5), (3, 6, 6))
    wanted = torch.zeros(2, 2 * STRIP + 1, 5, dtype=torch.bool)
    wanted[0, STRIP, 2] = wanted[1, 2 * STRIP, 4] = True
    asked = torch.zeros_like(wanted)
    asked[0, STRIP : 2 * STRIP] = asked[1, 2 * STRIP :] = True
    whole, found = attend(query, support, place, values, WINDOW), attend(query, support, place, values, WINDOW, wanted)
    for name in ("best", "mass"):
        assert torch.equal(getattr(found, name)[asked], getattr(whole, name)[asked])
    assert torch.equal(found.values * asked[:, None], whole.values * asked[:, None])
    assert (found.values * ~asked[:, None] == 0).all() and (found.best[~asked] == -1).all()
    assert (found.mass[~asked] == -math.inf).all()
    torch.testing.assert_close(found.place * ~asked, place * ~asked)


def test_where_the_window_holds_no_key_nothing_is_found() -> None:
    query, support, place, values = random_case((1, 5, 5), (3, 6, 6))
    place[1, :, 2:4] = 40.0
    found = attend(query, support, place, values, WINDOW)
    assert (found.best[:, 2:4] == -1).all() and (found.best[:, :2] > -1).all()
    assert found.mass[:, 2:4].max() < found.mass[:, :2].min() - 1000  # another support's answer always wins
    assert torch.isfinite(found.values).all()


# ---------------------------------------------------------------------------------------------- parts of the registration
def test_positions_run_over_columns_first() -> None:
    assert cell_positions(2, 2, 3)[:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]]
    assert cell_positions(2, 2, 3)[-1].tolist() == [1, 1, 2]


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
    expected, sharpness = correspondence._expected(q, near, s, where, sigma, 20.0)
    torch.testing.assert_close(expected, logit.softmax(1) @ where, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sharpness, logit.softmax(1).amax(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("slices", [3, -4, 0])
def test_the_axial_start_finds_a_known_offset(slices: int) -> None:
    field = random_field(length_mm=20.0)
    shifted = scan_of(field, (16, 16, 16), lambda mm: mm + torch.tensor([slices * SLICE_MM, 0.0, 0.0]))
    found = axial_start(shifted, scan_of(field, (16, 16, 16)))
    torch.testing.assert_close(found, torch.arange(16.0) + slices, rtol=0, atol=1.0)


def test_the_axial_start_knows_the_distance_between_slices() -> None:
    field = random_field(length_mm=20.0)
    thin = scan_of(field, (24, 16, 16), lambda mm: mm + torch.tensor([16.0, 0.0, 0.0]), slice_mm=4.0)
    found = axial_start(thin, scan_of(field, (16, 16, 16)))
    torch.testing.assert_close(found, torch.arange(24.0) / 2 + 2, rtol=0, atol=1.0)
    back = axial_start(scan_of(field, (16, 16, 16)), thin)
    torch.testing.assert_close(back[2:14], torch.arange(24.0)[::2], rtol=0, atol=2.0)


def test_a_single_slice_starts_at_the_slice_that_looks_most_alike() -> None:
    field = random_field(length_mm=20.0)
    one = scan_of(field, (1, 16, 16), lambda mm: mm + torch.tensor([9 * SLICE_MM, 0.0, 0.0]))
    assert axial_start(one, scan_of(field, (16, 16, 16))).item() == pytest.approx(9, abs=1)


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

    class Watched(correspondence._Buffer):
        def __call__(self, *size: int) -> Tensor:
            largest[-1] = max(largest[-1], math.prod(size))
            return super().__call__(*size)

    monkeypatch.setattr(correspondence, "_Buffer", Watched)
    config = RegistrationConfig(affine_mm=(60.0,), deform_mm=((40.0, 30.0),))
    for slices in (40, 160):
        largest.append(0)
        scan = scan_of(random_field(), (slices, 8, 8), slice_mm=20.0)
        register(scan, scan, config)
    assert largest[1] <= 1.1 * largest[0]
