"""Masked pooling, local pooling and cosine scores: pure functions on tensors.

Sources: SSL-ALPNet (Ouyang et al., ECCV 2020), alpnet_visa.md sections 4.1 and 4.2; ADNet, adnet_qnet_rpt_pami_qamp.md 4.2.
Axes: s support slices, n query slices, c channels, h w feature cells, H W pixels, p prototypes.
"""

from __future__ import annotations

from einops import einsum, rearrange, reduce
from torch import Tensor
from torch.nn import functional as F

from FewShotSegLib.errors import SupportError

NORM_FLOOR = 1e-4
AREA_FLOOR = 1e-5


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length one along `dim`; a vector shorter than 1e-4 is divided by 1e-4, so a zero vector stays zero."""
    return F.normalize(vectors, dim=dim, eps=NORM_FLOOR)


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks (s H W), 0..1 -> (s h w) at feature resolution: bilinear between pixel centres, not antialiased."""
    if tuple(masks.shape[-2:]) == size:
        return masks
    return F.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def pool_cells(maps: Tensor, window: int) -> Tensor:
    """Mean of every full `window` x `window` block: (s c h w) -> (s c h/window w/window), the remainder dropped.

    A map smaller than the window is one block along that axis.
    """
    height, width = maps.shape[-2:]
    return F.avg_pool2d(maps, (min(window, height), min(window, width)))


def masked_average(features: Tensor, masks: Tensor) -> Tensor:
    """The mean feature under each mask: features (s c h w), masks (s h w) -> (s c); zero where a mask is empty."""
    total = einsum(features, masks, "s c h w, s h w -> s c")
    return total / (reduce(masks, "s h w -> s 1", "sum") + AREA_FLOOR)


def published_average(features: Tensor, masks: Tensor, *, corners: bool = False) -> Tensor:
    """`masked_average` as ADNet and its successors do it: at image resolution, features (s c h w), masks (s H W) -> (s c).

    The features are upsampled to the masks' size; `corners`: from corner to corner (QAMP) instead of between pixel centres.
    """
    wide = F.interpolate(features, (masks.shape[1], masks.shape[2]), mode="bilinear", align_corners=corners)
    return masked_average(wide, masks.to(features.dtype))


def area_fractions(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Part of every cell that the mask covers: masks (s H W) -> (s h w), for maps of any `size`."""
    return F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]


def local_prototypes(features: Tensor, masks: Tensor, window: int, tau: float) -> Tensor:
    """Pooled features of the blocks that the mask fills by more than `tau`: features (s c h w), masks (s h w) -> (p c).

    A block's prototype is its plain mean, not weighted by the mask. Order: slice, row, column. p may be 0.
    """
    kept = pool_cells(masks[:, None], window)[:, 0] > tau
    return rearrange(pool_cells(features, window), "s c h w -> s h w c")[kept]


def prototype_scores(query: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """How well the prototypes explain every cell: query (n c h w), prototypes (p c) -> (n h w).

    With d_p = temperature * cosine(cell, prototype p), the score is the sum of softmax_p(d) * d_p. That sum equals
    temperature * <cell, softmax-weighted mean of the unit prototypes>, which is attention: fused, so the memory does not
    grow with cells x prototypes. One prototype gives the plain cosine. Raises SupportError when p = 0.
    """
    if not len(prototypes):
        raise SupportError(
            "The support gives no prototype to compare with", "at least one", "draw a larger area, or use the `mask` mode"
        )
    cells = rearrange(unit(query, 1), "n c h w -> 1 1 (n h w) c")
    keys = rearrange(unit(prototypes, 1), "p c -> 1 1 p c")
    explained = F.scaled_dot_product_attention(cells, keys, keys, scale=temperature)
    scores = temperature * reduce(cells * explained, "1 1 nhw c -> nhw", "sum")
    return rearrange(scores, "(n h w) -> n h w", n=query.shape[0], h=query.shape[2])


def nearest_prototype(query: Tensor, prototypes: Tensor) -> Tensor:
    """Index of the most similar prototype of every cell: query (n c h w), prototypes (p c) -> (n h w) int64."""
    return einsum(unit(query, 1), unit(prototypes, 1), "n c h w, p c -> n p h w").argmax(1)
