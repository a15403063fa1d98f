from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from FewShotSegLib import checkpoints
from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import list_checkpoints, list_downloadable, load_checkpoint, save_checkpoint
from FewShotSegLib.download import sha256_of
from FewShotSegLib.encoders import Encoder, create_encoder
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.resources import resource_dir

CARD = Card(
    name="tiny",
    description="An untrained encoder, for tests.",
    methods=["match"],
    modalities=["MR"],
    training_data=[{"name": "phantom", "licence": "Apache-2.0", "scans": 2}],
    licence="Apache-2.0",
    results=[{"dataset": "phantom", "protocol": "full-volume", "method": "match", "mean_dice": 12.5, "note": ""}],
    extra={"steps": 0},
)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return create_encoder("resnet50v2", channels=8).eval()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's own cache."""
    monkeypatch.setenv("FEWSHOTSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of Resources/checkpoints."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(checkpoints, "resource_dir", lambda kind: folder)
    return folder


@pytest.fixture
def saved(encoder: Encoder, tmp_path: Path) -> Path:
    return save_checkpoint(encoder, CARD, tmp_path / "saved")


def edit_card(path: Path, **changes: object) -> None:
    card_path = path.with_suffix(".json")
    card_path.write_text(json.dumps(json.loads(card_path.read_text()) | changes))


def rewrite(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other tensors under a card that vouches for them, so that only the check of the tensors can object."""
    save_file(tensors, path)
    edit_card(path, sha256=sha256_of(path))


# ---- saving and loading


def test_full_precision_survives_the_round_trip_exactly(encoder: Encoder, tmp_path: Path) -> None:
    loaded, card = load_checkpoint(save_checkpoint(encoder, CARD, tmp_path, half=False))
    assert card == replace(
        CARD, encoder="resnet50v2", channels=8, sha256=card.sha256, created=card.created, library_version=card.library_version
    )
    own = encoder.state_dict()
    assert loaded.state_dict().keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())


def test_half_precision_halves_the_weights_but_not_the_statistics(encoder: Encoder, saved: Path) -> None:
    stored = load_file(saved)
    assert stored["project.weight"].dtype == torch.float16
    assert stored["trunk.stem.norm.running_var"].dtype == torch.float32
    loaded, _ = load_checkpoint(saved)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32, torch.int64}
    torch.testing.assert_close(loaded.project.weight, encoder.project.weight, rtol=1e-3, atol=1e-6)


def test_loaded_encoder_computes_what_the_saved_one_did(encoder: Encoder, tmp_path: Path) -> None:
    loaded, _ = load_checkpoint(save_checkpoint(encoder, CARD, tmp_path, half=False))
    assert not loaded.training
    slices = torch.randn(1, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(loaded(slices), encoder(slices))


def test_loading_leaves_the_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(3)
    load_checkpoint(saved)
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


def test_every_form_of_path_is_accepted(saved: Path) -> None:
    for form in (saved, str(saved), saved.with_suffix(".json"), saved.parent):
        assert load_checkpoint(form)[1].name == "tiny"


def test_saving_leaves_nothing_but_the_two_files(saved: Path) -> None:
    assert {path.name for path in saved.parent.iterdir()} == {"tiny.safetensors", "tiny.json"}


def test_saving_refuses_weights_too_large_for_half(tmp_path: Path) -> None:
    net = create_encoder("resnet50v2", channels=8)
    with torch.no_grad():
        net.project.weight[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"project\.weight is not finite as torch\.float16.*1e\+06"):
        save_checkpoint(net, CARD, tmp_path)
    assert not list(tmp_path.iterdir())


def test_saving_refuses_a_name_that_is_no_file_name(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="only letters, digits"):
        save_checkpoint(encoder, replace(CARD, name="../tiny"), tmp_path)


# ---- what loading refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "int 3 in name, where str"),
        ({"channels": "8"}, "str '8' in channels, where int"),
        ({"channels": True}, "bool True in channels"),
        ({"methods": "match"}, "in methods, where list"),
        ({"methods": [1]}, r"in methods\[0\], where str"),
        ({"training_data": ["chaos"]}, r"in training_data\[0\], where dict"),
        ({"training_data": [{"name": "x", "licence": "y"}]}, r"training_data\[0\] lacks: scans"),
        ({"results": [CARD.results[0] | {"mean_dice": "83"}]}, r"results\[0\]\.mean_dice, where number"),
        ({"results": [CARD.results[0] | {"dice": 1}]}, r"results\[0\] has unknown fields: dice"),
        ({"flavour": "x"}, "has unknown fields: flavour"),
        ({"encoder": "vgg"}, "is for the encoder 'vgg'.*resnet101, resnet50v2"),
        ({"channels": 0}, "with 0 channels"),
        ({"sha256": "0" * 64}, "SHA-256.*damaged or replaced"),
    ],
)
def test_wrong_card_is_refused(saved: Path, change: dict[str, object], message: str) -> None:
    edit_card(saved, **change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(saved)
    assert caught.value.expected and caught.value.action


def test_card_without_a_field_is_refused(saved: Path) -> None:
    card = saved.with_suffix(".json")
    record = json.loads(card.read_text())
    del record["licence"]
    card.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="lacks: licence"):
        load_checkpoint(saved)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "is a list, not an object"), ("\xff", "is not JSON")])
def test_card_that_is_no_card_is_refused(saved: Path, text: str, message: str) -> None:
    saved.with_suffix(".json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved)


def test_one_file_without_the_other_is_refused(saved: Path) -> None:
    saved.with_suffix(".json").rename(saved.with_name("elsewhere.json"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(saved)
    with pytest.raises(CheckpointError, match=r"elsewhere\.safetensors is missing"):
        load_checkpoint(saved.with_name("elsewhere.json"))


def test_one_flipped_bit_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or replaced"):
        load_checkpoint(saved)


def test_file_that_is_no_safetensors_is_refused_even_with_the_right_hash(saved: Path) -> None:
    saved.write_bytes(b"\x80\x04K\x01.")  # a pickle
    edit_card(saved, sha256=hashlib.sha256(saved.read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match="no readable safetensors file"):
        load_checkpoint(saved)


def test_missing_unknown_and_misshapen_tensors_are_named(saved: Path) -> None:
    tensors = load_file(saved)
    tensors["classifier.weight"] = tensors.pop("trunk.stem.norm.bias")
    tensors["project.weight"] = tensors["project.weight"][:4].contiguous()
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved)
    for part in (
        "lacks trunk.stem.norm.bias",
        "has an unknown classifier.weight",
        "project.weight of shape (4, 1024, 1, 1) instead of (8, 1024, 1, 1)",
    ):
        assert part in caught.value.found


def test_folder_with_two_checkpoints_is_ambiguous(encoder: Encoder, saved: Path) -> None:
    save_checkpoint(encoder, replace(CARD, name="other"), saved.parent)
    with pytest.raises(CheckpointError, match=r"other\.safetensors, tiny\.safetensors.*exactly one"):
        load_checkpoint(saved.parent)


# ---- names


def test_bundled_name_wins_over_the_cached_one(encoder: Encoder, bundled: Path, cache: Path) -> None:
    save_checkpoint(encoder, replace(CARD, description="bundled"), bundled)
    save_checkpoint(encoder, replace(CARD, description="cached"), cache)
    save_checkpoint(encoder, replace(CARD, name="mine"), cache / "deeper")
    assert [(card.name, card.description) for card in list_checkpoints()] == [("tiny", "bundled"), ("mine", CARD.description)]
    assert load_checkpoint("tiny")[1].description == "bundled"
    assert load_checkpoint("mine")[1].name == "mine"


def test_unknown_name_lists_the_known_ones(encoder: Encoder, bundled: Path, cache: Path) -> None:
    save_checkpoint(encoder, CARD, bundled)
    save_checkpoint(encoder, replace(CARD, name="mine"), cache)
    with pytest.raises(CheckpointError, match="no checkpoint 'abdomne'.*one of mine, tiny"):
        load_checkpoint("abdomne")


def test_what_ships_with_the_library_is_sound() -> None:
    for card in list_checkpoints():
        assert load_checkpoint(card.name)[1] == card
        assert card.licence and card.training_data and card.results, f"the card of {card.name} says too little"
    for card in list_downloadable():
        assert card.licence
    assert (resource_dir("checkpoints") / "index.json").is_file()
