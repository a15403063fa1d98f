"""ADNet-3D's encoder: a 3D ResNeXt on whole volumes (adnet_qnet_rpt_pami_qamp.md section 4.4).

The depth stays, rows and columns become an eighth. A long volume goes through it in tiles along the depth that overlap and
are blended, so that the memory depends on the tile and not on the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from FewShotSegLib.encoders import Encoder, EncoderConfig

CARDINALITY = 32
WIDEN = 2
TILE = 32  # slices

BLOCKS = {"resnext3d101": ((3, 4, 23, 3), 1.0), "resnext3d26": ((2, 2, 2, 2), 0.5)}
"""Blocks of each stage, and the width relative to the paper's, by name; the first is the paper's."""


class Block(nn.Module):
    """1x1x1, grouped 3x3x3, 1x1x1, add; names as in the public Kinetics checkpoints."""

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs, groups = planes * WIDEN, CARDINALITY
        self.conv1 = nn.Conv3d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, (1, stride, stride), 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv3d(inputs, outputs, 1, (1, stride, stride), bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        h = F.relu(self.bn2(self.conv2(h)), inplace=True)
        return F.relu(self.bn3(self.conv3(h)).add_(skip), inplace=True)


class ResNeXt3d(nn.Module):
    """The trunk: (b 3 d h w) -> (b c d h/8 w/8); the later stages are neither strided nor dilated."""

    def __init__(self, blocks: tuple[int, ...], width: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        channels, stages = 64, []
        for number, count in enumerate(blocks):
            planes, stride = int(128 * 2**number * width), 2 if number == 1 else 1
            rest = [Block(planes * WIDEN, planes, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(Block(channels, planes, stride), *rest))
            channels = planes * WIDEN
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool3d(x, 3, (1, 2, 2), 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class VolumeEncoder(Encoder):
    """Trunk and 1x1x1 projection: the consecutive slices of one scan (d h w) -> features (d channels h/8 w/8), float32."""

    layout = torch.contiguous_format
    volumetric = True

    def __init__(self, config: EncoderConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.trunk = ResNeXt3d(*BLOCKS[config.name])
        self.project = nn.Conv3d(self.trunk.out_channels, config.channels, 1, bias=False)

    def forward(self, slices: Tensor) -> Tensor:
        volume = slices.expand(1, 3, -1, -1, -1)
        return self.project(self.trunk(volume))[0].transpose(0, 1).float()


def tiled(encode: Callable[[Tensor], Tensor], slices: Tensor, tile: int, overlap: int) -> Iterator[Tensor]:
    """`encode` over slices (d ...) in tiles that share at least `overlap` slices; what is finished after each of them.

    Where two tiles overlap, their values are blended from the one to the other, in proportion to the place. Slices that fit
    into one tile are encoded as they are.
    """
    starts = _starts(len(slices), tile, overlap)
    pending: Tensor | None = None  # what the tile before says of the first slices of this one
    for i, start in enumerate(starts):
        values = encode(slices[start : start + tile])
        if pending is not None:
            shared = len(pending)
            share = torch.arange(1, shared + 1).to(values).view(-1, *[1] * (values.ndim - 1)) / (shared + 1)
            values = torch.cat([torch.lerp(pending, values[:shared], share), values[shared:]])
        done = starts[i + 1] - start if i + 1 < len(starts) else len(values)
        yield values[:done]
        pending = values[done:]


def _starts(count: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles begin: the last one ends with the volume."""
    last = max(count - tile, 0)
    steps = -(-last // (tile - overlap))
    return [round(i * last / steps) for i in range(steps + 1)] if steps else [0]
