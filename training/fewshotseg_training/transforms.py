"""The published augmentation on batches: affine map, elastic bend, gamma (alpnet_visa.md section 3.1; adnet..., 3.3).

Random numbers are drawn sample by sample, each from its own generator, so that a batch may be spread over processes; the
work is done for the whole batch, on its device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

BLUR = 21  # pixels


@dataclass(frozen=True)
class PaperAugment:
    """Ranges of the published changes: degrees, pixels, zoom, elastic strength (pixels) and blur, gamma."""

    degrees: float = 5.0
    shift: float = 5.0
    shear: float = 5.0
    zoom: tuple[float, float] = (0.9, 1.2)
    elastic: float = 10.0
    sigma: float = 5.0
    gamma: tuple[float, float] = (0.5, 1.5)


@dataclass(frozen=True, eq=False)
class Change:
    """One change for each sample of a batch: affine (b 5), noise (b 2 H W) in [-1, 1], gamma (b)."""

    affine: Tensor
    noise: Tensor
    gamma: Tensor


def draw_changes(config: PaperAugment, size: tuple[int, int], rngs: Sequence[np.random.Generator]) -> Change:
    """A random change for every generator: rotation, shift x, shift y, shear (degrees, pixels), zoom; fields; gamma."""
    low = [-config.degrees, -config.shift, -config.shift, -config.shear, config.zoom[0]]
    high = [config.degrees, config.shift, config.shift, config.shear, config.zoom[1]]
    affine = np.stack([rng.uniform(low, high) for rng in rngs])
    noise = np.stack([2 * rng.random((2, *size), dtype=np.float32) - 1 for rng in rngs])
    gamma = np.array([rng.uniform(*config.gamma) for rng in rngs])
    return Change(torch.from_numpy(affine), torch.from_numpy(noise), torch.from_numpy(gamma).float())


def affine_matrix(params: Tensor, size: tuple[int, int]) -> Tensor:
    """Forward maps (b 3 3) in (x, y): zoom * shear * shift * rotation; params (b 5) as `draw_changes` draws them.

    Rotation and zoom are about (x, y) = (rows / 2, columns // 2); the shear is about the origin, as published.
    """
    angle, tx, ty, shear, zoom = params.double().unbind(1)
    shear = torch.deg2rad(shear)
    centre = (size[0] / 2, float(size[1] // 2))
    eye = torch.eye(3, dtype=torch.float64).repeat(len(params), 1, 1)
    shift, sheared = eye.clone(), eye.clone()
    shift[:, 0, 2], shift[:, 1, 2] = tx, ty
    sheared[:, 0, 1], sheared[:, 1, 1] = -shear.sin(), shear.cos()
    turn = _about(centre, torch.deg2rad(angle), torch.ones_like(zoom))
    return _about(centre, torch.zeros_like(zoom), zoom) @ sheared @ shift @ turn


def _about(centre: tuple[float, float], angle: Tensor, scale: Tensor) -> Tensor:
    """OpenCV's rotation with scale about a point: (b 3 3)."""
    (x, y), a, b = centre, scale * angle.cos(), scale * angle.sin()
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    rows = [a, b, (1 - a) * x - b * y, -b, a, b * x + (1 - a) * y, zero, zero, one]
    return torch.stack(rows, 1).reshape(-1, 3, 3)


def warp_affine(images: Tensor, forward: Tensor) -> Tensor:
    """out(x) = in(M^-1 x), linear, zero outside: images (b k H W), forward (b 3 3)."""
    height, width = images.shape[-2:]
    inverse = torch.linalg.inv(forward.double()).float().to(images.device)
    rows, columns = torch.meshgrid(*(torch.arange(n, device=images.device).float() for n in (height, width)), indexing="ij")
    places = torch.stack([columns, rows, torch.ones_like(rows)], -1).reshape(-1, 3)
    source = (places @ inverse.transpose(1, 2))[..., :2].reshape(-1, height, width, 2)
    return _sample(images, source, "zeros")


def bend_field(noise: Tensor, strength: float, sigma: float) -> Tensor:
    """Displacement (b 2 H W) in pixels, first of columns, then of rows: blurred noise times `strength`."""
    at = torch.arange(BLUR, dtype=noise.dtype, device=noise.device) - BLUR // 2
    kernel = (-(at**2) / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(noise.shape[1], 1, 1, BLUR)
    padded = F.pad(noise, [BLUR // 2] * 4, mode="reflect")
    blurred = F.conv2d(F.conv2d(padded, kernel, groups=noise.shape[1]), kernel.transpose(2, 3), groups=noise.shape[1])
    return strength * blurred


def bend(images: Tensor, field: Tensor) -> Tensor:
    """Images (b k H W) sampled at (row + field[1], column + field[0]), linear, mirrored at the border."""
    height, width = images.shape[-2:]
    rows, columns = torch.meshgrid(*(torch.arange(n, device=images.device).float() for n in (height, width)), indexing="ij")
    return _sample(images, torch.stack([columns + field[:, 0], rows + field[:, 1]], -1), "reflection")


def _sample(images: Tensor, at: Tensor, padding: str) -> Tensor:
    """Images (b k H W) at positions (b H W 2), x before y, in pixels."""
    size = torch.tensor([images.shape[-1], images.shape[-2]], dtype=at.dtype, device=at.device)
    return F.grid_sample(images, (2 * at + 1) / size - 1, mode="bilinear", padding_mode=padding, align_corners=False)


def apply_gamma(images: Tensor, gamma: Tensor) -> Tensor:
    """Grey values of each sample (b ...), taken together, raised to its gamma (b); their range stays."""
    flat = images.flatten(1)
    low = flat.amin(1, keepdim=True)
    span = flat.amax(1, keepdim=True) - low + 1e-5
    return (span * ((flat - low + 1e-5) / span) ** gamma[:, None].to(flat) + low).view_as(images)


def move(images: Tensor, masks: Tensor, change: Change, config: PaperAugment) -> tuple[Tensor, Tensor]:
    """Images and masks (b k H W) through the affine map and the bend; masks come out as 0 or 1 (one half is background)."""
    both = torch.cat([images, masks], 1)
    both = warp_affine(both, affine_matrix(change.affine, (images.shape[-2], images.shape[-1])))
    both = bend(both, bend_field(change.noise.to(images.device), config.elastic, config.sigma))
    images, masks = both.chunk(2, 1)
    return images.contiguous(), (masks > 0.5).to(images.dtype)
