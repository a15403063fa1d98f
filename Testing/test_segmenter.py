"""The job from drawings and scan to labels, on small phantoms and with an encoder that costs nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage
from tiny_encoder import TinyEncoder

from FewShotSegLib import strategies
from FewShotSegLib.cards import Card
from FewShotSegLib.encoders import create_encoder
from FewShotSegLib.errors import Cancelled, CheckpointError, ConfigError, SupportError, VolumeError
from FewShotSegLib.kinds import warnings_about
from FewShotSegLib.methods.match import Carried
from FewShotSegLib.phantom import ORGANS, Phantom, make_patient
from FewShotSegLib.progress import Progress
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig, is_same_scan
from FewShotSegLib.strategies import Answer
from FewShotSegLib.support import Organ, Slices, Support
from FewShotSegLib.volume import Geometry, Volume

pytestmark = pytest.mark.usefixtures("small_and_steady")
SHAPE = (8, 48, 48)
LIVER, RIGHT, LEFT, SPLEEN = ORGANS
BIG = (LIVER, SPLEEN)
ONE_LOOK = {"closer": False}  # on so few pixels the spleen counts as thin


@pytest.fixture(scope="module")
def patient() -> Phantom:
    return make_patient(0, shape=SHAPE)


@pytest.fixture(scope="module")
def query(patient: Phantom) -> Volume:
    """The same body a little later: moved by a voxel, brighter, with other noise."""
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    return Volume(
        (np.roll(patient.volume.array, (1, -1), (1, 2)) * 1.1 + noise).astype(np.float32), patient.volume.geometry, "later", "MR"
    )


@pytest.fixture(scope="module")
def truth(patient: Phantom) -> np.ndarray:
    return np.roll(patient.labels, (1, -1), (1, 2))


def support_of(phantom: Phantom, organs: tuple[Organ, ...] = BIG, slices: Slices = "all") -> Support:
    return Support.create(phantom.volume, np.stack([phantom.labels == o.label for o in organs]), organs, slices=slices)


@pytest.fixture(scope="module")
def support(patient: Phantom) -> Support:
    return support_of(patient)


@pytest.fixture(scope="module")
def result(support: Support, query: Volume) -> Segmentation:
    return segmenter(probabilities=True).segment(support, query)


def segmenter(card: Card | None = None, **options: object) -> Segmenter:
    return Segmenter(SegmenterConfig(device="cpu", **options), encoder=TinyEncoder(), card=card)  # type: ignore[arg-type]


def encoded_slices(of: Segmenter) -> int:
    return sum(of.runner.encoder.batches)  # type: ignore[arg-type]


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


# ---------------------------------------------------------------------------------------------- a new scan
def test_organs_are_found_in_a_new_scan(result: Segmentation, query: Volume, truth: np.ndarray) -> None:
    assert result.geometry is query.geometry and result.organs == BIG and result.name == "later"
    assert result.labels.dtype == np.uint8 and set(np.unique(result.labels)) == {0, LIVER.label, SPLEEN.label}
    assert dice(result.mask(LIVER), truth == LIVER.label) > 0.8
    assert dice(result.mask(SPLEEN), truth == SPLEEN.label) > 0.5
    assert (result.confidence > 0.3).all() and result.notes == () and result.seconds > 0


def test_probabilities_belong_to_the_labels(result: Segmentation) -> None:
    found = result.probabilities
    assert found is not None and found.shape == (2, *SHAPE) and found.dtype == np.float16
    assert found.min() >= 0 and found.max() <= 1 and found.astype(float).sum(0).max() < 1.01
    for number, organ in enumerate(BIG):
        assert found[number][result.mask(organ)].min() > 0.3
        assert (found[number][result.mask(organ)] >= found[1 - number][result.mask(organ)]).all()


def test_each_organ_is_one_piece_unless_all_are_wanted(monkeypatch: pytest.MonkeyPatch, support: Support, query: Volume) -> None:
    scores = torch.zeros(8, 3, 16, 16)
    scores[:, 0] = 0.5
    scores[2:5, 1, 3:7, 3:7] = scores[2:4, 1, 10:12, 10:12] = scores[1:3, 2, 3:6, 9:14] = 1
    carried = Carried(scores, torch.ones(8, 16, 16))
    monkeypatch.setattr(strategies, "answer", lambda *args: Answer(scores, False, carried))
    some, everything = (segmenter(largest_only=only, refine=False).segment(support, query) for only in (True, False))
    assert [ndimage.label(everything.mask(organ))[1] for organ in BIG] == [2, 1]
    assert [ndimage.label(some.mask(organ))[1] for organ in BIG] == [1, 1]
    pieces, _ = ndimage.label(everything.mask(LIVER))
    assert np.array_equal(some.mask(LIVER), pieces == np.bincount(pieces[pieces > 0]).argmax())
    assert np.array_equal(some.mask(SPLEEN), everything.mask(SPLEEN))


def test_an_organ_drawn_in_two_pieces_is_found_in_two(monkeypatch: pytest.MonkeyPatch, patient: Phantom, query: Volume) -> None:
    kidneys = Organ("kidneys", 9)
    mask = np.isin(patient.labels, [RIGHT.label, LEFT.label])
    scores = torch.zeros(8, 2, 16, 16)
    scores[:, 0] = 0.5
    scores[2:5, 1, 3:7, 3:7] = scores[2:4, 1, 10:12, 10:12] = scores[6, 1, 3, 12] = 1
    carried = Carried(scores, torch.ones(8, 16, 16))
    monkeypatch.setattr(strategies, "answer", lambda *args: Answer(scores, False, carried))
    found = segmenter(refine=False).segment(Support.create(patient.volume, mask[None], [kidneys], slices="all"), query)
    assert ndimage.label(mask)[1] == 2 and ndimage.label(found.mask(kidneys))[1] == 2


def test_refinement_moves_the_borders_and_can_be_left_out(result: Segmentation, support: Support, query: Volume) -> None:
    plain = segmenter(refine=False).segment(support, query)
    changed = plain.labels != result.labels
    border = ndimage.binary_dilation(plain.labels > 0, iterations=3) & ~ndimage.binary_erosion(plain.labels > 0, iterations=3)
    assert changed.any() and not (changed & ~border).any()


def test_the_same_call_gives_the_same_answer(result: Segmentation, support: Support, query: Volume) -> None:
    before = query.array.copy()
    assert np.array_equal(segmenter().segment(support, query).labels, result.labels)
    assert np.array_equal(query.array, before)


def test_four_organs_do_not_get_in_each_others_way(patient: Phantom, query: Volume, truth: np.ndarray) -> None:
    found = segmenter().segment(support_of(patient, ORGANS), query)
    assert set(np.unique(found.labels)) <= {0, *(o.label for o in ORGANS)}
    assert dice(found.mask(LIVER), truth == LIVER.label) > 0.8
    assert [name for name, ml in found.volumes_ml().items() if ml > 0] != []


def test_labels_above_255_keep_their_numbers(patient: Phantom, query: Volume, result: Segmentation) -> None:
    far = dataclasses.replace(LIVER, label=700)
    masks = np.stack([patient.labels == o.label for o in BIG])
    found = segmenter().segment(Support.create(patient.volume, masks, [far, SPLEEN], slices="all"), query)
    assert found.labels.dtype == np.uint16
    assert np.array_equal(found.labels == 700, result.mask(LIVER))


# ---------------------------------------------------------------------------------------------- geometry of the query
def rotated(image: sitk.Image, degrees: float) -> sitk.Image:
    """The same voxels, turned a little in the patient."""
    turn = sitk.Euler3DTransform((0, 0, 0), np.radians(degrees), np.radians(degrees / 2), np.radians(-degrees))
    direction = np.array(turn.GetMatrix()).reshape(3, 3) @ np.array(image.GetDirection()).reshape(3, 3)
    copy = sitk.Image(image)
    copy.SetDirection(direction.ravel().tolist())
    copy.SetOrigin(turn.TransformPoint(image.GetOrigin()))
    return copy


CHANGES = {
    "head to feet": lambda image: sitk.Flip(image, (False, False, True)),
    "all axes flipped": lambda image: sitk.Flip(image, (True, True, True)),
    "left-handed": lambda image: sitk.Flip(image, (False, True, False)),
    "sagittal": lambda image: sitk.PermuteAxes(image, (1, 2, 0)),
    "coronal, flipped": lambda image: sitk.Flip(sitk.PermuteAxes(image, (0, 2, 1)), (True, False, True)),
    "oblique": lambda image: rotated(image, 12),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_order_and_direction_of_the_voxels_do_not_matter(
    name: str, result: Segmentation, support: Support, query: Volume
) -> None:
    """The same scan with other axes gets the same labels at the same places, voxel for voxel."""
    changed = CHANGES[name](query.geometry.to_sitk(query.array))
    volume = Volume(sitk.GetArrayFromImage(changed), Geometry.of(changed), modality="MR")
    found = segmenter().segment(support, volume)
    assert found.geometry is volume.geometry and found.labels.shape == volume.array.shape
    expected = sitk.GetArrayFromImage(CHANGES[name](query.geometry.to_sitk(result.labels)))
    assert np.array_equal(found.labels, expected)


def test_a_support_with_other_axes_teaches_the_same(result: Segmentation, support: Support, query: Volume) -> None:
    def change(array: np.ndarray) -> sitk.Image:
        return CHANGES["coronal, flipped"](support.image.geometry.to_sitk(array))

    image = change(support.image.array)
    masks = np.stack([sitk.GetArrayFromImage(change(m.astype(np.uint8))) for m in support.masks])
    turned = Support.create(Volume(sitk.GetArrayFromImage(image), Geometry.of(image), modality="MR"), masks, BIG, slices="all")
    assert np.array_equal(segmenter().segment(turned, query).labels, result.labels)


def test_a_query_of_another_size_and_spacing(support: Support) -> None:
    finer = make_patient(0, shape=(15, 60, 80))
    found = segmenter().segment(support, finer.volume)
    assert found.labels.shape == (15, 60, 80)
    assert dice(found.mask(LIVER), finer.labels == LIVER.label) > 0.7


def test_a_query_of_one_slice(support: Support, query: Volume, truth: np.ndarray) -> None:
    """Not wrong, only poorer: one slice says little about where it lies."""
    z = int((truth == LIVER.label).sum((1, 2)).argmax())
    geometry = dataclasses.replace(query.geometry, size=(*query.geometry.size[:2], 1))
    found = segmenter().segment(support, Volume(query.array[z : z + 1], geometry, modality="MR"))
    assert found.labels.shape == (1, *SHAPE[1:])
    assert dice(found.mask(LIVER)[0], truth[z] == LIVER.label) > 0.5


def test_a_broken_query_is_refused(support: Support, query: Volume) -> None:
    for array, said in ((np.full(SHAPE, np.nan, np.float32), "NaN"), (np.ones(SHAPE, np.float32), "same value")):
        with pytest.raises(VolumeError, match=said):
            segmenter().segment(support, Volume(array, query.geometry, modality="MR"))


# ---------------------------------------------------------------------------------------------- supports
def test_several_supports_answer_together(support: Support, query: Volume, truth: np.ndarray) -> None:
    second = support_of(make_patient(3, shape=SHAPE))
    both = segmenter().segment([support, second], query)
    alone = segmenter().segment(second, query)
    assert dice(both.mask(LIVER), truth == LIVER.label) > max(0.75, dice(alone.mask(LIVER), truth == LIVER.label))


def test_a_few_drawn_slices_serve_a_new_scan(patient: Phantom, query: Volume, truth: np.ndarray) -> None:
    z = int((patient.labels == LIVER.label).sum((1, 2)).argmax())
    found = segmenter().segment(support_of(patient, (LIVER,), [z]), query)
    assert dice(found.mask(LIVER), truth == LIVER.label) > 0.6


def test_supports_of_different_organs_are_refused(patient: Phantom, query: Volume) -> None:
    with pytest.raises(SupportError, match="liver, spleen; liver"):
        segmenter().segment([support_of(patient), support_of(patient, (LIVER,))], query)
    with pytest.raises(SupportError, match="No support"):
        segmenter().segment([], query)


def test_a_support_is_encoded_once(support: Support, query: Volume) -> None:
    worker = segmenter(options=ONE_LOOK)
    first = worker.segment(support, query)
    assert encoded_slices(worker) == 16
    heard: list[Progress] = []
    again = worker.segment(support, query, progress=heard.append)
    assert encoded_slices(worker) == 24
    assert np.array_equal(first.labels, again.labels)
    assert {p.stage for p in heard} == {"encoding the scan", "finding the organs"}
    assert heard[0].fraction < 0.7  # what is already done is not counted as done now


def test_an_equal_support_that_is_another_object_is_encoded_anew(patient: Phantom, query: Volume) -> None:
    worker = segmenter(options=ONE_LOOK)
    worker.segment(support_of(patient), query)
    worker.segment(support_of(patient), query)
    assert encoded_slices(worker) == 32


def test_one_more_support_leaves_the_others_encoded(support: Support, query: Volume) -> None:
    worker, second = segmenter(options=ONE_LOOK), support_of(make_patient(1, shape=SHAPE))
    worker.segment(support, query)
    worker.segment([support, second], query)
    assert encoded_slices(worker) == 16 + 16
    worker.segment([support, second], query)
    assert encoded_slices(worker) == 32 + 8


# ---------------------------------------------------------------------------------------------- the same scan
@pytest.mark.parametrize("drawn", [[4], [3, 5]])
@pytest.mark.parametrize("options", [ONE_LOOK, {}], ids=["one look", "closer"])
def test_in_the_same_scan_drawn_slices_stay_as_drawn(patient: Phantom, drawn: list[int], options: dict[str, bool]) -> None:
    given = support_of(patient, BIG, drawn)
    worker = segmenter(options=options)
    found = worker.segment(given, patient.volume)
    for number, organ in enumerate(BIG):
        assert np.array_equal(found.mask(organ)[drawn], given.masks[number, drawn])
    others = [z for z in range(8) if z not in drawn]
    assert dice(found.mask(LIVER)[others], (patient.labels == LIVER.label)[others]) > 0.5
    assert (encoded_slices(worker) == 8) == (options == ONE_LOOK)


def test_a_scan_read_twice_is_the_same_scan(patient: Phantom) -> None:
    copy = Volume(patient.volume.array.copy(), patient.volume.geometry, modality="MR")
    worker = segmenter()
    found = worker.segment(support_of(patient, (LIVER,), [4]), copy)
    assert encoded_slices(worker) == 8
    assert np.array_equal(found.mask(LIVER)[4], patient.labels[4] == LIVER.label)


def test_drawn_slices_of_a_scan_from_head_to_feet_stay_as_drawn(patient: Phantom) -> None:
    def change(array: np.ndarray) -> sitk.Image:
        return CHANGES["head to feet"](patient.volume.geometry.to_sitk(array))

    image, labels = change(patient.volume.array), sitk.GetArrayFromImage(change(patient.labels))
    volume = Volume(sitk.GetArrayFromImage(image), Geometry.of(image), modality="MR")
    found = segmenter().segment(Support.create(volume, (labels == LIVER.label)[None], [LIVER], slices=[3]), volume)
    upright = segmenter().segment(support_of(patient, (LIVER,), [4]), patient.volume)
    assert np.array_equal(found.mask(LIVER)[3], labels[3] == LIVER.label)
    assert np.array_equal(found.labels, upright.labels[::-1])


def test_organs_drawn_on_slices_of_their_own(patient: Phantom) -> None:
    masks = np.stack([patient.labels == o.label for o in BIG])
    masks[0, [z for z in range(8) if z != 5]] = False
    masks[1, [z for z in range(8) if z != 4]] = False
    given = Support.create(patient.volume, masks, BIG)
    found = segmenter().segment(given, patient.volume)
    assert np.array_equal(found.mask(LIVER)[5], masks[0, 5])
    assert np.array_equal(found.mask(SPLEEN)[4], masks[1, 4])


def test_pieces_that_do_not_touch_the_drawing_are_dropped(patient: Phantom) -> None:
    given = support_of(patient, BIG, [4])
    some = segmenter().segment(given, patient.volume)
    everything = segmenter(largest_only=False).segment(given, patient.volume)
    for number, organ in enumerate(BIG):
        pieces, count = ndimage.label(everything.mask(organ))
        kept = set(np.unique(pieces[some.mask(organ)]))
        assert kept == set(np.unique(pieces[given.masks[number]])) - {0}


def test_a_drawing_of_the_scan_itself_outranks_other_supports(support: Support, patient: Phantom) -> None:
    other = support_of(make_patient(3, shape=SHAPE))
    found = segmenter().segment([other, support], patient.volume)
    assert np.array_equal(found.mask(LIVER), patient.labels == LIVER.label)
    assert any("other supports were not used" in note for note in found.notes)


def test_which_scans_are_the_same(patient: Phantom) -> None:
    scan = patient.volume
    assert is_same_scan(scan, scan) and is_same_scan(scan, Volume(scan.array.copy(), scan.geometry))
    changed = scan.array.copy()
    changed[0, 0, 0] += 1
    assert not is_same_scan(scan, Volume(changed, scan.geometry))
    moved = dataclasses.replace(scan.geometry, origin=(50.0, 0.0, 0.0))
    assert not is_same_scan(scan, Volume(scan.array, moved))


# ---------------------------------------------------------------------------------------------- progress and cancel
def test_progress_runs_from_nothing_to_the_end(support: Support, query: Volume) -> None:
    heard: list[Progress] = []
    segmenter(batch=2).segment(support, query, progress=heard.append)
    done = [p.fraction for p in heard]
    assert done == sorted(done) and done[0] < 0.15 and done[-1] == 1.0 and done.count(1.0) == 1
    assert list(dict.fromkeys(p.stage for p in heard)) == ["encoding the support", "encoding the scan", "finding the organs"]
    assert len(heard) >= 10
    assert all(math.isfinite(p.seconds_left) and p.seconds_left >= 0 for p in heard)
    assert heard[-1].seconds_left == 0


def test_progress_in_the_same_scan(patient: Phantom) -> None:
    heard: list[Progress] = []
    segmenter(batch=4).segment(support_of(patient, BIG, [4]), patient.volume, progress=heard.append)
    done = [p.fraction for p in heard]
    assert done == sorted(done) and done[-1] == 1.0
    assert done[1] == pytest.approx(1 / 1.6)  # both batches of the support, and no other scan to encode
    assert len([p for p in heard if p.stage == "finding the organs"]) >= 8


@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_cancelling_stops_at_the_next_step(support: Support, query: Volume, at: int) -> None:
    asked: list[int] = []

    def cancel() -> bool:
        asked.append(encoded_slices(worker))
        return len(asked) == at

    worker = segmenter(batch=4)
    with pytest.raises(Cancelled):
        worker.segment(support, query, cancel=cancel)
    assert len(asked) == at and encoded_slices(worker) == min(4 * at, 16)


def test_after_a_cancelled_job_the_next_one_runs(support: Support, query: Volume, result: Segmentation) -> None:
    worker = segmenter()
    with pytest.raises(Cancelled):
        worker.segment(support, query, cancel=lambda: True)
    assert np.array_equal(worker.segment(support, query).labels, result.labels)


# ---------------------------------------------------------------------------------------------- notes and options
@pytest.mark.parametrize(
    ("trained", "of_support", "of_query", "said"),
    [
        (["MR"], "MR", "MR", []),
        (["MR"], "", "", []),
        (["MR", "CT"], "CT", "CT", []),
        (["CT"], "MR", "MR", ["trained on CT, not on MR"]),
        (["MR"], "MR", "CT", ["trained on MR, not on CT", "of different kinds (CT, MR)"]),
        ([], "MR", "CT", ["of different kinds (CT, MR)"]),
    ],
)
def test_scans_of_another_kind_are_warned_of(
    patient: Phantom, trained: list[str], of_support: str, of_query: str, said: list[str]
) -> None:
    images = [dataclasses.replace(patient.volume, modality=m) for m in (of_support, of_query)]
    notes = warnings_about(Card("test", modalities=trained), images)
    assert len(notes) == len(said) and all(text in note for text, note in zip(said, notes, strict=True))


def test_notes_reach_the_result(support: Support, query: Volume) -> None:
    worker = segmenter(card=Card("test", modalities=["CT"]))
    worker.runner.notes.append("The memory of cuda ran out; going on with 4 slices at once.")
    notes = worker.segment(support, query).notes
    assert "trained on CT, not on MR" in notes[0] and "memory of cuda" in notes[1]


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="strategy 'chunks'.*auto, direct, propagate"):
        segmenter(strategy="chunks")
    with pytest.raises(ConfigError, match="no method 'macth'"):
        segmenter(method="macth")
    with pytest.raises(ConfigError, match="no option 'radus'"):
        segmenter(options={"radus": 3})
    with pytest.raises(ConfigError, match="device"):
        Segmenter(SegmenterConfig(device="tpu"), encoder=TinyEncoder())


def test_options_reach_the_method() -> None:
    assert segmenter(options={"radius": 2}).method.config.radius == 2


def test_an_unknown_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        Segmenter(SegmenterConfig(checkpoint=str(tmp_path / "absent")))


# ---------------------------------------------------------------------------------------------- prototype heads
@pytest.mark.parametrize("method", ["alpnet", "visa"])
def test_prototype_heads_find_the_organ_without_being_told_where(
    method: str, support: Support, query: Volume, truth: np.ndarray
) -> None:
    found = segmenter(method=method, probabilities=True).segment(support, query)
    assert dice(found.mask(LIVER), truth == LIVER.label) > 0.4
    assert found.probabilities is not None and found.probabilities[0][found.mask(LIVER)].min() > 0.45


def told_slices(worker: Segmenter, support: Support, query: Volume, extent: dict[str, tuple[int, int]]) -> set[int]:
    found = worker.segment(support, query, extent=extent)
    return set(np.flatnonzero(found.mask(LIVER).any((1, 2))).tolist())


def test_a_told_extent_bounds_the_organ(support: Support, query: Volume) -> None:
    worker = segmenter(method="alpnet", largest_only=False)
    assert told_slices(worker, support, query, {"liver": (3, 5)}) == {3, 4, 5}
    upside_down = Volume(
        query.array[::-1], Geometry.of(CHANGES["head to feet"](query.geometry.to_sitk(query.array))), modality="MR"
    )
    assert told_slices(worker, support, upside_down, {"liver": (1, 2)}) == {1, 2}


def test_an_extent_needs_axial_slices(support: Support, query: Volume) -> None:
    image = CHANGES["sagittal"](query.geometry.to_sitk(query.array))
    volume = Volume(sitk.GetArrayFromImage(image), Geometry.of(image), modality="MR")
    with pytest.raises(ConfigError, match="not axial"):
        segmenter(method="alpnet").segment(support, volume, extent={"liver": (3, 5)})


# ---------------------------------------------------------------------------------------------- the real network
def test_a_real_encoder_with_random_weights() -> None:
    torch.manual_seed(0)
    worker = Segmenter(SegmenterConfig(device="cpu"), encoder=create_encoder(channels=16))
    one = make_patient(0, shape=(3, 32, 32))
    found = worker.segment(support_of(one, (LIVER,), [1]), one.volume)
    assert np.array_equal(found.mask(LIVER)[1], one.labels[1] == LIVER.label)
    assert found.labels.shape == (3, 32, 32)
