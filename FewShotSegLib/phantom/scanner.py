"""From painted tissues to an MR or CT scan: brightness, texture, blur, receive field, noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from FewShotSegLib.phantom.fields import grain, smooth_field
from FewShotSegLib.phantom.frame import Canvas
from FewShotSegLib.phantom.tissues import LOOKS, Look, Tissue

Spacing = tuple[float, float, float]


def scan(canvas: Canvas, modality: str, axes: tuple[np.ndarray, ...], spacing: Spacing, rng: np.random.Generator) -> np.ndarray:
    """Image of the painted anatomy, int16 (z, y, x): MR in arbitrary units from 0 up, CT in Hounsfield units.

    Args:
        canvas: the painted anatomy.
        modality: "MR" or "CT".
        axes: coordinates of the voxels along (z, y, x), mm.
        spacing: voxel spacing (x, y, z), mm.
        rng: the scanner's randomness; the anatomy has its own.
    """
    image = _textured(canvas, LOOKS[modality], spacing, rng)
    image = ndimage.gaussian_filter(
        image, [blur / mm for blur, mm in zip((2.4, 0.75, 0.75), reversed(spacing), strict=True)], mode="nearest"
    )
    finish = _finish_mr if modality == "MR" else _finish_ct
    return np.rint(finish(image, axes, spacing, rng)).astype(np.int16)


def _textured(canvas: Canvas, looks: dict[Tissue, Look], spacing: Spacing, rng: np.random.Generator) -> np.ndarray:
    table = np.array(
        [(looks[t].mean, looks[t].spread, looks[t].grain, looks[t].mottle, looks[t].content) for t in Tissue], np.float32
    )
    level = table[:, 0] + table[:, 1] * np.clip(rng.standard_normal(len(table)), -1.8, 1.8).astype(np.float32)
    shape = canvas.tissue.shape
    fine = grain(rng, shape, _voxels((2.0, 1.2, 1.2), spacing))
    coarse = grain(rng, shape, _voxels((6.0, 5.0, 5.0), spacing))
    tissue = canvas.tissue
    image = level[tissue] + table[:, 4][tissue] * canvas.content
    image += table[:, 2][tissue] * fine
    image += table[:, 3][tissue] * coarse
    return image


def _voxels(mm: Spacing, spacing: Spacing) -> tuple[float, float, float]:
    """Millimetres along (z, y, x) in voxels of spacing (x, y, z)."""
    return mm[0] / spacing[2], mm[1] / spacing[1], mm[2] / spacing[0]


def _finish_mr(image: np.ndarray, axes: tuple[np.ndarray, ...], spacing: Spacing, rng: np.random.Generator) -> np.ndarray:
    """Multiply by the coils' sensitivity, then take the magnitude of a complex signal with Gaussian noise (Rician)."""
    z, y, x = np.meshgrid(*(a.astype(np.float32) / 150 for a in axes), indexing="ij", sparse=True)
    sensitivity = np.exp(0.14 * smooth_field(rng, axes, 110.0) + rng.normal(0, 0.1) * x + rng.normal(0.05, 0.1) * y)
    sensitivity = sensitivity * (0.85 + 0.25 * (x**2 + y**2)) * np.exp(-0.3 * np.clip(np.abs(z) - 0.55, 0, 1))
    gain, noise = rng.uniform(0.75, 1.2), rng.uniform(6.0, 13.0)
    real = gain * np.maximum(image, 0) * sensitivity + noise * rng.standard_normal(image.shape, dtype=np.float32)
    return np.hypot(real, noise * rng.standard_normal(image.shape, dtype=np.float32))


def _finish_ct(image: np.ndarray, axes: tuple[np.ndarray, ...], spacing: Spacing, rng: np.random.Generator) -> np.ndarray:
    """Add the patient table and noise with the grain of a soft tissue kernel; clip to the scanner's range."""
    _, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    below = y - (rng.uniform(126, 134) - (x / 30) ** 2)
    image[np.broadcast_to((np.abs(below) < 1.2) & (image.max(0, keepdims=True) < -300), image.shape)] = 120
    noise = rng.uniform(9, 17)
    return np.clip(image + noise * grain(rng, image.shape, _voxels((0.8, 0.7, 0.7), spacing)), -1024, 1800)
