from __future__ import annotations

import pytest
import torch
from test_alpnet import QUERY, SUPPORT, features_of
from test_regional import made

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.methods.rpt import BatBlock, RptConfig


def test_the_versions_differ_in_regions_and_in_keeping_the_mean() -> None:
    first, second = made("rpt", version=1), made("rpt", version=2)
    assert (first.regions, second.regions) == (10, 100)
    memory = first.remember(features_of(SUPPORT), SUPPORT)
    query = features_of(QUERY, seed=1)
    thresholds = torch.full((len(query),), -10.0)
    with torch.no_grad():
        first.head.gate.zero_()
        second.head.gate.zero_()
        mean = first.steps(query, memory, thresholds)[-1].prototypes
        torch.testing.assert_close(second.steps(query, memory, thresholds)[-1].prototypes, mean + memory.prototype)


def test_there_is_a_step_for_every_iteration_and_one_before() -> None:
    method = made("rpt", iterations=2)
    memory = method.remember(features_of(SUPPORT), SUPPORT)
    with torch.no_grad():
        steps = method.steps(features_of(QUERY, seed=1), memory, torch.full((3,), -10.0))
    assert len(steps) == 3
    torch.testing.assert_close(steps[0].prototypes, memory.prototype.expand(3, -1))


def test_the_block_looks_at_the_query() -> None:
    block = BatBlock(8).eval()
    generator = torch.Generator().manual_seed(0)
    regions, queries = torch.randn(5, 8, generator=generator), torch.randn(2, 1, 8, generator=generator)
    with torch.no_grad():
        assert not torch.allclose(block(regions, queries[0]), block(regions, queries[1]), atol=1e-3)


def test_the_number_of_regions_can_be_chosen() -> None:
    assert made("rpt", regions=7).remember(features_of(SUPPORT), SUPPORT).regions.shape == (2, 7, 16)


@pytest.mark.parametrize("wrong", [{"version": 3}, {"regions": -1}, {"iterations": -1}, {"temperature": 0.0}, {"channels": 0}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="impossible"):
        RptConfig(**wrong)  # type: ignore[arg-type]
