from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder

from FewShotSegLib.devices import FeatureRunner
from FewShotSegLib.drawings import EncodedSupport, encode_support
from FewShotSegLib.encoding import cell_fractions
from FewShotSegLib.errors import SupportError
from FewShotSegLib.support import Organ, Slices, Support
from FewShotSegLib.volume import Geometry, Volume

RUNNER = FeatureRunner(TinyEncoder(), torch.device("cpu"), batch=16)
LIVER, SPLEEN, KIDNEY = Organ("liver", 1), Organ("spleen", 2), Organ("left kidney", 7)
SIZE, SPACING = (32, 24, 13), (4.0, 4.0, 2.0)
AXIAL = Geometry(SIZE, SPACING)
FEET_FIRST = Geometry(SIZE, SPACING, (0.0, 0.0, 24.0), (1, 0, 0, 0, 1, 0, 0, 0, -1))
CORONAL = Geometry(SIZE, SPACING, direction=(1, 0, 0, 0, 0, 1, 0, -1, 0))


def drawing(slices_of: dict[Organ, list[int]], geometry: Geometry = AXIAL, slices: Slices = "auto") -> Support:
    """Every organ a block of its own, larger from slice to slice, on some slices of a scan of noise."""
    image = np.random.default_rng(0).normal(100, 20, geometry.shape).astype(np.float32)
    masks = np.zeros((len(slices_of), *geometry.shape), bool)
    for number, drawn in enumerate(slices_of.values()):
        for z in drawn:
            masks[number, z, 4 : 6 + z, 8 * number : 8 * number + 8] = True
    return Support.create(Volume(image, geometry, modality="MR"), masks, list(slices_of), slices=slices)


def encode(support: Support, every_mm: float = 6.0) -> EncodedSupport:
    return encode_support(support, RUNNER, every_mm=every_mm, pixel_mm=4.0)


def test_a_whole_drawing_is_thinned_like_its_scan() -> None:
    encoded = encode(drawing({LIVER: list(range(2, 9))}))
    assert encoded.scan.slices.tolist() == [0, 3, 6, 9, 12]
    assert encoded.drawn.tolist() == [[True] * 5]
    assert encoded.masks.shape == (1, 5, 24, 32) and encoded.masks.dtype == torch.float16
    assert [int(m.sum()) for m in encoded.masks[0]] == [0, 8 * 5, 8 * 8, 0, 0]


@pytest.mark.parametrize("drawn", [[4], [1, 5, 11], [3]])
def test_drawn_slices_are_always_encoded(drawn: list[int]) -> None:
    support = drawing({LIVER: drawn})
    encoded = encode(support)
    assert encoded.scan.slices.tolist() == sorted({0, 3, 6, 9, 12, *drawn})
    assert encoded.scan.slices[encoded.drawn[0]].tolist() == drawn
    for z, mask in zip(encoded.scan.slices, encoded.masks[0], strict=True):
        assert np.array_equal(mask.numpy() > 0.5, support.masks[0, z])


def test_drawn_slices_of_a_scan_from_head_to_feet_are_found() -> None:
    support = drawing({LIVER: [2, 4]}, FEET_FIRST)
    encoded = encode(support)
    assert encoded.scan.slices[encoded.drawn[0]].tolist() == [8, 10]
    for index, own in ((8, 4), (10, 2)):
        mask = encoded.masks[0, encoded.scan.slices.tolist().index(index)]
        assert np.array_equal(mask.numpy() > 0.5, support.masks[0, own])


def test_one_sparse_organ_does_not_make_the_others_sparse() -> None:
    encoded = encode(drawing({LIVER: [4], SPLEEN: [5, 6, 7]}))
    assert encoded.scan.slices.tolist() == [0, 3, 4, 6, 9, 12]
    assert encoded.drawn.tolist() == [[False, False, True, False, False, False], [True] * 6]


def test_organs_that_share_their_slices_are_one_group() -> None:
    encoded = encode(drawing({LIVER: [4], SPLEEN: [4, 9], KIDNEY: [4]}))
    groups = [(organs, encoded.scan.slices[slices].tolist()) for organs, slices in encoded.groups()]
    assert groups == [([0, 2], [4]), ([1], [4, 9])]


def test_values_are_area_fractions_that_sum_to_one() -> None:
    encoded = encode(drawing({LIVER: list(range(13)), SPLEEN: list(range(13))}))
    values = encoded.values([0, 1])
    assert values.shape == (5, 3, 3, 4)
    torch.testing.assert_close(values[:, 1], cell_fractions(encoded.masks[0].float()))
    torch.testing.assert_close(values.sum(1), torch.ones(5, 3, 4))
    only = encoded.values([1])
    torch.testing.assert_close(only[:, 1], values[:, 2])
    torch.testing.assert_close(only.sum(1), torch.ones(5, 3, 4))


def test_overlapping_organs_leave_no_negative_background() -> None:
    support = drawing({LIVER: list(range(13)), SPLEEN: list(range(13))})
    both = Support.create(support.image, np.stack([support.masks[0]] * 2), [LIVER, SPLEEN])
    assert encode(both).values([0, 1])[:, 0].min() == 0


def test_single_slices_that_are_not_axial_are_refused() -> None:
    with pytest.raises(SupportError, match="not axial.*draw on axial slices"):
        encode(drawing({LIVER: [4]}, CORONAL))


def test_a_whole_drawing_needs_no_axial_slices() -> None:
    encoded = encode(drawing({LIVER: list(range(3, 9))}, CORONAL))
    assert encoded.scan.grid.shape[0] == CORONAL.size[1]
    assert encoded.drawn.all() and encoded.masks.sum() > 0


def test_slices_that_were_not_chosen_are_unknown() -> None:
    encoded = encode(drawing({LIVER: list(range(3, 9))}, slices=[5]))
    assert encoded.scan.slices[encoded.drawn[0]].tolist() == [5]
    assert encoded.masks[0].sum((1, 2)).bool().tolist() == encoded.drawn[0].tolist()
