"""The axial grid: the same anatomy from every way of storing it, and exactly back."""

from __future__ import annotations

import tracemalloc
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from FewShotSegLib.errors import ConfigError, VolumeError
from FewShotSegLib.grid import AxialGrid, normalise
from FewShotSegLib.volume import Geometry, Volume

CODES = ["".join(code) for axes in permutations(("LR", "PA", "SI")) for code in product(*axes)]
unhurried = settings(deadline=None, max_examples=60)
UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def unpadded(grid: AxialGrid, array: np.ndarray, rows: int, columns: int) -> np.ndarray:
    top, left = (grid.shape[1] - rows) // 2, (grid.shape[2] - columns) // 2
    return array[:, top : top + rows, left : left + columns]


@st.composite
def geometries(draw: st.DrawFn, isotropic: bool = False) -> Geometry:
    """Any size, spacing, place, rotation and handedness."""
    size = draw(st.tuples(*[st.integers(1, 11)] * 3))
    edge = draw(st.floats(0.3, 6))
    spacing = (edge,) * 3 if isotropic else draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    axes = Rotation.random(random_state=draw(st.integers(0, 2**32 - 1))).as_matrix() if draw(st.booleans()) else np.eye(3)
    axes = axes[:, list(draw(st.permutations(range(3))))] * draw(st.tuples(*[st.sampled_from((-1, 1))] * 3))
    return Geometry(size, spacing, draw(st.tuples(*[st.floats(-300, 300)] * 3)), tuple(axes.ravel()))


def world(geometry: Geometry) -> np.ndarray:
    """(3, z, y, x): LPS position of every voxel, mm."""
    k, j, i = np.indices(geometry.shape)
    return np.einsum("ab,bzyx->azyx", geometry.affine()[:3], np.stack([i, j, k, np.ones_like(i)]).astype(float))


def test_there_are_48_axis_orders() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("code", CODES)
def test_every_axis_order_gives_the_same_grid(code: str) -> None:
    """ITK's own reorientation makes the 48 copies, left-handed ones included."""
    voxels = np.random.default_rng(0).integers(1, 999, (3, 16, 24)).astype(np.int16)
    upright = Geometry((24, 16, 3), (1.25, 1.25, 5.0), (-7.0, 8.0, 9.0)).to_sitk(voxels)
    stored = sitk.DICOMOrient(upright, code)
    array = sitk.GetArrayFromImage(stored)
    grid = AxialGrid.of(Geometry.of(stored), pixel_mm=1.25)
    assert (grid.shape, grid.slice_mm) == ((3, 16, 24), 5.0)
    forward = grid.forward(array, order=0, fill=0)
    np.testing.assert_array_equal(forward, voxels)
    np.testing.assert_array_equal(grid.backward(forward, order=0), array)
    assert forward[-1, -1, -1] == voxels[-1, -1, -1], "the superior left posterior corner"


@given(geometry=geometries(isotropic=True), data=st.data())
@unhurried
def test_forward_and_backward_without_resampling_is_exact(geometry: Geometry, data: st.DataObject) -> None:
    grid = AxialGrid.of(geometry, pixel_mm=geometry.spacing[0])
    dtype = data.draw(st.sampled_from([np.uint8, np.int16, np.uint16, np.float32, np.bool_]))
    array = np.random.default_rng(0).integers(0, 200, geometry.shape).astype(dtype)
    for order in (0, 1):
        back = grid.backward(grid.forward(array, order=order, fill=0), order=order)
        np.testing.assert_array_equal(back, array)
        assert back.dtype == (np.float32 if order else dtype)


@given(geometry=geometries(isotropic=True))
@unhurried
def test_slices_rows_and_columns_run_to_superior_posterior_and_left(geometry: Geometry) -> None:
    """Also for any oblique grid: no step along an axis of the grid leads away from the direction it is named for."""
    grid = AxialGrid.of(geometry, pixel_mm=geometry.spacing[0])
    for axis, position in enumerate(world(geometry)[::-1]):
        placed = grid.forward(position, order=0, fill=np.nan)
        steps = np.diff(placed, axis=axis)
        assert (steps[np.isfinite(steps)] > -1e-9).all()


@given(geometry=geometries(isotropic=True), turn=st.floats(-40, 40), about=st.sampled_from("xyz"))
@unhurried
def test_axes_turned_by_less_than_45_degrees_are_still_recognised(geometry: Geometry, turn: float, about: str) -> None:
    upright = Geometry(geometry.size, geometry.spacing, geometry.origin, UPRIGHT)
    turned = Rotation.from_euler(about, turn, degrees=True).as_matrix()
    oblique = Geometry(geometry.size, geometry.spacing, geometry.origin, tuple(turned.ravel()))
    array = np.random.default_rng(0).random(geometry.shape)
    one, other = (AxialGrid.of(g, pixel_mm=g.spacing[0]).forward(array, order=0, fill=0) for g in (upright, oblique))
    np.testing.assert_array_equal(one, other)


@given(geometry=geometries(), pixel_mm=st.one_of(st.none(), st.floats(0.5, 4)))
@unhurried
def test_backward_always_lands_on_the_native_grid(geometry: Geometry, pixel_mm: float | None) -> None:
    grid = AxialGrid.of(geometry, pixel_mm=pixel_mm)
    assert grid.shape[1] % 8 == grid.shape[2] % 8 == 0
    scores = np.random.default_rng(0).random((2, *grid.shape), dtype=np.float32)
    for order in (0, 1):
        back = grid.backward(scores, order=order)
        assert (back.shape, back.dtype) == ((2, *geometry.shape), np.float32)
        assert 0 <= back.min() <= back.max() <= 1


@given(geometry=geometries(), pixel_mm=st.floats(0.5, 4))
@unhurried
def test_a_constant_stays_constant_and_only_the_padding_is_filled(geometry: Geometry, pixel_mm: float) -> None:
    grid = AxialGrid.of(geometry, pixel_mm=pixel_mm)
    result = grid.forward(np.full(geometry.shape, 7.0), order=1, fill=-1)
    kept = np.abs(result - 7) < 1e-4
    assert (kept | (result == -1)).all()
    rows, columns = kept.any((0, 2)).sum(), kept.any((0, 1)).sum()
    assert kept.sum() == grid.shape[0] * rows * columns
    np.testing.assert_array_equal(unpadded(grid, kept, rows, columns), True)
    assert max(grid.shape[1] - rows, grid.shape[2] - columns) < 8


@given(size=st.tuples(st.integers(150, 400), st.integers(150, 400)), edges=st.tuples(st.floats(0.6, 2), st.floats(0.6, 2)))
@unhurried
def test_a_blob_survives_resampling(size: tuple[int, int], edges: tuple[float, float]) -> None:
    geometry = Geometry((*size, 3), (*edges, 4.0), (0, 0, 0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    j, i = (np.arange(n) / n for n in size[::-1])
    blob = ((i[None] - 0.45) ** 2 + (j[:, None] - 0.6) ** 2 < 0.2**2)[None].repeat(3, 0)
    grid = AxialGrid.of(geometry)
    for back in (
        grid.backward(grid.forward(blob, order=0, fill=False), order=0),
        grid.backward(grid.forward_fraction(blob), order=1) > 0.5,
    ):
        assert 2 * (back & blob).sum() / (back.sum() + blob.sum()) > 0.97


def test_fractions_keep_area_and_place() -> None:
    geometry = Geometry((500, 400, 1), (0.7, 0.7, 3.0))
    mask = np.zeros(geometry.shape, bool)
    mask[0, 100:163, 300:347] = True
    grid = AxialGrid.of(geometry)
    fraction = grid.forward_fraction(mask)
    assert fraction.dtype == np.float32
    assert 0 <= fraction.min() <= fraction.max() <= 1 + 1e-6
    assert fraction.sum() * grid.pixel_mm**2 == pytest.approx(mask.sum() * 0.49, rel=0.01)
    content = unpadded(grid, fraction, 205, 256)[0]
    row = (content.sum(1) @ (np.arange(205) + 0.5)) / content.sum() / 205
    column = (content.sum(0) @ (np.arange(256) + 0.5)) / content.sum() / 256
    assert (row, column) == (pytest.approx(131.5 / 400, abs=5e-4), pytest.approx(323.5 / 500, abs=5e-4))


def test_256_pixels_over_the_longer_side_are_the_default() -> None:
    grid = AxialGrid.of(Geometry((512, 400, 20), (0.8, 0.8, 3.0)))
    assert (grid.pixel_mm, grid.slice_mm, grid.shape) == (pytest.approx(1.6), 3.0, (20, 200, 256))
    grid = AxialGrid.of(Geometry((92, 300, 200), (1.3, 1.0, 1.0), direction=(1, 0, 0, 0, 0, 1, 0, -1, 0)))
    assert (grid.pixel_mm, grid.slice_mm, grid.shape) == (pytest.approx(200 / 256), 1.0, (300, 256, 160))


def test_a_chaos_scan_is_taken_untouched(shared_dir: Path) -> None:
    volume = Volume.read(shared_dir / "data" / "chaos_t2" / "01_image.nii.gz")
    grid = AxialGrid.of(volume.geometry)
    assert (grid.pixel_mm, grid.shape) == (1.25, (37, 256, 256))
    forward = grid.forward(volume.array, order=1, fill=0)
    np.testing.assert_array_equal(forward, volume.array[:, ::-1])  # its rows run towards anterior
    np.testing.assert_array_equal(grid.backward(forward, order=1), volume.array)


def test_the_padding_is_centred_and_filled() -> None:
    grid = AxialGrid.of(Geometry((13, 10, 2), (1, 1, 1)), pixel_mm=1)
    result = grid.forward(np.ones((2, 10, 13)), order=1, fill=-5)
    assert result.shape == (2, 16, 16)
    assert (result[:, 3:13, 1:14] == 1).all()
    assert (result == -5).sum() == 2 * (256 - 130)


@pytest.mark.parametrize(("direction", "expected"), [(UPRIGHT, [0, 1, 2]), ((*UPRIGHT[:8], -1.0), [2, 1, 0])])
def test_native_slices_are_found_on_the_grid_and_back(direction: tuple[float, ...], expected: list[int]) -> None:
    geometry = Geometry((8, 8, 3), (1, 1, 4), (0, 0, 0), direction)
    grid = AxialGrid.of(geometry, pixel_mm=1)
    assert grid.native_slice_axis_is_axial
    assert [grid.slice_of_native(k) for k in range(3)] == expected
    assert [grid.native_of_slice(s) for s in expected] == [0, 1, 2]
    array = np.arange(3)[:, None, None] * np.ones((3, 8, 8))
    assert grid.forward(array, order=0, fill=0)[:, 0, 0].tolist() == expected
    with pytest.raises(VolumeError, match="Slice 3.*3 slices, 0 to 2"):
        grid.slice_of_native(3)


def test_slices_of_a_sagittal_scan_are_no_slices_of_the_grid() -> None:
    grid = AxialGrid.of(Geometry((8, 9, 5), (1, 1, 1.2), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0)))
    assert not grid.native_slice_axis_is_axial
    assert grid.slice_of_native(0) is grid.native_of_slice(0) is None
    assert (grid.shape[0], grid.slice_mm) == (9, 1)


SAGITTAL = (0, 0, 1, 1, 0, 0, 0, -1, 0)  # columns to posterior, rows to inferior, slices to the left
_u, _, _v = np.linalg.svd(np.reshape((0.68, 0.16, -0.71, 0.73, -0.10, 0.67, -0.04, 0.98, 0.19), (3, 3)))
SHORT_AXIS = tuple((_u @ _v).ravel())  # of a heart, as one scanner stored it (left-handed)


@pytest.mark.parametrize("direction", [SAGITTAL, SHORT_AXIS])
def test_thick_slices_stay_slices_in_any_plane(direction: tuple[float, ...]) -> None:
    grid = AxialGrid.of(Geometry((8, 16, 5), (1, 1, 4), (0, 0, 0), direction), pixel_mm=1)
    assert (grid.shape, grid.slice_mm) == ((5, 16, 8), 4)
    assert grid.native_slice_axis_is_axial


@pytest.mark.parametrize("flips", [(a, b, c) for a in (1, -1) for b in (1, -1) for c in (1, -1)])
def test_a_short_axis_scan_looks_the_same_however_it_is_stored_and_slightly_tilted(flips: tuple[int, int, int]) -> None:
    voxels = np.random.default_rng(0).random((5, 16, 16))
    axes = np.reshape(SHORT_AXIS, (3, 3))
    tilted = Rotation.from_euler("xyz", (6, -6, 6), degrees=True).as_matrix() @ axes
    seen = [
        AxialGrid.of(Geometry((16, 16, 5), (1, 1, 4), (0, 0, 0), tuple((matrix * flips).ravel())), pixel_mm=1).forward(
            voxels[:: flips[2], :: flips[1], :: flips[0]], order=0, fill=0
        )
        for matrix in (axes, tilted)
    ]
    plain = AxialGrid.of(Geometry((16, 16, 5), (1, 1, 4), (0, 0, 0), SHORT_AXIS), pixel_mm=1).forward(voxels, order=0, fill=0)
    for image in seen:
        np.testing.assert_array_equal(image, plain)


def test_arrays_of_another_grid_are_refused() -> None:
    grid = AxialGrid.of(Geometry((9, 10, 11), (1, 1, 1)), pixel_mm=1)
    with pytest.raises(VolumeError, match=r"\(9, 10, 11\).*\(11, 10, 9\)"):
        grid.forward(np.zeros((9, 10, 11)), order=0, fill=0)
    with pytest.raises(VolumeError, match=r"\(11, 10, 9\).*\(11, 16, 16\)"):
        grid.backward(np.zeros((11, 10, 9)), order=0)


@pytest.mark.parametrize("pixel_mm", [0.0, -1.0, float("nan")])
def test_impossible_pixels_are_refused(pixel_mm: float) -> None:
    with pytest.raises(ConfigError, match="pixel size"):
        AxialGrid.of(Geometry((9, 10, 11), (1, 1, 1)), pixel_mm=pixel_mm)


def test_long_scans_are_resampled_a_few_slices_at_a_time() -> None:
    geometry = Geometry((256, 256, 800), (1, 1, 1))
    array = np.zeros(geometry.shape, np.int16)
    grid = AxialGrid.of(geometry, pixel_mm=2)
    tracemalloc.start()
    result = grid.forward(array, order=1, fill=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - result.nbytes < 40e6 < array.size * 4


def scan(array: np.ndarray, modality: str) -> Volume:
    return Volume(array, Geometry(array.shape[::-1], (1, 1, 1)), "case", modality)


def test_mr_is_clipped_above_its_percentile_and_standardised() -> None:
    array = np.random.default_rng(0).normal(100, 20, (10, 32, 32))
    array[0, 0, 0] = 1e6
    before = array.copy()
    result = normalise(scan(array, "MR"))
    expected = np.minimum(array, np.percentile(array, 99.5))
    np.testing.assert_allclose(result, (expected - expected.mean()) / expected.std(), atol=1e-4)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("modality", ["CT", ""])
def test_ct_is_clipped_to_its_window_and_standardised(modality: str) -> None:
    array = np.random.default_rng(0).integers(-1000, 1000, (10, 32, 32)).astype(np.int16)
    expected = np.clip(array.astype(float), -125, 275)
    np.testing.assert_allclose(normalise(scan(array, modality)), (expected - expected.mean()) / expected.std(), atol=1e-4)


def test_large_offsets_do_not_cost_precision() -> None:
    array = 30000 + np.random.default_rng(0).integers(0, 50, (20, 64, 64)).astype(np.uint16)
    result = normalise(scan(array, "MR"))
    assert (result.mean(), result.std()) == (pytest.approx(0, abs=1e-4), pytest.approx(1, abs=1e-4))


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 2, 0), (2, 1, 0)])
def test_the_order_of_the_axes_changes_no_bit(order: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).gamma(2, 100, (10, 32, 40)).astype(np.float32)
    turned = np.ascontiguousarray(array.transpose(order)[:, ::-1])
    np.testing.assert_array_equal(normalise(scan(turned, "MR")), normalise(scan(array, "MR")).transpose(order)[:, ::-1])


def test_nan_and_infinite_voxels_are_counted() -> None:
    array = np.random.default_rng(0).random((2, 4, 5))
    array[0, 0, :2], array[1, 1, 1] = np.nan, np.inf
    with pytest.raises(VolumeError, match="3 of 40 voxels of case are NaN or infinite.*What to do"):
        normalise(scan(array, "MR"))


@pytest.mark.parametrize(
    ("array", "modality", "message"),
    [
        (np.full((2, 4, 5), 0.1), "MR", "same value below its 99.5th percentile"),
        (np.full((2, 4, 5), -1000), "CT", "same value between -125 and 275 HU"),
        (np.linspace(300, 900, 40).reshape(2, 4, 5), "CT", "same value between -125 and 275 HU"),
    ],
)
def test_a_scan_without_contrast_is_refused(array: np.ndarray, modality: str, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        normalise(scan(array, modality))
