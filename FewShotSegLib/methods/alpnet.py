"""SSL-ALPNet (Ouyang et al., ECCV 2020): adaptive local prototypes, alpnet_visa.md section 4."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.prototypes import local_prototypes, masked_average, pool_cells, prototype_scores, resize_masks

log = logging.getLogger(__name__)

Mode = Literal["mask", "gridconv", "gridconv+"]


@dataclass(frozen=True)
class AlpnetConfig:
    """Options of the ALP head; lengths in feature cells.

    temperature: factor of the cosine. tau: a block counts when the mask fills more than this part of it.
    window: side of a block (2 at use; cells / 8 in training). gate, gate_window: the organ gets local prototypes when the
    mask fills some block of side `gate_window` by at least `gate`. faithful: as published, a support without a single full
    background block is an error; otherwise the mean background feature stands in.
    """

    temperature: float = 20.0
    tau: float = 0.95
    window: int = 2
    gate: float = 0.95
    gate_window: int = 4
    faithful: bool = False

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 <= self.tau < 1 or not 0 < self.gate <= 1 or min(self.window, self.gate_window) < 1:
            raise ConfigError(
                f"These options are impossible: {self}",
                "temperature > 0, 0 <= tau < 1, 0 < gate <= 1, windows of at least 1 cell",
                "correct the option",
            )


@dataclass(frozen=True, eq=False)
class AlpnetMemory:
    """Prototypes (p c) of background and organ, and the mode that made each."""

    background: Tensor
    foreground: Tensor
    background_mode: Mode
    foreground_mode: Mode

    def to(self, device: torch.device | str) -> AlpnetMemory:
        """The same memory on `device`."""
        return replace(self, background=self.background.to(device), foreground=self.foreground.to(device))


def alp_prototypes(features: Tensor, masks: Tensor, mode: Mode, window: int, tau: float) -> Tensor:
    """Prototypes (p c) of one class: features (s c h w), masks (s h w) at feature resolution.

    `mask`: the mean over slices of the masked averages. `gridconv`: local prototypes, possibly none.
    `gridconv+`: local prototypes, then one masked average per slice.
    """
    if mode == "mask":
        return masked_average(features, masks).mean(0, keepdim=True)
    local = local_prototypes(features, masks, window, tau)
    return local if mode == "gridconv" else torch.cat([local, masked_average(features, masks)])


class Alpnet:
    """The ALP head: local prototypes of the background, local and global ones of an organ that is large enough."""

    name: ClassVar[str] = "alpnet"
    default_strategy: ClassVar[str] = "direct"

    def __init__(self, config: AlpnetConfig | None = None) -> None:
        self.config = config or AlpnetConfig()

    def remember(self, features: Tensor, masks: Tensor) -> AlpnetMemory:
        """Prototypes of features (s c h w) under masks (s H W), 0..1; every slice is one shot."""
        organ = resize_masks(masks.to(features.dtype), (features.shape[2], features.shape[3]))
        foreground_mode = self._foreground_mode(organ)
        background, background_mode = self._background(features, 1 - organ)
        foreground = alp_prototypes(features, organ, foreground_mode, self.config.window, self.config.tau)
        return AlpnetMemory(background, foreground, background_mode, foreground_mode)

    def score(self, features: Tensor, memory: AlpnetMemory) -> Tensor:
        """Logits (n 2 h w) of features (n c h w), all slices in one product."""
        classes = (memory.background, memory.foreground)
        return torch.stack([prototype_scores(features, p, self.config.temperature) for p in classes], 1)

    def _foreground_mode(self, organ: Tensor) -> Mode:
        fullest = pool_cells(organ[:, None], self.config.gate_window).max()
        return "gridconv+" if fullest >= self.config.gate else "mask"

    def _background(self, features: Tensor, background: Tensor) -> tuple[Tensor, Mode]:
        prototypes = alp_prototypes(features, background, "gridconv", self.config.window, self.config.tau)
        if len(prototypes):
            return prototypes, "gridconv"
        if self.config.faithful:
            raise SupportError(
                f"No {self.config.window} x {self.config.window} block of cells lies wholly outside the organ",
                "at least one block of background",
                "choose a support slice that shows more than the organ, or leave out faithful=True",
            )
        log.warning("No full block of background in %d support slice(s): its mean feature stands in.", len(features))
        return alp_prototypes(features, background, "mask", self.config.window, self.config.tau), "mask"
