"""What a method's training begins with when the user says little."""

from __future__ import annotations

import pytest

from fewshotseg_training.presets import config_for

DATA = (("a.npz",),)


@pytest.mark.parametrize(("method", "rate"), [("qnet", 0.03), ("qamp", 0.01), ("rpt", 2e-3)])
def test_a_head_on_a_frozen_encoder_learns_fast(method: str, rate: float) -> None:
    config = config_for(method, DATA, "run", freeze_encoder=True)
    assert (config.optimiser, config.lr, config.steps, config.weight_decay) == ("adam", rate, 300, 0.0)
    assert config_for(method, DATA, "run", freeze_encoder=True, lr=0.5, steps=7).lr == 0.5


def test_with_its_encoder_a_method_keeps_the_paper_s_optimiser() -> None:
    ours, published = (config_for("qnet", DATA, "run", published=p) for p in (False, True))
    assert (ours.optimiser, ours.lr, ours.steps) == ("sgd", 1e-3, 2000)
    assert (published.optimiser, published.steps, published.pairs) == ("sgd", 30_000, 1)
    assert config_for("qnet", DATA, "run", published=True, freeze_encoder=True).steps == 30_000
