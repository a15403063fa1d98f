"""The grid of a scan in world coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.geometry import Geometry

TURNED = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
GEOMETRY = Geometry((4, 5, 6), (0.5, 1.0, 2.5), (-10.0, 20.0, 30.0), TURNED)


def test_numpy_shape_and_voxel_volume() -> None:
    assert GEOMETRY.shape == (6, 5, 4)
    assert GEOMETRY.voxel_ml == pytest.approx(0.00125)


def test_the_affine_is_itks() -> None:
    image = GEOMETRY.to_sitk(np.zeros(GEOMETRY.shape, np.int16))
    index = (3, 1, 2)
    assert (GEOMETRY.affine() @ (*index, 1))[:3] == pytest.approx(image.TransformIndexToPhysicalPoint(index))
    assert Geometry.of(image) == GEOMETRY


@pytest.mark.parametrize(("stored", "dtype"), [(np.bool_, np.uint8), (np.float16, np.float32), (np.int16, np.int16)])
def test_voxels_go_to_itk_in_a_type_it_knows(stored: type, dtype: type) -> None:
    array = np.random.default_rng(0).integers(0, 2, GEOMETRY.shape).astype(stored)
    back = sitk.GetArrayFromImage(GEOMETRY.to_sitk(array))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


def test_same_as_allows_the_rounding_of_headers_only() -> None:
    def moved(mm: float) -> Geometry:
        return Geometry(GEOMETRY.size, GEOMETRY.spacing, (-10.0 + mm, 20.0, 30.0), TURNED)

    assert GEOMETRY.same_as(moved(0.04))
    assert not GEOMETRY.same_as(moved(0.06))
    assert GEOMETRY.same_as(moved(0.06), tolerance_mm=0.1)
    assert not GEOMETRY.same_as(Geometry((4, 5, 7), GEOMETRY.spacing, GEOMETRY.origin, TURNED))


def test_same_as_sees_a_spacing_that_differs_far_from_the_origin() -> None:
    long = Geometry((512, 512, 100), (1.0, 1.0, 1.0))
    assert not long.same_as(Geometry((512, 512, 100), (1.001, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 5, 0), (1, 1, 1)), "at least one voxel"),
        (((4, 5, 6), (1, 1, -1)), "positive spacing"),
        (((4, 5, 6), (1, 1, float("nan"))), "positive spacing"),
        (((4, 5, 6), (1, 1, 1), (0, 0, float("inf"))), "finite"),
        (((4, 5), (1, 1), (0, 0), (1, 0, 0, 1)), "a 3D scan"),
        (((4, 5, 6), (1, 1, 1), (0, 0, 0), (1, 0.4, 0, 0, 0.9, 0, 0, 0, 1)), "not perpendicular"),
    ],
)
def test_impossible_grids_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        Geometry(*arguments)


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(VolumeError, match=r"\(4, 5, 6\).*\(6, 5, 4\)"):
        GEOMETRY.to_sitk(np.zeros((4, 5, 6)))
