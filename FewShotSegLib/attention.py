"""Attention between the prototypes of regions: the blocks that RPT (MICCAI 2023) and PAMI (IEEE TIM 2024) share.

adnet_qnet_rpt_pami_qamp.md section 6.2. Axes: k regions, c channels, d channels of a head; leading axes are batches.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

HEADS = 3
DROPOUT = 0.1
ELIMINATED = -1e4


class RegionAttention(nn.Module):
    """Attention with heads as wide as the input, ReLU after every projection, residual and norm: (... k c) -> (... k c)."""

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, heads * channels)
        self.key = nn.Linear(channels, heads * channels)
        self.value = nn.Linear(channels, heads * channels)
        self.join = nn.Linear(heads * channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.dropout = nn.Dropout(DROPOUT)
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=channels**-0.5)
        nn.init.xavier_normal_(self.join.weight)

    def forward(self, asking: Tensor, asked: Tensor) -> Tensor:
        """What the prototypes `asking` (... k c) find among `asked` (... j c), added to them: (... k c)."""
        q = self._heads(self.query(asking))
        k, v = self._heads(self.key(asked)), self._heads(self.value(asked))
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT if self.training else 0.0)
        joined = F.relu(self.dropout(self.join(rearrange(found, "... heads k d -> ... k (heads d)"))))
        return self.norm(joined + asking)

    def _heads(self, projected: Tensor) -> Tensor:
        return rearrange(F.relu(projected), "... k (heads d) -> ... heads k d", heads=self.heads)


class RegionMlp(nn.Module):
    """Two layers with GELU, residual and norm, on every prototype alone: (... c) -> (... c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Linear(channels, 2 * channels)
        self.narrow = nn.Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.narrow(F.gelu(self.wide(x))) + x)


def affinity(prototypes: Tensor, query: Tensor, temperature: float | None = None) -> Tensor:
    """How much each region looks like the query: prototypes (... k c), query (... 1 c) -> (... k 1).

    Their dot product, as published, or `temperature` times their cosine.
    """
    if temperature is None:
        return prototypes @ query.mT
    return temperature * F.normalize(prototypes, dim=-1) @ F.normalize(query, dim=-1).mT


def region_weights(scores: Tensor, *, faithful: bool) -> Tensor:
    """Softmax over the regions of scores (... k 1), after those far below the average are eliminated.

    Eliminated is what lies below the middle between minimum and mean. Published, that middle is rounded down, so with small
    scores nothing is eliminated.
    """
    middle = (scores.amin(-2, keepdim=True) + scores.mean(-2, keepdim=True)) / 2
    threshold = middle.floor() if faithful else middle
    return torch.where(scores < threshold, scores + ELIMINATED, scores).softmax(-2)
