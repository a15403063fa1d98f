"""Windowed attention against brute force."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from smooth_scans import random_case
from torch import Tensor

from FewShotSegLib import windows
from FewShotSegLib.windows import BLOCK, Window, attend, cell_positions

WINDOW = Window(temperature=10.0, sigma=1.5, radius=2, reach_mm=9.0, slice_mm=5.0, cell_mm=8.0)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Products in float32; the test of bfloat16 asks for it."""
    monkeypatch.setattr(windows, "fast_type", lambda device: torch.float32)
    yield


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
        inside = at.clamp(min=0).minimum(torch.tensor([m, hs, ws]) - 1)
        outside = ((positions - inside).abs() > torch.tensor(window.margins)).any(1)
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
        ((2, BLOCK - 1, 5), (3, 5, 4)),
        ((2, BLOCK, 6), (6, 7, 9)),
        ((3, BLOCK + 1, 4), (2, 3, 8)),
        ((2, 2 * BLOCK + 3, 3), (5, 12, 5)),
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


def test_blocks_without_a_wanted_cell_are_left_out() -> None:
    query, support, place, values = random_case((2, 2 * BLOCK + 1, 5), (3, 6, 6))
    wanted = torch.zeros(2, 2 * BLOCK + 1, 5, dtype=torch.bool)
    wanted[0, BLOCK, 2] = wanted[1, 2 * BLOCK, 4] = True
    asked = torch.zeros_like(wanted)
    asked[0, BLOCK : 2 * BLOCK] = asked[1, 2 * BLOCK :] = True
    whole, found = attend(query, support, place, values, WINDOW), attend(query, support, place, values, WINDOW, wanted)
    for name in ("best", "mass", "values"):
        mask = asked if name != "values" else asked[:, None].expand_as(whole.values)
        torch.testing.assert_close(getattr(found, name)[mask], getattr(whole, name)[mask])
    assert (found.values * ~asked[:, None] == 0).all() and (found.best[~asked] == -1).all()
    assert (found.mass[~asked] == -math.inf).all()
    torch.testing.assert_close(found.place * ~asked, place * ~asked)


def test_bfloat16_gives_the_same_but_for_its_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    case, window = random_case((2, 9, 10), (7, 12, 11), seed=3), dataclasses.replace(WINDOW, temperature=40.0)
    exact = attend(*case, window)
    monkeypatch.setattr(windows, "fast_type", lambda device: torch.bfloat16)
    rounded = attend(*case, window)
    for name, tolerance in (("values", 0.04), ("place", 0.1), ("best", 0.02), ("mass", 0.5)):
        torch.testing.assert_close(getattr(rounded, name), getattr(exact, name), rtol=0, atol=tolerance)
    assert not torch.equal(rounded.values, exact.values)


def test_a_small_memory_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_case((2, 20, 20), (7, 24, 24), seed=4)
    whole = attend(*case, WINDOW)
    monkeypatch.setattr(windows, "KEYS_AT_ONCE", 1)
    torch.testing.assert_close(attend(*case, WINDOW).values, whole.values)


def test_a_place_outside_the_support_looks_at_its_nearest_cells_and_tells_so() -> None:
    query, support, place, values = random_case((1, 5, 5), (3, 6, 6))
    place[1, :, 2:4] = 40.0
    found = attend(query, support, place, values, WINDOW)
    assert (found.best[:, 2:4] == -1).all() and (found.best[:, [0, 1, 4]] > -1).all()
    assert found.mass[:, 2:4].max() < found.mass[:, :2].min() - 100  # another support's answer always wins
    assert torch.isfinite(found.values).all() and (found.place[1, :, 2:4] >= 3).all()


def test_positions_run_over_columns_first() -> None:
    assert cell_positions(2, 2, 3)[:4].tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 1, 0]]
    assert cell_positions(2, 2, 3)[-1].tolist() == [1, 1, 2]
