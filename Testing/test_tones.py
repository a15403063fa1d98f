"""Thin organs and what they touch share their pixels by how bright they were drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_closer import DISC, RING, heart
from tiny_encoder import TinyEncoder

from FewShotSegLib.competition import NOISE
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig, Solved
from FewShotSegLib.support import Support
from FewShotSegLib.tones import LIMIT, TINY, WIDER, Tones
from FewShotSegLib.volume import Volume

TONES = Tones(np.array([-1.0, 1.0, 1.0]), np.array([0.1, 0.1, 0.1]), (0,))
"""Dark muscle (thin), a bright pool, and another bright organ."""


def fractions_and_image() -> tuple[np.ndarray, np.ndarray]:
    """Muscle in columns 20 to 25 of 64, the pool after it up to 40, another organ from 50 on; the pool's fractions go too far."""
    image = np.full((1, 24, 64), 0.3, np.float32)
    image[..., 20:26], image[..., 26:40], image[..., 50:] = -1, 1, 1
    fractions = np.zeros((4, *image.shape), np.float32)
    fractions[2, ..., 20:40], fractions[1, ..., 20:26] = 0.7, 0.3
    fractions[2, ..., 26:40], fractions[3, ..., 50:] = 1, 0.9
    fractions[0] = 1 - fractions[1:].sum(0)
    return fractions, image


def test_muscle_takes_back_what_is_as_dark_as_muscle() -> None:
    fractions, image = fractions_and_image()
    found = TONES.share(fractions, image)
    before, after = fractions.argmax(0), found.argmax(0)
    assert not (before == 1).any()
    assert (after[..., 20:26] == 1).all() and (after[..., 26:40] == 2).all() and (after[..., 50:] == 3).all()


def test_background_and_sums_stay_and_tones_say_only_so_much() -> None:
    fractions, image = fractions_and_image()
    found = TONES.share(fractions, image)
    assert np.array_equal(found[0], fractions[0])
    np.testing.assert_allclose(found.sum(0), fractions.sum(0), atol=1e-3)
    odds = (found[1] / found[2] / ((fractions[1] + TINY) / (fractions[2] + TINY)))[..., 20:26]
    assert np.log(odds).max() == pytest.approx(2 * LIMIT, abs=1.2) and np.log(odds).min() > 1


def test_far_from_thin_organs_nothing_changes() -> None:
    fractions, image = fractions_and_image()
    image[..., 50:] = -1  # as dark as muscle
    found = TONES.share(fractions, image)
    np.testing.assert_allclose(found[:, ..., 50:], fractions[:, ..., 50:], atol=2 * TINY)
    assert (found[1, ..., 20:26] > 0.5).all()


def solved(query: Volume, **options: object) -> Solved:
    image, drawn = heart()
    support = Support.create(image, np.stack([drawn == o.label for o in (RING, DISC)]), (RING, DISC), slices="all")
    got: list[Solved] = []
    segmenter = Segmenter(SegmenterConfig(device="cpu", options=options), encoder=TinyEncoder())  # type: ignore[arg-type]
    segmenter.segment(support, query, inspect=got.append)
    return got[0]


@pytest.mark.usefixtures("small_and_steady")
def test_tones_are_those_of_the_drawn_pixels() -> None:
    found = solved(heart((3, -2), 1)[0])
    tones = found.answer.tones
    assert tones is not None and tones.thin == (0,)
    for organ in (0, 1):
        support = found.supports[0]
        pixels = support.scan.pixels(support.scan.slices)[(support.masks[organ] > 0.5).numpy()]
        assert np.isclose(tones.level[organ], np.median(pixels))
        low, high = np.percentile(pixels, (25, 75))
        assert np.isclose(tones.variance[organ], (WIDER * (high - low) / 1.35) ** 2 + NOISE)
    assert tones.level[0] < tones.level[1]


@pytest.mark.usefixtures("small_and_steady")
def test_they_are_not_used_where_the_scan_contradicts_or_they_are_switched_off() -> None:
    query, _ = heart((3, -2), 1)
    found = solved(query)
    tones, scan, fractions = found.answer.tones, found.scan, found.answer.carried.values
    assert tones is not None and tones.hold_in(scan, fractions)
    swapped = fractions[:, [0, 2, 1]]  # the bright disc as the thin organ
    assert not tones.hold_in(scan, swapped)
    alike = Tones(np.array([0.1, 0.0]), np.array([0.5, 0.5]), (0,))  # no clear difference, nothing to contradict
    assert alike.hold_in(scan, swapped)
    for options in ({"tones": False}, {"compete": False}):
        assert solved(query, **options).answer.tones is None


@pytest.mark.usefixtures("small_and_steady")
def test_zones_that_are_alike_have_no_tones() -> None:
    found = solved(heart((3, -2), 1)[0])
    support = found.supports[0]
    ring = support.masks[0].clone()
    columns = torch.arange(ring.shape[-1]) < 50
    halves = torch.stack([ring * columns, ring * ~columns, support.masks[1]])  # as bright, with another organ that is brighter
    drawn = np.ones((3, support.drawn.shape[1]), bool)
    alike = type(support)(support.scan, halves[:2], drawn[:2])
    assert Tones.of([alike], (0, 1)) is None
    with_disc = Tones.of([type(support)(support.scan, halves, drawn)], (0, 1))
    assert with_disc is not None and with_disc.thin == (0, 1)
    assert with_disc.clear.tolist() == [[False, False, True], [False, False, True]]


@pytest.mark.usefixtures("small_and_steady")
def test_organs_that_are_not_thin_and_tiny_drawings_have_no_tones() -> None:
    found = solved(heart((3, -2), 1)[0])
    assert Tones.of(found.supports, ()) is None
    support = found.supports[0]
    masks = torch.zeros_like(support.masks)
    masks[:, 0, 0, :3] = 1
    assert Tones.of([type(support)(support.scan, masks, support.drawn)], (0,)) is None


@pytest.mark.usefixtures("small_and_steady")
def test_not_between_kinds_of_scans() -> None:
    query, _ = heart((3, -2), 1)
    ct = Volume(np.where(query.array < 20, -1000, query.array - 100), query.geometry, "heart", "CT")
    assert solved(ct).answer.tones is None
