"""Images to feature maps. An encoder knows nothing about supports, prototypes or organs.

Trunks of output stride 8, each followed by one 1x1 convolution without bias:

- `resnet50v2`: pre-activation ResNet-50 (He et al., ECCV 2016), stages 1-3, the light default.
- `resnet50v2_stages12`: its stages 1 and 2 alone, a fifth of the weights.
- `resnet101`: the DeepLabV3 ResNet-101 backbone of SSL-ALPNet (Ouyang et al., ECCV 2020, section 4) and ADNet.

`resnext3d.py` adds encoders of whole volumes: `resnext3d101` (ADNet-3D) and the light `resnext3d26`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

STRIDE = 8


@dataclass(frozen=True)
class EncoderConfig:
    """Which trunk, and how many channels its features have after the 1x1 projection."""

    name: str = "resnet50v2"
    channels: int = 256


class PreActBlock(nn.Module):
    """Pre-activation bottleneck: norm, ReLU, 1x1, norm, ReLU, 3x3, norm, ReLU, 1x1, add."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.norm2: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.norm3: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.downsample = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x), inplace=True)
        skip = x if self.downsample is None else self.downsample(h)
        h = self.conv2(F.relu(self.norm2(self.conv1(h)), inplace=True))
        return self.conv3(F.relu(self.norm3(h), inplace=True)).add_(skip)

    def fold(self) -> None:
        """Put the norms that follow a convolution into it: the same function at use, faster; not to be trained any more."""
        if isinstance(self.norm2, nn.BatchNorm2d) and isinstance(self.norm3, nn.BatchNorm2d):
            self.conv1, self.norm2 = fuse_conv_bn_eval(self.conv1, self.norm2), nn.Identity()
            self.conv2, self.norm3 = fuse_conv_bn_eval(self.conv2, self.norm3), nn.Identity()


class ResNet50V2(nn.Module):
    """Stem and stages 1-3 of ResNet-50 v2, the last one dilated: (b 3 h w) -> (b 1024 h/8 w/8); or 1 and 2: (b 512 h/8 w/8)."""

    def __init__(self, stages: int = 3) -> None:
        super().__init__()
        self.out_channels = 1024 if stages == 3 else 512
        self.stem = nn.ModuleDict(
            {
                "norm_in": nn.BatchNorm2d(3),
                "conv": nn.Conv2d(3, 64, 7, 2, 3, bias=False),
                "norm": nn.BatchNorm2d(64),
            }
        )
        self.layer1 = self._stage(64, 64, 256, blocks=3, stride=1, dilation=1)
        self.layer2 = self._stage(256, 128, 512, blocks=4, stride=2, dilation=1)
        self.layer3 = self._stage(512, 256, 1024, blocks=6, stride=1, dilation=2) if stages == 3 else nn.Identity()

    @staticmethod
    def _stage(inputs: int, width: int, outputs: int, *, blocks: int, stride: int, dilation: int) -> nn.Sequential:
        first = PreActBlock(inputs, width, outputs, stride, 1, project=True)
        rest = [PreActBlock(outputs, width, outputs, 1, dilation, project=False) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem["conv"](self.stem["norm_in"](x))
        x = F.max_pool2d(F.relu(self.stem["norm"](x)), 3, 2, 1)
        return self.layer3(self.layer2(self.layer1(x)))


class ResNet101(nn.Module):
    """torchvision's DeepLabV3 ResNet-101 backbone, stages 3 and 4 dilated: (b 3 h w) -> (b 2048 h/8 w/8)."""

    out_channels = 2048

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet101  # heavy: only when asked for

        net = resnet101(weights=None, replace_stride_with_dilation=[False, True, True])
        for name, child in net.named_children():
            if name not in ("avgpool", "fc"):
                self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


VOLUMETRIC = ("resnext3d101", "resnext3d26")
TRUNKS: dict[str, Callable[[], ResNet50V2 | ResNet101]] = {
    "resnet50v2": ResNet50V2,
    "resnet50v2_stages12": lambda: ResNet50V2(stages=2),
    "resnet101": ResNet101,
}


class Encoder(nn.Module):
    """Trunk and 1x1 projection: grey slices (b h w), h and w multiples of 8 -> features (b channels h/8 w/8), float32."""

    layout = torch.channels_last
    volumetric = False
    """Whether all slices of a scan must come together."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk: Any = TRUNKS[config.name]()
        self.project: nn.Module = nn.Conv2d(self.trunk.out_channels, config.channels, 1, bias=False)
        self.to(memory_format=self.layout)

    def forward(self, slices: Tensor) -> Tensor:
        x = slices[:, None].expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        return self.project(self.trunk(x)).float()


def folded(encoder: Encoder) -> Encoder:
    """A copy for use only, in evaluation mode, with all norms that allow it folded into their convolutions."""
    encoder = copy.deepcopy(encoder).eval()
    for module in encoder.modules():
        if isinstance(module, PreActBlock):
            module.fold()
    return encoder


def list_encoders() -> list[str]:
    """Names that `create_encoder` accepts."""
    return sorted([*TRUNKS, *VOLUMETRIC])


def create_encoder(name: str = "resnet50v2", *, channels: int = 256) -> Encoder:
    """A new encoder with random weights. Raises ValueError, naming the known ones, when `name` is unknown."""
    if name in VOLUMETRIC:
        from FewShotSegLib.resnext3d import VolumeEncoder

        return VolumeEncoder(EncoderConfig(name, channels))
    if name not in TRUNKS:
        raise ValueError(f"Unknown encoder {name!r}; expected one of {', '.join(list_encoders())}.")
    return Encoder(EncoderConfig(name, channels))


def load_trunk_weights(encoder: Encoder, tensors: dict[str, Tensor]) -> list[str]:
    """Fill the trunk from a public ImageNet or COCO checkpoint (any of the usual name prefixes).

    Tensors of other parts (classifier, ASPP) are ignored. Returns the trunk's names that the checkpoint left out
    (batch counters aside); raises ValueError when it fits nothing or a shape differs.
    """
    own = encoder.trunk.state_dict()
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for prefix in ("module.encoder.", "encoder.", "backbone.", "module.", ""):
            key = name.removeprefix(prefix).removeprefix("backbone.") if name.startswith(prefix) else ""
            if key in own:
                found[key] = tensor.float() if tensor.is_floating_point() else tensor
                break
    wrong = [k for k, v in found.items() if own[k].shape != v.shape]
    if not found or wrong:
        got = f"shapes differ for {wrong[:3]}" if wrong else f"none of its {len(tensors)} tensors fits"
        raise ValueError(f"These weights are not for the trunk {encoder.config.name!r}: {got}. Choose matching weights.")
    encoder.trunk.load_state_dict(found, strict=False)
    return [k for k in own if k not in found and not k.endswith("num_batches_tracked")]
