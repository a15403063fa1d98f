"""The region prototypical debiasing block of PAMI (IEEE TIM 2024), adnet_qnet_rpt_pami_qamp.md section 7.2.

Axes: k regions, c channels; leading axes are batches. The number of regions is fixed by the layers along that axis.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from FewShotSegLib.attention import RegionAttention, RegionMlp, affinity, region_weights

SQUEEZE = 16


class SqueezeExcite(nn.Module):
    """Every channel scaled by what all regions say of it: (... k c) -> (... k c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(channels // SQUEEZE, 1)
        self.squeeze = nn.Linear(channels, narrow, bias=False)
        self.excite = nn.Linear(narrow, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(F.relu(self.squeeze(x.mean(-2, keepdim=True)))).sigmoid()


class Fusion(nn.Module):
    """Two layers with GELU and without bias that bring two maps, joined along one axis, back to the size of one."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.wide = nn.Linear(2 * size, size, bias=False)
        self.narrow = nn.Linear(size, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.wide(x)))


class PrdBlock(nn.Module):
    """Regions (... k c) and a query prototype (... 1 c) -> regions that fit the query better (... k c).

    `faithful`: as published, one of the two inputs of the spatial scale is the *number* of the largest channel instead of
    its value, and the affinity is a plain dot product; otherwise `temperature` times a cosine.
    """

    def __init__(self, channels: int, regions: int, *, temperature: float = 20.0, faithful: bool = False) -> None:
        super().__init__()
        self.faithful = faithful
        self.temperature = None if faithful else temperature
        self.attention = RegionAttention(channels)
        self.mlp = RegionMlp(channels)
        self.inject = nn.Linear(regions, regions)
        self.spatial = nn.Linear(2, 1)
        self.channel = SqueezeExcite(channels)
        self.fuse_regions = Fusion(regions)
        self.fuse_channels = Fusion(channels)
        self.merge = nn.Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, prototypes: Tensor, query: Tensor) -> Tensor:
        injected = prototypes + self.inject(query.expand_as(prototypes).mT).mT
        scales = self.multi_scale(injected)
        found = self.interaction(injected, query, prototypes.mean(-2, keepdim=True))
        found = self.transform(self.merge(torch.cat([found, self.merge(scales)], -1)))
        return self.norm(found + prototypes)

    def transform(self, x: Tensor) -> Tensor:
        """Attention among themselves, then the MLP: (... k c) -> (... k c)."""
        return self.mlp(self.attention(x, x))

    def multi_scale(self, injected: Tensor) -> Tensor:
        """Which regions and which channels matter: (... k c) -> (... k 2c)."""
        context = self.transform(injected)
        by_region = torch.cat([self._spatial_scale(context) * context, context], -2)
        by_channel = torch.cat([self.channel(context), context], -1)
        return torch.cat([self.transform(self.fuse_regions(by_region.mT).mT), self.transform(self.fuse_channels(by_channel))], -1)

    def interaction(self, injected: Tensor, query: Tensor, mean: Tensor) -> Tensor:
        """Regions weighted by their affinity with the query (... 1 c), `mean` (... 1 c) of the regions: (... k c)."""
        scores = affinity(self.transform(injected), self.transform(query), self.temperature)
        x = self.norm(region_weights(scores, faithful=self.faithful) * mean + injected)
        return self.mlp(self.attention(x, injected))

    def _spatial_scale(self, x: Tensor) -> Tensor:
        peak = x.max(-1, keepdim=True)
        largest = peak.indices.to(x.dtype) if self.faithful else peak.values
        return self.spatial(torch.cat([largest, x.mean(-1, keepdim=True)], -1)).sigmoid()
