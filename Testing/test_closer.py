"""A closer look at thin organs: what counts as thin, where moved cells lie, and what it gains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder

from FewShotSegLib.geometry import Geometry
from FewShotSegLib.organs import Organ
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig, Solved
from FewShotSegLib.strategies.closer import WEAKEST, Crop, _moved, around_thin, give_way, thickness, weigh_background
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

SHAPE = (6, 128, 128)
RING, DISC = Organ("muscle", 1), Organ("disc", 2)


@pytest.mark.parametrize(("width", "expected"), [(1, 1.0), (2, 2.0), (4, 4.0)])
def test_thickness_of_a_long_bar_is_its_width(width: int, expected: float) -> None:
    cells = torch.zeros(2, 32, 40)
    cells[:, 10 : 10 + width, 2:38] = 1
    assert thickness(cells) == pytest.approx(expected, rel=0.12)
    assert thickness(torch.zeros(1, 8, 8)) == 0


def test_moved_cells_are_expected_between_their_neighbours_and_beyond_the_border() -> None:
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    place = torch.stack([torch.full((2, 5, 7), 3.0), rows.expand(2, -1, -1) + 1, columns.expand(2, -1, -1) - 2])
    moved = _moved(place, -0.25, 0.25)
    torch.testing.assert_close(moved - place, torch.tensor([0, -0.25, 0.25])[:, None, None, None].expand_as(place))


def test_the_crop_holds_what_may_be_there_with_context_and_stays_in_the_image() -> None:
    values = torch.zeros(4, 3, 32, 32)
    values[1:3, 2, 3, 20] = 0.1
    wanted = around_thin(values, [1])
    crop = Crop.around(wanted)
    assert crop is not None and crop.slices.tolist() == [1, 2]
    assert (crop.rows, crop.columns) == (slice(0, 12), slice(12, 29))
    assert crop.wanted.sum() == 2 * 25 and crop.wanted.shape == (2, 12, 17)
    image = torch.arange(256.0).expand(2, 256, -1)
    assert crop.pixels(image, -2, 2)[0, 0, :3].tolist() == [98, 99, 100]  # column 12 of the cells, two pixels further
    assert Crop.around(wanted & False) is None and not around_thin(values, [0]).any() and not around_thin(values, []).any()


def test_background_gives_way_until_as_many_cells_win_as_the_fractions_sum_to() -> None:
    """A vessel that covers 0.42 of each of 20 cells, and nothing wholly, beside an organ that is not thin."""
    vessel, organ = torch.zeros(2, 10, 12), torch.zeros(2, 10, 12)
    vessel[:, 3, :10], vessel[:, 4, :10] = 0.42, 0.3
    organ[:, 6:9] = 0.9
    organ[:, 3, 11] = 0.45
    scores = torch.stack([1 - vessel - organ, vessel, organ], 1)
    assert (scores.argmax(1) == 1).sum() == 0
    given = give_way(scores, [0])
    assert torch.equal(given[:, 1:], scores[:, 1:])
    assert (given.argmax(1) == 1).sum() == 20 >= vessel.sum() > 14
    assert torch.equal(given.argmax(1) == 2, scores.argmax(1) == 2)
    torch.testing.assert_close(give_way(scores, []), scores)
    thinner = torch.stack([1 - vessel / 3 - organ, vessel / 3, organ], 1)
    torch.testing.assert_close(give_way(thinner, [0])[:, 1].amax(), torch.tensor(0.4), rtol=0.01, atol=0)
    faint = torch.stack([1 - vessel / 100, vessel / 100], 1)
    torch.testing.assert_close(give_way(faint, [0])[:, 0].amin(), faint[:, 0].amin() / WEAKEST, rtol=0.01, atol=0)


def test_traces_of_an_organ_far_from_it_do_not_make_background_weaker() -> None:
    vessel = torch.zeros(40, 10, 12)
    vessel[:2, 3], vessel[:2, 4] = 0.42, 0.3
    clean, traces = (torch.stack([1 - v, v], 1) for v in (vessel, vessel.clamp(min=0.02)))
    assert traces[2:, 1].sum() > 4 * clean[:, 1].sum()
    given = give_way(traces, [0])
    assert torch.equal(given.argmax(1), give_way(clean, [0]).argmax(1)) and given[:, 0].amin() > clean[:, 0].amin() / 2


def test_background_weighs_less_but_not_beside_thin_organs() -> None:
    scores = torch.rand(2, 3, 8, 12)
    thin = torch.zeros(2, 4, 6, dtype=torch.bool)
    thin[1, 2, 3] = True
    weighed = weigh_background(scores, 0.8, thin)
    assert torch.equal(weighed[:, 1:], scores[:, 1:])
    as_before = torch.zeros(2, 8, 12, dtype=torch.bool)
    as_before[1, 4:6, 6:8] = True
    assert torch.equal(weighed[:, 0], torch.where(as_before, scores[:, 0], scores[:, 0] * 0.8))


def heart(shift: tuple[int, int] = (0, 0), seed: int = 0) -> tuple[Volume, np.ndarray]:
    """A ring five pixels wide around a bright pool, beside a disc; and its labels (z, y, x)."""
    rows, columns = np.indices(SHAPE[1:])
    away = np.hypot(rows - 60 - shift[0], columns - 50 - shift[1])
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, (away >= 18) & (away < 23)] = RING.label
    labels[:, np.hypot(rows - 64 - shift[0], columns - 96 - shift[1]) < 16] = DISC.label
    body = np.hypot(rows - 64, columns - 64) < 60
    image = 100 * body + 150 * (away < 18) - 60 * (labels == RING.label) + 60 * (labels == DISC.label)
    noise = np.random.default_rng(seed).normal(0, 2, SHAPE)
    return Volume((image + noise).astype(np.float32), Geometry((128, 128, 6), (2, 2, 8)), "heart", "MR"), labels


def dice_of_the_ring(closer: bool, organs: tuple[Organ, ...]) -> tuple[float, int]:
    """And how many batches were encoded."""
    (image, drawn), (query, truth) = heart(), heart((3, -2), 1)
    support = Support.create(image, np.stack([drawn == organ.label for organ in organs]), organs, slices="all")
    encoder = TinyEncoder()
    segmenter = Segmenter(SegmenterConfig(device="cpu", options={"closer": closer}), encoder=encoder)  # type: ignore[arg-type]
    found = segmenter.segment(support, query).labels
    first = organs[0].label
    return 2 * float(((found == first) & (truth == first)).sum() / ((found == first).sum() + (truth == first).sum())), len(
        encoder.batches
    )


@pytest.mark.usefixtures("small_and_steady")
def test_a_thin_ring_gains() -> None:
    (without, few), (closer, more) = (dice_of_the_ring(on, (RING, DISC)) for on in (False, True))
    assert closer > without + 0.1 and closer > 0.6
    assert more > few


@pytest.mark.usefixtures("small_and_steady")
def test_organs_that_are_not_thin_are_looked_at_once() -> None:
    (without, few), (closer, more) = (dice_of_the_ring(on, (DISC,)) for on in (False, True))
    assert (without, few) == (closer, more)


@pytest.mark.usefixtures("small_and_steady")
def test_the_finer_scores_stay_fractions_and_only_the_labels_are_decided_by_others() -> None:
    (image, drawn), (query, _) = heart(), heart((3, -2), 1)
    support = Support.create(image, np.stack([drawn == RING.label]), (RING,), slices="all")
    solved: list[Solved] = []
    Segmenter(SegmenterConfig(device="cpu"), encoder=TinyEncoder()).segment(support, query, inspect=solved.append)  # type: ignore[arg-type]
    answer = solved[0].answer
    assert answer.finer is not None and answer.thin == (0,)
    torch.testing.assert_close(answer.finer.sum(1), torch.ones_like(answer.finer[:, 0]), rtol=0, atol=1e-3)
    weighed = weigh_background(answer.finer, 0.8, around_thin(answer.carried.values, [0]))
    assert torch.equal(answer.deciding, give_way(weighed, [0])) and not torch.equal(answer.deciding, answer.finer)
