"""RPT (MICCAI 2023): regional prototypes led to the query by a transformer, adnet_qnet_rpt_pami_qamp.md section 6."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from FewShotSegLib.attention import RegionAttention, RegionMlp, affinity, region_weights
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.regional import RegionHead, RegionMethod

REGIONS = {1: 10, 2: 100}


@dataclass(frozen=True)
class RptConfig:
    """Options of RPT.

    version: 1 as of 2023 (10 regions), 2 as of 2024 (100 regions, and the organ's mean is added to theirs). regions: their
    number, 0 = the version's. temperature: of the affinity between regions and query. channels: of the encoder's features.
    lenient: the learned threshold is never stricter than the drawing asks for, see `lenient_threshold`. faithful: as published.
    iterations: debiasing steps, 0 = none. More are hardly better: mean Dice with 0, 1, 3, 5, released head (trained with 3), 2
    queries of fold 0, extents told: cmr 73.2, 72.7, 72.1, 71.0; chaos_t2 82.8, 83.5, 83.2, 82.8.
    """

    version: int = 2
    regions: int = 0
    iterations: int = 3
    temperature: float = 20.0
    channels: int = 256
    lenient: bool = True
    faithful: bool = False

    def __post_init__(self) -> None:
        numbers = min(self.regions, self.iterations, self.channels - 1)
        if self.version not in REGIONS or numbers < 0 or self.temperature <= 0:
            raise ConfigError(
                f"These options are impossible: {self}",
                "version 1 or 2, regions and iterations from 0, temperature above 0, channels from 1",
                "correct the option",
            )


class BatBlock(nn.Module):
    """The bias-alleviated transformer block: regions (... k c) and query prototype (... 1 c) -> regions (... k c)."""

    def __init__(self, channels: int, *, temperature: float = 20.0, faithful: bool = False) -> None:
        super().__init__()
        self.faithful = faithful
        self.temperature = None if faithful else temperature
        self.attention = RegionAttention(channels)
        self.mlp = RegionMlp(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, prototypes: Tensor, query: Tensor) -> Tensor:
        weights = region_weights(affinity(prototypes, query, self.temperature), faithful=self.faithful)
        x = self.norm(weights * query + prototypes)
        return self.mlp(self.attention(x, x))


class Rpt(RegionMethod):
    """Regions of the organ, debiased by BaT blocks that share their weights."""

    name: ClassVar[str] = "rpt"

    def __init__(self, config: RptConfig | None = None) -> None:
        self.config = config = config or RptConfig()
        block = BatBlock(config.channels, temperature=config.temperature, faithful=config.faithful)
        super().__init__(
            RegionHead(block, config.channels, faithful=config.faithful),
            regions=config.regions or REGIONS[config.version],
            iterations=config.iterations,
            keep_mean=config.version == 2,
            lenient=config.lenient,
            faithful=config.faithful,
        )
