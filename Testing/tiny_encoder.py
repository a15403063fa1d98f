"""An encoder that costs nothing: local brightness at three scales, mixed at random. For tests that need no good features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from FewShotSegLib.encoders import STRIDE


class TinyEncoder(nn.Module):
    """Slices (b, h, w) -> features (b, channels, h/8, w/8) in which similar neighbourhoods are similar; counts its slices."""

    def __init__(self, channels: int = 32, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mixing = nn.Parameter(2.0 * torch.randn(channels, 4, generator=generator), requires_grad=False)
        self.phases = nn.Parameter(2 * torch.pi * torch.rand(channels, generator=generator), requires_grad=False)
        self.batches: list[int] = []

    def forward(self, slices: Tensor) -> Tensor:
        self.batches.append(len(slices))
        mean = F.avg_pool2d(slices[:, None], STRIDE)
        spread = (F.avg_pool2d(slices[:, None].square(), STRIDE) - mean.square()).clamp(min=0).sqrt()
        wider = [F.avg_pool2d(mean, side, 1, side // 2, count_include_pad=False) for side in (3, 7)]
        local = torch.cat([mean, spread, *wider], 1).permute(0, 2, 3, 1)
        return (local @ self.mixing.T + self.phases).cos().permute(0, 3, 1, 2)
