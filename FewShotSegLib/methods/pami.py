"""PAMI, "Partition a medical image" (IEEE TIM 2024): regions debiased at several scales, section 7 of
adnet_qnet_rpt_pami_qamp.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from FewShotSegLib.anomaly import anomaly, margin
from FewShotSegLib.debiasing import RegionMemory, soft_prototype
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.pami_block import PrdBlock
from FewShotSegLib.methods.regional import RegionHead, RegionMethod


@dataclass(frozen=True)
class PamiConfig:
    """Options of PAMI.

    regions: their number, which is built into the weights. temperature: of the affinity between regions and query.
    assembled: share of the regions' prediction in the result; the rest is predicted by the query's own prototype. channels: of
    the encoder's features. lenient: the learned threshold is never stricter than the drawing asks for, see
    `lenient_threshold`. faithful: as published.
    iterations: debiasing steps, 0 = none. Their number hardly matters: mean Dice with 0, 1, 3, 5, released head (trained with
    3), 2 queries of fold 0, extents told: cmr 71.6, 71.6, 72.3, 72.9; chaos_t2 83.9, 83.9, 83.0, 82.2.
    """

    regions: int = 64
    iterations: int = 3
    temperature: float = 20.0
    assembled: float = 1.0
    channels: int = 256
    lenient: bool = True
    faithful: bool = False

    def __post_init__(self) -> None:
        numbers = min(self.regions - 1, self.iterations, self.channels - 1)
        if numbers < 0 or self.temperature <= 0 or not 0 <= self.assembled <= 1:
            raise ConfigError(
                f"These options are impossible: {self}",
                "regions and channels from 1, iterations from 0, temperature above 0, 0 <= assembled <= 1",
                "correct the option",
            )


class Pami(RegionMethod):
    """Regions of the organ, debiased by PRD blocks that share their weights."""

    name: ClassVar[str] = "pami"

    def __init__(self, config: PamiConfig | None = None) -> None:
        self.config = config = config or PamiConfig()
        block = PrdBlock(config.channels, config.regions, temperature=config.temperature, faithful=config.faithful)
        super().__init__(
            RegionHead(block, config.channels, faithful=config.faithful),
            regions=config.regions,
            iterations=config.iterations,
            keep_mean=False,
            lenient=config.lenient,
            faithful=config.faithful,
        )

    def margins(self, features: Tensor, memory: RegionMemory, thresholds: Tensor) -> Tensor:
        """Logits (n h w): the probabilities that the organ's and the query's own last prototype give, assembled."""
        last = self.steps(features, memory, thresholds)[-1].prototypes
        margins = margin(anomaly(features, last), thresholds)
        if self.config.assembled == 1:
            return margins
        own = margin(anomaly(features, soft_prototype(features, last, thresholds)), thresholds)
        share = self.config.assembled
        return (share * margins.sigmoid() + (1 - share) * own.sigmoid()).logit(eps=1e-6)
