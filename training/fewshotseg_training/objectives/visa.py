"""What VISA-FSS (MICCAI 2023) adds to ALPNet's losses: neighbouring slices should agree (alpnet_visa.md section 8)."""

from __future__ import annotations

from torch import Tensor


def interslice_loss(logits: Tensor) -> Tensor:
    """L2.5D: one minus the mean soft Dice of the organ's probability on consecutive slices; logits (n 2 H W), sorted by z."""
    organ = logits.softmax(1)[:, 1].flatten(1)
    above, below = organ[:-1], organ[1:]
    overlap = 2 * (above * below).sum(1) / (above.sum(1) + below.sum(1))
    return 1 - overlap.mean()


def area_change(logits: Tensor) -> Tensor:
    """Mean absolute change, in pixels, of the organ's soft area between consecutive slices; logits (n 2 H W), sorted by z.

    The released code computes it with weight zero.
    """
    return logits.softmax(1)[:, 1].sum((1, 2)).diff().abs().mean()
