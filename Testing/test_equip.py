"""Methods made for an encoder and filled from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny_encoder import TinyEncoder

from FewShotSegLib import checkpoints, equip
from FewShotSegLib.cards import Card
from FewShotSegLib.checkpoints import load_checkpoint, load_head, save_checkpoint
from FewShotSegLib.encoders import Encoder, create_encoder
from FewShotSegLib.equip import equipped, notes_of
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.methods.adnet import Adnet
from FewShotSegLib.methods.qnet import Qnet, QnetConfig


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return create_encoder("resnet50v2", channels=8).eval()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place in which checkpoints are looked for."""
    monkeypatch.setenv("FEWSHOTSEG_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "bundled"
    folder.mkdir()
    monkeypatch.setattr(checkpoints, "resource_dir", lambda kind: folder)
    return folder


@pytest.fixture
def shared(encoder: Encoder, folder: Path) -> Encoder:
    """The encoder of the checkpoint "base" as it comes from its file."""
    save_checkpoint(encoder, Card("base", modalities=["MR"]), folder)
    return load_checkpoint("base")[0]


def head(threshold: float = -7.5) -> torch.nn.Module:
    method = Adnet()
    torch.nn.init.constant_(method.head.t, threshold)
    return method.head


HEAD_CARD = Card("adnet-x", methods=["adnet"], modalities=["MR"], method="adnet", encoder_from="base")


# ---- files


def test_a_head_alone_is_a_small_file_that_names_its_encoder(shared: Encoder, folder: Path) -> None:
    path = save_checkpoint(shared, HEAD_CARD, folder, head=head())
    assert path.stat().st_size < 1000
    loaded, card = load_checkpoint("adnet-x")
    assert (card.name, card.encoder, card.channels, card.modalities) == ("adnet-x", "resnet50v2", 8, ["MR"])
    assert all(torch.equal(value, shared.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert load_head("adnet-x", "adnet")["t"] == -7.5


def test_encoder_and_head_may_share_a_file(encoder: Encoder, folder: Path) -> None:
    save_checkpoint(encoder, replace(HEAD_CARD, encoder_from=""), folder, head=head())
    assert load_checkpoint("adnet-x")[0].state_dict().keys() == encoder.state_dict().keys()
    assert load_head("adnet-x", "adnet")["t"] == -7.5


def test_the_encoder_is_also_found_beside_the_head(shared: Encoder, folder: Path, tmp_path: Path) -> None:
    save_checkpoint(shared, HEAD_CARD, folder, head=head())
    moved = folder.rename(tmp_path / "elsewhere")
    assert load_checkpoint(moved / "adnet-x.safetensors")[1].name == "adnet-x"


def test_an_encoder_beside_a_new_head_need_not_be_installed(shared: Encoder, folder: Path, tmp_path: Path) -> None:
    moved = folder.rename(tmp_path / "elsewhere")
    path = save_checkpoint(shared, HEAD_CARD, moved, head=head())
    assert load_checkpoint(path)[1].encoder_sha256 == load_checkpoint(moved / "base.json")[1].sha256


def test_another_encoder_of_the_same_name_is_refused(shared: Encoder, folder: Path) -> None:
    save_checkpoint(shared, HEAD_CARD, folder, head=head())
    torch.manual_seed(1)
    save_checkpoint(create_encoder("resnet50v2", channels=8), Card("base"), folder)
    with pytest.raises(CheckpointError, match="not on the one found here"):
        load_checkpoint("adnet-x")


def test_an_encoder_that_was_trained_on_must_be_saved_with_its_head(encoder: Encoder, shared: Encoder, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="not the one of the checkpoint 'base'"):
        save_checkpoint(create_encoder("resnet50v2", channels=8), HEAD_CARD, folder, head=head())
    assert not (folder / "adnet-x.safetensors").exists()


@pytest.mark.parametrize(
    ("card", "has_head", "message"),
    [
        (replace(HEAD_CARD, method=""), True, "has tensors of a head"),
        (HEAD_CARD, False, "lacks tensors of a head"),
        (replace(HEAD_CARD, method=""), False, "neither an encoder nor a head"),
    ],
)
def test_cards_that_contradict_their_file_are_refused(
    shared: Encoder, folder: Path, card: Card, has_head: bool, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(shared, card, folder, head=head() if has_head else None)


def test_cards_of_the_first_releases_have_no_head(encoder: Encoder, folder: Path) -> None:
    assert load_head(save_checkpoint(encoder, Card("old"), folder), "adnet") == {}


# ---- methods


def test_the_head_reaches_the_method(shared: Encoder, folder: Path) -> None:
    save_checkpoint(shared, HEAD_CARD, folder, head=head())
    method = equipped("adnet", {}, shared, load_checkpoint("adnet-x")[1], "adnet-x")
    assert method.trained and method.head.t == -7.5 and not method.head.t.requires_grad
    assert notes_of(method) == []


def test_the_head_of_another_method_is_refused_but_a_method_without_head_needs_none(shared: Encoder, folder: Path) -> None:
    save_checkpoint(shared, HEAD_CARD, folder, head=head())
    card = load_checkpoint("adnet-x")[1]
    with pytest.raises(CheckpointError, match=r"trained for the method 'adnet', not for 'qnet'.*choose the method 'adnet'"):
        equipped("qnet", {}, shared, card, "adnet-x")
    assert equipped("alpnet", {}, shared, card, "adnet-x").name == "alpnet"


def test_options_of_the_training_hold_unless_others_are_given(shared: Encoder, folder: Path) -> None:
    options = {"alpha": 0.6, "refine": 3}
    card = replace(HEAD_CARD, name="qnet-x", method="qnet", options=options)
    save_checkpoint(shared, card, folder, head=Qnet(QnetConfig(channels=8)).head)
    loaded = load_checkpoint("qnet-x")[1]
    assert equipped("qnet", {"refine": 0}, shared, loaded, "qnet-x").config == QnetConfig(0.6, 0, 8)
    with pytest.raises(CheckpointError, match="do not fit Qnet"):
        equipped("qnet", {"channels": 16}, shared, loaded, "qnet-x")


def test_a_head_on_this_computer_goes_with_the_encoder_that_it_was_trained_on(shared: Encoder, folder: Path) -> None:
    card = replace(HEAD_CARD, name="qnet-x", method="qnet", options={"alpha": 0.6})
    save_checkpoint(shared, card, folder, head=Qnet(QnetConfig(channels=8)).head)
    save_checkpoint(shared, HEAD_CARD, folder, head=head())
    base = load_checkpoint("base")[1]
    assert equipped("adnet", {}, shared, base, "base").head.t == -7.5
    method = equipped("qnet", {}, shared, base, "base")
    assert method.trained and method.config.alpha == 0.6 and notes_of(method) == []
    other = save_checkpoint(create_encoder("resnet50v2", channels=8), Card("other"), folder)
    assert not equipped("adnet", {}, shared, load_checkpoint(other)[1], "other").trained
    assert not equipped("adnet", {}, shared, base, None).trained  # an encoder that is in no file


def test_options_that_change_the_size_of_the_head_leave_it_out(shared: Encoder, folder: Path) -> None:
    card = replace(HEAD_CARD, name="qnet-x", method="qnet")
    save_checkpoint(shared, card, folder, head=Qnet(QnetConfig(channels=8)).head)
    method = equipped("qnet", {"faithful": True}, shared, load_checkpoint("base")[1], "base")
    assert not method.trained and notes_of(method)


def test_without_a_head_the_user_is_told_what_stands_in(encoder: Encoder) -> None:
    method = equipped("qnet", {}, encoder, Card("old"), None)
    assert method.config.channels == 8
    assert notes_of(method) == [f"The checkpoint has no parameters of the method qnet: {Qnet.untrained}"]
    assert notes_of(equipped("match", {}, encoder, None)) == []


def test_an_encoder_of_another_kind_leaves_the_channels_to_the_options() -> None:
    assert equipped("qnet", {"channels": 32}, TinyEncoder(), None).config.channels == 32  # type: ignore[arg-type]


def test_a_method_that_cannot_work_untrained_says_so(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:

    class Needy(Adnet):
        untrained: ClassVar[str] = ""

    monkeypatch.setattr(equip, "create_method", lambda name, **options: Needy())
    monkeypatch.setattr(equip, "has_option", lambda name, option: False)
    with pytest.raises(CheckpointError, match="'needy' has parameters of its own.*trained for 'needy'"):
        equipped("needy", {}, encoder, None)


def test_heads_start_alike_and_leave_the_random_numbers_alone(encoder: Encoder) -> None:
    torch.manual_seed(5)
    first = equipped("qnet", {"faithful": True}, encoder, None)
    after = torch.rand(1)
    torch.manual_seed(6)
    second: Any = equipped("qnet", {"faithful": True}, encoder, None)
    assert all(torch.equal(a, b) for a, b in zip(first.head.parameters(), second.head.parameters(), strict=True))
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
