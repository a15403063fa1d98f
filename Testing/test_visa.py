from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from test_alpnet import dice, disc, features_of
from torch import Tensor

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.methods.visa import Teacher, Visa, VisaConfig, propagate_chunks, s2v_refine
from FewShotSegLib.strategies.chunks import chunk_of, pick_slices

FULL, EMPTY = torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)


class Recorder:
    """A segmenter that notes who taught whom; slices in `lost` come out empty when a query slice teaches them."""

    def __init__(self, lost: Sequence[int] = ()) -> None:
        self.lost = lost
        self.calls: list[tuple[int, int | None, int]] = []

    def __call__(self, teacher: Teacher, z: int) -> Tensor:
        self.calls.append((teacher.chunk, teacher.z, z))
        return EMPTY if z in self.lost and teacher.z is not None else FULL


def run(shown: Sequence[int], segment: Recorder, *, faithful: bool = False) -> dict[int, Tensor]:
    extent = (shown[0], shown[-1])
    return dict(
        propagate_chunks(extent, pick_slices(shown), lambda z: chunk_of(z, extent, clip=not faithful), segment, faithful=faithful)
    )


def test_order_of_the_published_propagation() -> None:
    recorder = Recorder()
    run(range(10, 20), recorder, faithful=True)  # chunks: 10-12, 13-15, 16-18, and 19 belongs to none
    pivots = [(0, None, 11), (1, None, 15), (2, None, 18)]
    handed_on = [(0, 11, 12), (0, 11, 10), (1, 15, 14), (1, 14, 13), (2, 18, 17), (2, 17, 16)]
    assert recorder.calls == pivots + handed_on


def test_by_default_the_last_slice_is_reached_too() -> None:
    recorder = Recorder()
    assert sorted(run(range(10, 20), recorder)) == list(range(10, 20))
    assert (2, 18, 19) in recorder.calls


@pytest.mark.parametrize("length", [*range(1, 60), 150, 301])
def test_every_slice_of_an_extent_is_reached(length: int) -> None:
    assert sorted(run(range(5, 5 + length), Recorder())) == list(range(5, 5 + length))


@pytest.mark.parametrize("shown", [[0, 20], [0, 1, 2, 30], [0, 28, 29, 30], [3, 10, 11, 12, 13, 40]])
def test_every_slice_is_reached_when_the_list_has_gaps(shown: list[int]) -> None:
    assert sorted(run(shown, Recorder())) == list(range(shown[0], shown[-1] + 1))


def test_after_an_empty_mask_the_drawn_slice_teaches() -> None:
    recorder = Recorder(lost=[14])
    found = run(range(10, 20), recorder)
    assert (1, None, 13) in recorder.calls
    assert (1, 14, 13) not in recorder.calls
    assert found[13].any()


def test_published_an_empty_mask_teaches_emptiness() -> None:
    recorder = Recorder(lost=[14])
    run(range(10, 20), recorder, faithful=True)
    assert (1, 14, 13) in recorder.calls


def test_all_but_the_pivots_are_refined() -> None:
    refined: list[int] = []

    def refine(_teacher: Teacher, z: int, mask: Tensor) -> Tensor:
        refined.append(z)
        return mask

    extent = (0, 8)
    dict(propagate_chunks(extent, (1, 4, 7), lambda z: chunk_of(z, extent), Recorder(), refine))
    assert sorted(refined) == [0, 2, 3, 5, 6, 8]


def test_masks_come_one_by_one() -> None:
    recorder = Recorder()
    visits = propagate_chunks((0, 8), (1, 4, 7), lambda z: chunk_of(z, (0, 8)), recorder)
    next(visits)
    assert len(recorder.calls) == 1


def test_the_head_follows_an_organ_that_wanders() -> None:
    masks = torch.stack([disc((40 + 4 * z, 64), 24) for z in range(12)])
    drawn = torch.stack([disc((50 + 16 * p, 60), 26) for p in range(3)])
    method, query, support = Visa(), features_of(masks, seed=3), features_of(drawn)
    learned_from_query = []

    def segment(teacher: Teacher, z: int) -> Tensor:
        if teacher.z is None or teacher.mask is None:
            memory = method.remember(support[teacher.chunk, None], drawn[teacher.chunk, None])
        else:
            learned_from_query.append(z)
            memory = method.remember(query[teacher.z, None], teacher.mask[None])
        return upsample(method.score(query[z, None], memory), (128, 128))[0].argmax(0).bool()

    found = dict(propagate_chunks((0, 11), pick_slices(range(12)), lambda z: chunk_of(z, (0, 11)), segment))
    assert len(learned_from_query) == 9
    assert min(dice(found[z].float(), masks[z]) for z in range(12)) > 0.85


def test_s2v_takes_the_teacher_for_its_source() -> None:
    mask = disc((32, 32), 12, size=64).bool()
    bright, dark = mask.float(), 1 - mask.float()
    refine = s2v_refine(bright[None], mask[None].float(), torch.stack([bright, dark]))
    assert torch.equal(refine(Teacher(0), 0, mask), mask)
    assert not refine(Teacher(0), 1, mask).any()  # the drawn organ is bright, here it is dark
    assert torch.equal(refine(Teacher(0, 1, mask), 1, mask), mask)  # taught by a slice on which it is dark


def test_options_of_the_head_are_checked() -> None:
    with pytest.raises(ConfigError, match="impossible"):
        VisaConfig(tau=1.0)
