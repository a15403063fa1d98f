"""Displacement between neighbouring slices: the flow network, warping, and cleaning of warped masks.

Source: VISA-FSS (MICCAI 2023), alpnet_visa.md section 9. A flow (b 2 h w) holds row (channel 0) and column displacements
in pixels, on the target's grid: moved(x) = source(x + flow(x)).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SUPERPIXEL_SIZE = 200
SUPERPIXEL_SIGMA = 0.1


class FlowNetwork(nn.Module):
    """VoxelMorph-like 2-D network of 107,442 parameters: source and target (b h w) normalised -> flow (b 2 h w).

    h and w are at least 16; section 9.1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList([nn.Conv2d(inputs, 32, 3, stride=2, padding=1) for inputs in (2, 32, 32, 32)])
        self.decoder = nn.ModuleList([nn.Conv2d(inputs, 32, 3, padding=1) for inputs in (32, 64, 64, 64, 32)])
        self.full = nn.Conv2d(34, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 2, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Flow (b 2 h w) that moves source (b h w) onto target (b h w)."""
        pair = torch.stack([source, target], 1)
        skips = [pair]
        for conv in self.encoder:
            skips.append(_activate(conv(skips[-1])))
        x = skips.pop()
        for conv in self.decoder[:3]:
            x = _join(_activate(conv(x)), skips.pop())
        for conv in self.decoder[3:]:
            x = _activate(conv(x))
        return self.head(_activate(self.full(_join(x, skips.pop()))))


def _activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def _join(x: Tensor, skip: Tensor) -> Tensor:
    """`x` enlarged (nearest) to the size of `skip`, then `skip`, along channels."""
    return torch.cat([F.interpolate(x, skip.shape[-2:], mode="nearest"), skip], 1)


def warp(source: Tensor, flow: Tensor, *, faithful: bool = False, padding: Literal["zeros", "border"] = "zeros") -> Tensor:
    """moved(x) = source(x + flow(x)), bilinear: source (b c h w), flow (b 2 h w) -> (b c h w). Section 9.4.

    `faithful`: the published sampling, loc * size / (size - 1) - 1/2, for which zero flow is not the identity.
    """
    height, width = flow.shape[-2:]
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None] + flow[:, 0]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device) + flow[:, 1]
    grid = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], -1)
    return F.grid_sample(source, grid, mode="bilinear", padding_mode=padding, align_corners=not faithful)


def warp_masks(masks: Tensor, flow: Tensor, *, faithful: bool = False) -> Tensor:
    """Masks (b h w) 0..1 carried by flows (b 2 h w): bilinear, then rounded (half to even) -> (b h w)."""
    return warp(masks[:, None].to(flow.dtype), flow, faithful=faithful)[:, 0].round()


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The flow (b 2 h w) that warps by `first` and then by `second`: second(x) + first(x + second(x)). Section 9.3."""
    return second + warp(first, second, padding="border")


def carry_mask(mask: Tensor, flows: Sequence[Tensor], *, round_each: bool = False) -> Tensor:
    """A mask (h w) carried through neighbours, flows[i] (2 h w) leading from slice i to slice i + 1 -> (h w), 0 or 1.

    The flows are composed and the mask is warped and rounded once, as in the paper; `round_each` warps and rounds at every
    step instead. The released code's direct registration is `flows` of length one.
    """
    if not flows:
        return mask.round()
    steps = [flow[None] for flow in flows]
    for flow in steps if round_each else [reduce(compose, steps)]:
        mask = warp_masks(mask[None], flow)[0]
    return mask


def s2v(source: Tensor, target: Tensor, source_mask: Tensor, target_mask: Tensor, window: int = 2) -> Tensor:
    """`target_mask` without the pixels that look more like the source organ's rim than like the organ. Section 9.5.

    source, target (h w) intensities; masks (h w); the rim is what a dilation by window x window ones (anchor at its lower
    right) adds. An empty mask, or one without a rim, gives an empty mask. -> (h w) bool
    """
    organ = source_mask > 0.5
    before, after = window // 2, window - 1 - window // 2
    padded = F.pad(organ[None, None].float(), (before, after, before, after))
    rim = (F.max_pool2d(padded, window, stride=1)[0, 0] > 0.5) & ~organ
    inside, outside = source[organ].mean(), source[rim].mean()
    return (target_mask > 0.5) & ((target - inside) ** 2 < (target - outside) ** 2)


def superpixel_clean(image: np.ndarray, mask: np.ndarray, ratio: float) -> np.ndarray:
    """`mask` (rows, columns) cleared in every superpixel of `image` that it fills by less than `ratio` -> bool. Section 9.5.

    Never adds a pixel; the superpixels depend on the version of scikit-image.
    """
    from skimage.segmentation import felzenszwalb

    segments = felzenszwalb(255 * image, sigma=SUPERPIXEL_SIGMA, min_size=SUPERPIXEL_SIZE)
    organ = mask > 0.5
    filled = np.bincount(segments[organ], minlength=segments.max() + 1) / np.bincount(segments.ravel())
    return organ & (filled[segments] >= ratio)
