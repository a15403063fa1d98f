"""The published methods after ALPNet as a user gets them: the whole job on small phantoms, encoder and heads untrained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoder import TinyEncoder

from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import save_checkpoint
from FewShotSegLib.encoders import create_encoder
from FewShotSegLib.methods import create_method, has_option
from FewShotSegLib.phantom import ORGANS, make_patient
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

pytestmark = pytest.mark.usefixtures("small_and_steady")
SHAPE = (8, 48, 48)
CHANNELS = 32
BIG = (ORGANS[0], ORGANS[3])
STANDS_IN = ("rpt", "pami", "qamp")  # without training, the plain prototype; the threshold of the others fits nothing
EACH = pytest.mark.parametrize("name", ["adnet", "adnet3d", "qnet", "rpt", "pami", "qamp"])


def drawn(seed: int, slices: str | list[int] = "all") -> Support:
    patient = make_patient(seed, shape=SHAPE)
    masks = np.stack([patient.labels == o.label for o in BIG])
    return Support.create(patient.volume, masks, BIG, slices=slices)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def support() -> Support:
    return drawn(0)


@pytest.fixture(scope="module")
def query(support: Support) -> Volume:
    """The same body a little later, moved by a voxel."""
    return Volume(np.roll(support.image.array, (1, -1), (1, 2)), support.image.geometry, "later", "MR")


def segmenter(name: str, *, strategy: str = "auto", trained: bool = True) -> Segmenter:
    """With a random head that passes for a trained one."""
    options = {"channels": CHANNELS} if has_option(name, "channels") else {}
    config = SegmenterConfig(method=name, strategy=strategy, device="cpu", options=options)
    made = Segmenter(config, encoder=TinyEncoder(CHANNELS))  # type: ignore[arg-type]
    if trained:
        made.method.load_head(made.method.head.state_dict())
    return made


def check(result: Segmentation, query: Volume) -> None:
    assert result.labels.shape == query.array.shape
    assert set(np.unique(result.labels)) <= {0, *(o.label for o in BIG)}
    for organ, confidence in zip(BIG, result.confidence, strict=True):
        assert np.isnan(confidence) == (not (result.labels == organ.label).any())
        assert np.isnan(confidence) or 0 <= confidence <= 1


def liver(result: Segmentation, support: Support) -> tuple[np.ndarray, np.ndarray]:
    """Where it was found, and where it is."""
    return result.labels == BIG[0].label, np.roll(support.masks[0], (1, -1), (1, 2))


@EACH
@pytest.mark.parametrize("strategy", ["direct", "propagate"])
def test_a_new_scan(name: str, strategy: str, support: Support, query: Volume) -> None:
    result = segmenter(name, strategy=strategy).segment(support, query)
    check(result, query)
    found, truth = liver(result, support)
    assert (found & truth).sum() > 0.9 * found.sum() > 50  # a part of it: the threshold of such a head fits nothing


@EACH
def test_the_same_scan_twice_gives_the_same_answer(name: str, support: Support, query: Volume) -> None:
    first, second = (segmenter(name).segment(support, query).labels for _ in range(2))
    np.testing.assert_array_equal(first, second)


@EACH
def test_several_supports_and_told_extents(name: str, support: Support, query: Volume) -> None:
    result = segmenter(name).segment([support, drawn(1)], query, extent={BIG[0].name: (2, 5)})
    check(result, query)
    assert not (result.labels[[0, 7]] == BIG[0].label).any()


@EACH
def test_the_rest_of_a_scan_after_three_drawn_slices(name: str) -> None:
    sparse = drawn(0, [1, 3, 5])
    result = segmenter(name).segment(sparse, sparse.image)
    for number, organ in enumerate(BIG):
        for z in (1, 3, 5):
            np.testing.assert_array_equal(result.labels[z] == organ.label, sparse.masks[number][z])


@EACH
def test_without_trained_parameters_it_says_what_stands_in(name: str, support: Support, query: Volume) -> None:
    result = segmenter(name, trained=False).segment(support, query)
    check(result, query)
    assert any(f"no parameters of the method {name}" in note for note in result.notes)
    if name in STANDS_IN:
        found, truth = liver(result, support)
        assert 2 * (found & truth).sum() > 0.6 * (found.sum() + truth.sum())


@EACH
def test_a_head_from_a_checkpoint(name: str, support: Support, query: Volume, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = create_encoder(channels=16)
    head = create_method(name, **({"channels": 16} if has_option(name, "channels") else {})).head
    card = Card("tiny", "random", methods=[name], modalities=["MR"], licence="Apache-2.0", method=name)
    path = save_checkpoint(encoder, card, tmp_path, head=head)
    made = Segmenter(SegmenterConfig(method=name, checkpoint=str(path), device="cpu"))
    assert made.method.trained
    check(made.segment(support, query), query)


def test_they_run_on_the_papers_encoder() -> None:
    """ResNet-101 with the papers' 512 channels, one small slice."""
    torch.manual_seed(0)
    encoder = create_encoder("resnet101", channels=512).eval()
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:48, 16:48] = 1
    with torch.no_grad():
        features = encoder(2 * mask + torch.randn(1, 64, 64))
        for name in ("rpt", "pami", "qamp"):
            method = create_method(name, channels=512)
            method.trained = True
            logits = method.score(features, method.remember(features, mask))
            assert logits.shape == (1, 2, 8, 8) and logits.isfinite().all()
