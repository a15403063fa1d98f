from __future__ import annotations

import pytest
import torch
from test_alpnet import QUERY, SUPPORT, features_of
from test_regional import made, scores

from FewShotSegLib.errors import CheckpointError, ConfigError
from FewShotSegLib.methods.pami import PamiConfig
from FewShotSegLib.methods.pami_block import PrdBlock


def test_assembled_mixes_two_predictions() -> None:
    regions, both, own = (scores(made("pami", assembled=share)).softmax(1) for share in (1.0, 0.5, 0.0))
    torch.testing.assert_close(both, (regions + own) / 2, atol=1e-5, rtol=0)
    assert not torch.allclose(regions, own, atol=1e-3)


def test_the_number_of_regions_is_part_of_the_head() -> None:
    with pytest.raises(CheckpointError, match="regions=8"):
        made("pami", regions=8).load_head(made("pami", regions=9).head.state_dict())
    assert made("pami", regions=8).remember(features_of(SUPPORT), SUPPORT).regions.shape == (2, 8, 16)


def test_the_published_spatial_scale_uses_the_number_of_the_largest_channel() -> None:
    ours, published = PrdBlock(8, 4).eval(), PrdBlock(8, 4, faithful=True).eval()
    published.load_state_dict(ours.state_dict())
    x = torch.zeros(4, 8)
    x[:, 3] = 0.5
    with torch.no_grad():
        weight, bias = ours.spatial.weight, ours.spatial.bias
        for block, largest in ((ours, 0.5), (published, 3.0)):
            expected = (weight @ torch.tensor([largest, x[0].mean()]) + bias).sigmoid()
            torch.testing.assert_close(block._spatial_scale(x)[0], expected)


def test_batches_are_independent() -> None:
    block = PrdBlock(8, 4).eval()
    generator = torch.Generator().manual_seed(0)
    regions, queries = torch.randn(3, 2, 4, 8, generator=generator), torch.randn(3, 1, 1, 8, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(block(regions, queries)[2, 1], block(regions[2, 1], queries[2, 0]), atol=1e-5, rtol=0)


def test_the_query_changes_the_regions() -> None:
    method = made("pami")
    memory = method.remember(features_of(SUPPORT), SUPPORT)
    with torch.no_grad():
        last = method.steps(features_of(QUERY, seed=1), memory, torch.full((3,), -10.0))[-1].prototypes
    assert (last[0] - last[1]).abs().max() > 1e-3


@pytest.mark.parametrize("wrong", [{"regions": 0}, {"iterations": -1}, {"temperature": 0.0}, {"assembled": 1.5}, {"channels": 0}])
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="impossible"):
        PamiConfig(**wrong)  # type: ignore[arg-type]
