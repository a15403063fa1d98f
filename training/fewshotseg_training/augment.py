"""Geometry and intensity changes on batches of slices; every draw comes from the generator that is passed in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

FEWEST_REGIONS = 4  # that a slice shows, or its grey levels stay
OWN_LEVEL = 0.6  # part of the grey range by which regions of one grey level may differ afterwards
ALWAYS = 2.0  # above every number that is drawn


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the changes: degrees, zoom factors, shift and bend as fractions of half the image, gamma, bias, noise.

    `curves`: the part of the images whose grey levels go through a random curve, so that one tissue looks like another.
    `recolour`: the part in which every region gets a grey level of its own, so that only shapes and borders stay.
    """

    degrees: float = 12.0
    zoom: tuple[float, float] = (0.85, 1.2)
    shift: float = 0.08
    bend: float = 0.06
    gamma: tuple[float, float] = (0.5, 1.5)
    bias: float = 0.4
    noise: float = 0.05
    curves: float = 0.0
    recolour: float = 0.0


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Numbers 0..1 on the generator's device, which is that of the images."""
    return torch.rand(shape, generator=generator, device=generator.device)


def _signed(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return _uniform(shape, generator) * 2 - 1


def _between(limits: tuple[float, float], shape: tuple[int, ...], generator: Generator) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * _uniform(shape, generator)


def sampling_grid(batch: int, size: tuple[int, int], config: AugmentConfig, generator: Generator) -> Tensor:
    """Sampling positions (b, h, w, 2) of a random affine map bent by a smooth random field."""
    angle = _signed((batch,), generator) * math.radians(config.degrees)
    zoom = 1 / _between(config.zoom, (batch,), generator)
    shift = _signed((batch, 2), generator) * config.shift
    rows = [
        torch.stack([angle.cos() * zoom, -angle.sin() * zoom, shift[:, 0]], 1),
        torch.stack([angle.sin() * zoom, angle.cos() * zoom, shift[:, 1]], 1),
    ]
    affine = F.affine_grid(torch.stack(rows, 1), [batch, 1, *size], align_corners=False)
    bend = _signed((batch, 2, 8, 8), generator) * config.bend
    return affine + F.interpolate(bend, size, mode="bicubic").permute(0, 2, 3, 1)


def change_intensity(image: Tensor, config: AugmentConfig, generator: Generator) -> Tensor:
    """Gamma, a smooth multiplicative bias field and noise on images (b, h, w)."""
    batch, *size = image.shape
    low = image.amin((1, 2), keepdim=True)
    span = image.amax((1, 2), keepdim=True) - low + 1e-5
    image = span * ((image - low + 1e-5) / span) ** _between(config.gamma, (batch, 1, 1), generator)
    bias = 1 + config.bias * F.interpolate(_signed((batch, 1, 4, 4), generator), size, mode="bicubic")[:, 0]
    noise = torch.randn(image.shape, generator=generator, device=generator.device) * _uniform((batch, 1, 1), generator)
    return image * bias + low + config.noise * noise


def random_curves(image: Tensor, part: float, generator: Generator, knots: int = 7) -> Tensor:
    """About `part` of the images (b, h, w) with grey levels through a random curve; air stays dark, mean and spread stay.

    A curve runs linearly between `knots` even levels. Half of the curves are bent away from the identity, the other half
    have levels of any height, as if another contrast or modality showed the same anatomy.
    """
    batch = len(image)
    chosen = _uniform((batch,), generator) < part
    identity = torch.linspace(0, 1, knots, device=image.device).expand(batch, -1)
    free = _uniform((batch, knots), generator)
    wild = _uniform((batch, 1), generator) < 0.5
    levels = torch.where(wild, free, identity + 0.4 * (free - 0.5))
    levels[:, 0] = 0
    low, high = image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    at = (image - low) / (high - low + 1e-5) * (knots - 1)
    below = at.floor().clamp(0, knots - 2).long()
    left, right = (levels.gather(1, (below + step).flatten(1)).view_as(image) for step in (0, 1))
    curved = left + (right - left) * (at - below)
    mean, std = image.mean((1, 2), keepdim=True), image.std((1, 2), keepdim=True)
    curved = (curved - curved.mean((1, 2), keepdim=True)) / (curved.std((1, 2), keepdim=True) + 1e-5) * std + mean
    return torch.where(chosen[:, None, None], curved, image)


def recolour(image: Tensor, regions: Tensor, part: float, generator: Generator) -> Tensor:
    """About `part` of the images (b, h, w) with a new grey level for every region (ids (b, h, w), 0 = outside the body).

    What a region keeps of its texture differs, too, and may be turned round; outside stays darkest, mean and spread stay. As if
    a modality that nobody has seen showed the same anatomy.
    """
    chosen = _uniform((len(image),), generator) < part
    return torch.stack(
        [_recoloured(one, ids, generator) if wanted else one for one, ids, wanted in zip(image, regions, chosen, strict=True)]
    )


def _recoloured(image: Tensor, regions: Tensor, generator: Generator) -> Tensor:
    """One image (h, w); as it is when it shows hardly any region."""
    ids, index = torch.unique(regions, return_inverse=True)
    if len(ids) < FEWEST_REGIONS:
        return image
    sums, sizes = (
        torch.zeros(len(ids), device=image.device).index_add_(0, index.flatten(), v.flatten())
        for v in (image, torch.ones_like(image))
    )
    means = sums / sizes
    level = random_curves(means[None, :, None], ALWAYS, generator)[0, :, 0]
    level = (level - level.min()) / (level.max() - level.min() + 1e-5) + OWN_LEVEL * (_uniform((len(ids),), generator) - 0.5)
    texture = _signed((len(ids),), generator)
    span = (image.max() - image.min()) / 2
    new = level[index] * span + texture[index] * (image - means[index])
    outside = regions == 0
    if outside.any():
        new = torch.where(outside, new[~outside].min() - 0.3 * span + 0.2 * (image - image.min()), new)
    return (new - new.mean()) / (new.std() + 1e-5) * image.std() + image.mean()


def augment(image: Tensor, regions: Tensor, config: AugmentConfig, generator: Generator) -> tuple[Tensor, Tensor]:
    """Warp images (b, h, w) and their region ids (b, h, w) together, then change the images' intensities."""
    grid = sampling_grid(len(image), (image.shape[1], image.shape[2]), config, generator)
    image = F.grid_sample(image[:, None], grid, align_corners=False, padding_mode="border")[:, 0]
    regions = F.grid_sample(regions[:, None].float(), grid, align_corners=False, mode="nearest")[:, 0].long()
    if config.curves:
        image = random_curves(image, config.curves, generator)
    if config.recolour:
        image = recolour(image, regions, config.recolour, generator)
    return change_intensity(image, config, generator), regions
