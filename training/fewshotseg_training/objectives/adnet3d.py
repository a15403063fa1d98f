"""The losses of ADNet-3D: adnet_qnet_rpt_pami_qamp.md section 4.4."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from fewshotseg_training.episodes import Episodes
from fewshotseg_training.objectives.adnet import AdnetObjective
from fewshotseg_training.objectives.base import Recipe
from fewshotseg_training.objectives.losses import likelihood_loss
from FewShotSegLib.anomaly import anomaly, margin, probabilities
from FewShotSegLib.prototypes import AREA_FLOOR, unit

DEPTH = 10  # slices of a volume


class Adnet3dObjective(AdnetObjective):
    """ADNet on volumes: the slices of a side are one volume, with one prototype; the swapped loss is at feature resolution."""

    name: ClassVar[str] = "adnet3d"
    recipe = Recipe(
        source="volume", support=DEPTH, query=DEPTH, transformed="one", steps=15_000, decay=0.95, encoder="resnext3d101"
    )

    def features(self, encoder: nn.Module, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Every volume goes through the encoder by itself, as published."""
        support, query = (torch.stack([encoder(volume) for volume in side]) for side in (episodes.support, episodes.query))
        return (support, query) if self.method.config.faithful else (unit(support, 2), unit(query, 2))

    def alignment(self, support: Tensor, masks: Tensor, query: Tensor, predicted: Tensor, threshold: Tensor) -> Tensor:
        """As in 2D, with one prototype of the predicted volume."""
        if not predicted.any():
            return threshold * 0
        whole = (query * predicted[:, None]).sum((0, 2, 3)) / (predicted.sum() + AREA_FLOOR)
        return self.swapped_loss(margin(anomaly(support, whole), threshold), masks)

    def swapped_loss(self, margins: Tensor, masks: Tensor) -> Tensor:
        """Against the cells of the masks, without upsampling."""
        size = (margins.shape[1], margins.shape[2])
        cells = self.method.cells(masks.to(margins.dtype), size)
        return likelihood_loss(probabilities(margins, size), (cells > 0.5).long(), background=1.0)
