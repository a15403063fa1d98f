from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from FewShotSegLib.encoders import STRIDE, Encoder, create_encoder, folded, list_encoders, load_trunk_weights

SLICES = torch.randn(2, 64, 40, generator=torch.Generator().manual_seed(0))
CHANNELS = {"resnet50v2": (256, 512, 1024), "resnet50v2_stages12": (256, 512), "resnet101": (256, 512, 1024, 2048)}


@pytest.fixture(scope="module", params=sorted(CHANNELS))
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    return create_encoder(request.param, channels=16).eval()


def test_the_known_encoders() -> None:
    assert list_encoders() == ["resnet101", "resnet50v2", "resnet50v2_stages12", "resnext3d101", "resnext3d26"]


@torch.no_grad()
def test_features_have_stride_8_in_float32(encoder: Encoder) -> None:
    features = encoder(SLICES)
    assert features.shape == (2, 16, 64 // STRIDE, 40 // STRIDE)
    assert features.dtype == torch.float32 and torch.isfinite(features).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(SLICES[:1]).dtype == torch.float32


@torch.no_grad()
def test_stages_have_their_widths_and_strides(encoder: Encoder) -> None:
    seen: list[tuple[int, int]] = []
    stages = [getattr(encoder.trunk, f"layer{i}") for i in range(1, 1 + len(CHANNELS[encoder.config.name]))]
    hooks = [s.register_forward_hook(lambda m, i, o: seen.append((o.shape[1], SLICES.shape[1] // o.shape[2]))) for s in stages]
    encoder(SLICES[:1])
    for hook in hooks:
        hook.remove()
    assert seen == list(zip(CHANNELS[encoder.config.name], (4, 8, 8, 8), strict=False))


@torch.no_grad()
def test_slices_do_not_depend_on_each_other(encoder: Encoder) -> None:
    torch.testing.assert_close(encoder(SLICES)[1:], encoder(SLICES[1:]), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_folded_encoder_is_the_same_function(encoder: Encoder) -> None:
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2).add_(0.1)
            module.running_var.uniform_(0.5, 2)
    before = encoder(SLICES)
    copy = folded(encoder.train())
    assert not copy.training and encoder.training
    encoder.eval()
    torch.testing.assert_close(copy(SLICES), before, rtol=1e-3, atol=1e-3 * before.abs().max().item())
    assert torch.equal(encoder(SLICES), before)
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in e.modules()) for e in (encoder, copy)]
    assert norms[1] < norms[0] or encoder.config.name == "resnet101"


def test_the_short_trunk_is_the_beginning_of_the_long_one() -> None:
    long, short = create_encoder("resnet50v2", channels=8), create_encoder("resnet50v2_stages12", channels=8)
    assert load_trunk_weights(short, long.trunk.state_dict()) == []
    own = long.eval().trunk.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in short.eval().trunk.state_dict().items())
    assert sum(p.numel() for p in short.parameters()) < sum(p.numel() for p in long.parameters()) / 5


def test_the_same_seed_gives_the_same_weights() -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(create_encoder(channels=8).project.weight)
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="resnet101, resnet50v2"):
        create_encoder("resnet18")


# ---------------------------------------------------------------------------------------------- public weights
@pytest.fixture()
def small() -> Encoder:
    return create_encoder("resnet50v2", channels=8)


def changed_trunk(encoder: Encoder) -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in encoder.trunk.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "encoder.", "backbone.", "module.", "module.encoder.", "encoder.backbone."])
def test_the_usual_prefixes_are_understood(small: Encoder, prefix: str) -> None:
    wanted = changed_trunk(small)
    assert load_trunk_weights(small, {prefix + name: tensor for name, tensor in wanted.items()}) == []
    for name, tensor in small.trunk.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


def test_half_precision_weights_become_float32(small: Encoder) -> None:
    load_trunk_weights(small, {"layer1.0.conv1.weight": small.trunk.layer1[0].conv1.weight.detach().half()})
    assert small.trunk.layer1[0].conv1.weight.dtype == torch.float32


def test_what_is_missing_is_named_and_what_is_foreign_ignored(small: Encoder) -> None:
    wanted = changed_trunk(small)
    kept = small.trunk.stem["conv"].weight.clone()
    del wanted["stem.conv.weight"], wanted["layer1.0.norm1.num_batches_tracked"]
    missing = load_trunk_weights(small, {**wanted, "fc.weight": torch.zeros(3, 3)})
    assert missing == ["stem.conv.weight"]
    assert torch.equal(small.trunk.stem["conv"].weight, kept)


def test_foreign_weights_are_refused(small: Encoder) -> None:
    with pytest.raises(ValueError, match="'resnet50v2': none of its 1 tensors fits"):
        load_trunk_weights(small, {"features.0.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"shapes differ for \['stem.conv.weight'\]"):
        load_trunk_weights(small, {"stem.conv.weight": torch.zeros(3)})


def test_the_shared_imagenet_weights_fit(small: Encoder, shared_dir: Path) -> None:
    missing = load_trunk_weights(small, load_file(shared_dir / "weights" / "resnet50v2_imagenet_stages1to3.safetensors"))
    assert missing == []
