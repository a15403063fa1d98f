"""A closer look at thin organs within a scan that is completed from a few drawn slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_closer import DISC, RING, SHAPE, heart
from tiny_encoder import TinyEncoder

from FewShotSegLib.organs import Organ
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig, Solved
from FewShotSegLib.support import Support

pytestmark = pytest.mark.usefixtures("small_and_steady")


def completed(closer: bool, drawn: dict[Organ, list[int]]) -> tuple[np.ndarray, np.ndarray, Solved]:
    """Labels found, true labels and how they were found, after the drawn slices of each organ."""
    image, truth = heart()
    organs = tuple(drawn)
    known = np.zeros((len(organs), SHAPE[0]), bool)
    for row, slices in zip(known, drawn.values(), strict=True):
        row[slices] = True
    masks = np.stack([truth == organ.label for organ in organs])
    support = Support(image, masks & known[:, :, None, None], organs, known)
    solved: list[Solved] = []
    config = SegmenterConfig(device="cpu", options={"closer": closer})
    found = Segmenter(config, encoder=TinyEncoder()).segment(support, image, inspect=solved.append)  # type: ignore[arg-type]
    return found.labels, truth, solved[0]


def dice(found: np.ndarray, truth: np.ndarray, organ: Organ, but: list[int]) -> float:
    """Of the slices that were not drawn."""
    rest = [z for z in range(SHAPE[0]) if z not in but]
    a, b = found[rest] == organ.label, truth[rest] == organ.label
    return 2 * float((a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("disc", [[2], [4]], ids=["drawn on the same slice", "drawn on another slice"])
def test_a_thin_ring_gains_and_the_drawing_stays(disc: list[int]) -> None:
    without, truth, _ = completed(False, {RING: [2], DISC: disc})
    closer, _, solved = completed(True, {RING: [2], DISC: disc})
    assert solved.answer.thin == (0,) and solved.answer.finer is not None
    gain = dice(closer, truth, RING, [2]) - dice(without, truth, RING, [2])
    assert gain > 0.05 and dice(closer, truth, RING, [2]) > 0.75
    assert dice(closer, truth, DISC, disc) > dice(without, truth, DISC, disc) - 0.02
    for found in (without, closer):
        assert np.array_equal(found[2] == RING.label, truth[2] == RING.label)


def test_the_finer_scores_stay_fractions_and_far_from_the_organ_those_of_the_cells() -> None:
    _, _, solved = completed(True, {RING: [2], DISC: [2]})
    answer = solved.answer
    assert answer.finer is not None and answer.settled is not None and answer.finer.shape == (6, 3, 32, 32)
    assert answer.finer.min() >= 0 and (answer.finer.sum(1) - 1).abs().max() < 1e-3
    coarse = torch.nn.functional.interpolate(answer.settled, scale_factor=2, mode="bilinear")
    assert torch.equal(answer.finer[:, :, :2], coarse[:, :, :2]), "two cells from the border of the image nothing is thin"
    drawn = torch.nn.functional.avg_pool2d(solved.supports[0].masks[:1, 2].float(), 4)[0]
    torch.testing.assert_close(answer.finer[2, 1][4:28, 2:24], drawn[4:28, 2:24], rtol=0, atol=1e-3)


def test_organs_that_are_not_thin_are_not_looked_at() -> None:
    without, _, _ = completed(False, {DISC: [2]})
    closer, _, solved = completed(True, {DISC: [2]})
    assert solved.answer.finer is None and np.array_equal(without, closer)
