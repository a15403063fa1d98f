"""The untrained encoder: a row of the comparison that says which weights it has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from evaluation_folder import write_folder
from safetensors.torch import save_file
from tiny_encoder import TinyEncoder

from FewShotSegLib.encoders import create_encoder
from FewShotSegLib.errors import CheckpointError
from FewShotSegLib.evaluation import untrained
from FewShotSegLib.evaluation.comparison import CompareConfig, cells, compare
from FewShotSegLib.evaluation.comparison_report import markdown
from FewShotSegLib.evaluation.run import evaluate
from FewShotSegLib.evaluation.untrained import untrained_encoder


def config(folder: Path, output: Path, **more: object) -> CompareConfig:
    return CompareConfig((folder,), ("untrained", "untrained-alpnet"), ("oracle-z",), output, limit=1, **more)  # type: ignore[arg-type]


def test_random_weights_follow_the_seed_and_leave_other_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (untrained_encoder("untrained", seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    weight = "trunk.stem.conv.weight"
    assert torch.equal(one.state_dict()[weight], same.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight]) and not one.training


def test_public_weights_fill_the_trunk(tmp_path: Path) -> None:
    torch.manual_seed(9)
    trunk = create_encoder().trunk.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in trunk.items()}, tmp_path / "imagenet.safetensors")
    found = untrained_encoder(f"untrained:{tmp_path / 'imagenet.safetensors'}")
    assert torch.equal(found.trunk.state_dict()["stem.conv.weight"], trunk["stem.conv.weight"])
    save_file({"head.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for name in ("other", "missing"):
        with pytest.raises(CheckpointError, match="cannot be used"):
            untrained_encoder(f"untrained:{tmp_path / name}.safetensors")


def test_the_rows_of_the_table_say_which_weights(tmp_path: Path) -> None:
    plain, head = cells(config(tmp_path, tmp_path, checkpoint_template=None))
    assert (plain.config.method, plain.config.checkpoint) == ("match", "untrained")
    assert plain.label == "match, encoder with random weights"
    assert (head.config.method, head.path.name) == ("alpnet", "untrained-alpnet-oracle-z.json")
    public = next(cells(config(tmp_path, tmp_path, untrained_weights="some/imagenet.safetensors", folds=True)))
    assert public.config.checkpoint_for(3) == "untrained:some/imagenet.safetensors"
    assert public.label == "match, encoder of imagenet.safetensors, trained on no scan"


def test_it_is_measured_like_any_other_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrained, "create_encoder", TinyEncoder)
    folder = write_folder(tmp_path / "data", ["a", "b"])
    outcomes = compare(config(folder, tmp_path / "out"), evaluate)
    assert all(outcome.result is not None for outcome in outcomes), [o.reason for o in outcomes]
    text = markdown(outcomes)
    assert "| match, encoder with random weights |" in text
    assert "| alpnet, encoder with random weights, told the extents, the place by match |" in text
