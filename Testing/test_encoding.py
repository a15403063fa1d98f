from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder

from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.encoding import EncodedScan, cell_fractions, encode_scan, thinned
from FewShotSegLib.errors import VolumeError
from FewShotSegLib.grid import AxialGrid, normalise
from FewShotSegLib.volume import Geometry, Volume

RUNNER = FeatureRunner(TinyEncoder(), torch.device("cpu"), batch=4)
GEOMETRY = Geometry((40, 24, 11), (2.0, 2.0, 3.0))
FEET_FIRST = Geometry((40, 24, 11), (2.0, 2.0, 3.0), (0.0, 0.0, 30.0), (1, 0, 0, 0, 1, 0, 0, 0, -1))


def scan(geometry: Geometry = GEOMETRY, seed: int = 0) -> Volume:
    """Noise with a bright block in dark surroundings."""
    array = np.random.default_rng(seed).normal(0, 0.2, geometry.shape).astype(np.float32)
    array[:, 6:18, 10:30] += 20
    return Volume(array, geometry, "noise", "MR")


def encode(volume: Volume, every_mm: float = 3.0, **options: object) -> EncodedScan:
    return encode_scan(volume, RUNNER, every_mm=every_mm, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "slice_mm", "chosen"),
    [
        (4, 7.7, [0, 1, 2, 3]),
        (4, 3.4, [0, 1, 2, 3]),
        (7, 2.5, [0, 2, 4, 6]),
        (8, 2.0, [0, 2, 4, 6]),
        (11, 1.0, [0, 5, 10]),
        (1, 1.0, [0]),
    ],
)
def test_slices_are_thinned_to_about_the_wanted_distance(count: int, slice_mm: float, chosen: list[int]) -> None:
    assert thinned(count, slice_mm, 5.0).tolist() == chosen


def test_a_long_scan_has_few_encoded_slices() -> None:
    assert len(thinned(2000, 0.6, 5.0)) == 250


def test_cells_are_means_of_8_by_8_pixels() -> None:
    pixels = np.zeros((2, 3, 16, 24), bool)
    pixels[1, 2, 8:12, 16:24] = True
    cells = cell_fractions(pixels)
    assert cells.shape == (2, 3, 2, 3) and cells.dtype == torch.float32
    assert cells[1, 2, 1, 2] == 0.5 and cells.sum() == 0.5
    torch.testing.assert_close(cell_fractions(torch.full((16, 8), 0.25)), torch.full((2, 1), 0.25))


def test_the_chosen_slices_are_encoded_as_they_are_on_the_grid() -> None:
    volume = scan()
    encoded = encode(volume, every_mm=6.0)
    assert encoded.slices.tolist() == [0, 2, 4, 6, 8, 10]
    assert encoded.z_mm.tolist() == [0.0, 6.0, 12.0, 18.0, 24.0, 30.0]
    image = normalise(volume)
    pixels = torch.from_numpy(AxialGrid.of(GEOMETRY).forward(image, order=1, fill=float(image.min())))
    torch.testing.assert_close(encoded.features, torch.cat(list(RUNNER(pixels)))[::2], rtol=1e-4, atol=1e-4)


def test_the_body_is_what_is_bright() -> None:
    encoded = encode(scan())
    rows, columns = encoded.grid.shape[1] // 8, encoded.grid.shape[2] // 8
    assert encoded.body.shape == (11, rows, columns) and encoded.features.shape[2:] == (rows, columns)
    assert (encoded.body[:, rows // 2, columns // 2] == 1).all()
    assert (encoded.body[:, 0] == 0).all() and (encoded.body[:, :, 0] == 0).all()


def test_asked_for_slices_are_encoded_too_and_once() -> None:
    assert encode(scan(), every_mm=6.0, also=[3, 4, 9]).slices.tolist() == [0, 2, 3, 4, 6, 8, 9, 10]


def test_a_scan_from_feet_to_head_is_the_same_scan() -> None:
    volume = scan()
    turned = Volume(volume.array[::-1], FEET_FIRST, modality="MR")
    one, other = encode(volume, every_mm=6.0), encode(turned, every_mm=6.0)
    torch.testing.assert_close(one.features, other.features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.body, other.body)


def test_the_normalised_voxels_are_kept_for_the_borders() -> None:
    volume = scan()
    encoded = encode(volume)
    assert np.array_equal(encoded.image, normalise(volume))
    expected = encoded.grid.forward(encoded.image, order=1, fill=float(encoded.image.min()))
    assert np.array_equal(encoded.pixels(np.array([2, 7])), expected[[2, 7]])


def test_the_pixel_size_can_be_given() -> None:
    encoded = encode(scan(), pixel_mm=2.0)
    assert encoded.grid.shape == (11, 24, 40)
    assert encoded.features.shape == (11, 32, 3, 5)


def test_progress_is_told_after_every_batch() -> None:
    heard: list[float] = []
    encode(scan(), step=heard.append)
    assert heard == pytest.approx([4 / 11, 8 / 11, 1.0])


def test_regular_slices_for_the_registration() -> None:
    encoded = encode(scan(), every_mm=6.0, pixel_mm=2.0)
    regular = encoded.regular()
    assert (regular.slice_mm, regular.cell_mm) == (6.0, 16.0)
    assert regular.features is encoded.features and regular.body is encoded.body


@pytest.mark.parametrize("drawn", [1, 5, 9])
def test_a_drawn_slice_in_between_does_not_change_the_distance_of_the_others(drawn: int) -> None:
    assert encode(scan(), every_mm=6.0, also=[drawn]).regular().slice_mm == 6.0


def test_a_single_slice_has_its_own_thickness() -> None:
    one = Volume(scan().array[:1], Geometry((40, 24, 1), (2.0, 2.0, 3.0)), modality="MR")
    encoded = encode(one)
    assert encoded.slices.tolist() == [0] and encoded.regular().slice_mm == 3.0


def test_a_broken_scan_is_refused() -> None:
    volume = scan()
    volume.array[3, 4, 5] = np.nan
    with pytest.raises(VolumeError, match="NaN"):
        encode(volume)
