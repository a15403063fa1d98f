"""The training loop on tiny scans: repeatable, resumable, learning."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from training_folder import PIXELS, prepared  # noqa: E402

from fewshotseg_training import fit as fitting  # noqa: E402
from fewshotseg_training.fit import CarryModel, FitConfig, Run, draw_pair, fit, pair_losses  # noqa: E402
from fewshotseg_training.scans import TrainingScan  # noqa: E402
from FewShotSegLib.encoders import create_encoder  # noqa: E402
from FewShotSegLib.errors import VolumeError  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return prepared(tmp_path_factory.mktemp("data"))


def config(files: tuple[str, ...], out: Path, **changes: object) -> FitConfig:
    return FitConfig((files,), str(out), **{"steps": 4, "pairs": 1, "channels": 16, "reach_mm": 50.0, **changes})  # type: ignore[arg-type]


def started(files: tuple[str, ...], out: Path, **changes: object) -> Run:
    out.mkdir(exist_ok=True)
    return Run(config(files, out, **changes))


def scan(regions: np.ndarray, spacing: float = 5.0) -> TrainingScan:
    image = np.arange(len(regions), dtype=np.float16)[:, None, None] + np.zeros(regions.shape, np.float16)
    return TrainingScan("scan", image, regions.astype(np.uint16), spacing)


MANY = np.arange(16).reshape(1, 4, 4).repeat(9, 0)


# ---------------------------------------------------------------------------------------------- pairs
@pytest.mark.parametrize(("reach_mm", "spacing", "apart"), [(14.0, 5.0, {1, 2, 3}), (14.0, 10.0, {1}), (14.0, 40.0, {1})])
def test_pairs_are_neighbours_of_one_scan(reach_mm: float, spacing: float, apart: set[int]) -> None:
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(100):
        a, a_ids, b, b_ids = draw_pair([[scan(MANY, spacing)]], reach_mm, rng)
        assert a.dtype == torch.float32 and a_ids.dtype == torch.int64 and a.shape == a_ids.shape == b.shape == b_ids.shape
        seen.add(int((a - b).abs()[0, 0]))
    assert seen == apart


def test_slices_with_too_few_regions_are_passed_over() -> None:
    regions = MANY.copy()
    regions[:5] = 0
    drawn = [int(draw_pair([[scan(regions)]], 5.0, np.random.default_rng(s))[0][0, 0]) for s in range(30)]
    assert set(drawn) == {5, 6, 7, 8}


@pytest.mark.parametrize("regions", [MANY * 0, MANY[:1]])
def test_scans_without_any_pair_are_refused(regions: np.ndarray) -> None:
    with pytest.raises(VolumeError, match="No pair of slices"):
        draw_pair([[scan(regions)]], 5.0, np.random.default_rng(0))


def test_every_data_set_is_drawn_from_equally_often() -> None:
    sets = [[scan(MANY, 5.0)] * 20, [scan(MANY[:, :2], 5.0)]]
    rng = np.random.default_rng(0)
    small = np.mean([len(draw_pair(sets, 5.0, rng)[0]) == 2 for _ in range(300)])
    assert 0.4 < small < 0.6


# ---------------------------------------------------------------------------------------------- model and loss
def test_features_are_unit_vectors_in_float32() -> None:
    features = CarryModel(create_encoder(channels=8)).eval()(torch.randn(2, 32, 32))
    assert features.shape == (2, 8, 4, 4) and features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, 4, 4), rtol=1e-3, atol=1e-3)


def test_the_temperature_is_learned(files: tuple[str, ...], tmp_path: Path) -> None:
    run = started(files, tmp_path)
    pairs = [draw_pair(run.sets, 50.0, run.rng)]
    pair_losses(run.model, pairs, run.config, run.generator).backward()
    gradients = {name: p.grad for name, p in run.model.named_parameters()}
    assert gradients["log_temperature"] is not None and gradients["log_temperature"] != 0
    assert all(g is not None for g in gradients.values())


def test_the_loss_falls(files: tuple[str, ...], tmp_path: Path) -> None:
    run = started(files, tmp_path, steps=40, lr=5e-2)
    pairs = [draw_pair(run.sets, 50.0, run.rng)]
    run.config = dataclasses.replace(run.config, pairs=1)
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(fitting, "draw_pair", lambda *args: pairs[0])
        patch.setattr(fitting, "augment", lambda image, ids, *rest: (image, ids))
        for _ in range(12):
            run.advance()
    assert np.mean(run.losses[-3:]) < 0.9 * np.mean(run.losses[:3])


def test_the_rate_falls_to_nothing(files: tuple[str, ...], tmp_path: Path) -> None:
    run = started(files, tmp_path, steps=3, lr=0.1)
    rates = []
    for _ in range(3):
        run.advance()
        rates.append(run.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1 * (1 - s / 4) ** 0.9 for s in (1, 2, 3)])


# ---------------------------------------------------------------------------------------------- repeating and resuming
def test_the_same_seed_gives_the_same_losses(files: tuple[str, ...], tmp_path: Path) -> None:
    losses = []
    for seed in (0, 0, 1):
        run = started(files, tmp_path, seed=seed)
        for _ in range(2):
            run.advance()
        losses.append(run.losses)
    assert losses[0] == losses[1] != losses[2]


def test_an_interrupted_run_goes_on_bit_for_bit(files: tuple[str, ...], tmp_path: Path) -> None:
    whole = load_file(fit(config(files, tmp_path / "whole")))
    first = started(files, tmp_path / "cut")
    first.advance()
    first.advance()
    first.save()
    first.advance()  # this step is lost
    second = load_file(fit(config(files, tmp_path / "cut")))
    assert whole.keys() == second.keys()
    assert all(torch.equal(whole[name], second[name]) for name in whole)
    losses = [torch.load(tmp_path / name / "state.pt", weights_only=True)["losses"] for name in ("whole", "cut")]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_a_finished_run_is_not_trained_further(files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_file(fit(config(files, tmp_path, steps=1)))
    monkeypatch.setattr(Run, "advance", lambda self: pytest.fail("trained"))
    second = load_file(fit(config(files, tmp_path, steps=1)))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_state_is_saved_in_time_and_whole(files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = Run.save

    def watched(self: Run) -> None:
        saved.append(self.step)
        save(self)

    monkeypatch.setattr(Run, "save", watched)
    fit(config(files, tmp_path, steps=2, save_every_s=0.0))
    assert saved == [1, 2, 2]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.safetensors", "run.json", "state.pt"]


def test_a_run_says_what_it_was(files: tuple[str, ...], tmp_path: Path) -> None:
    path = fit(config(files, tmp_path, steps=0, seed=5))
    said = json.loads((tmp_path / "run.json").read_text())
    assert (said["seed"], said["steps"], said["data"]) == (5, 0, [list(files)])
    encoder = create_encoder(channels=16)
    encoder.load_state_dict(load_file(path))  # nothing but the encoder


def test_training_starts_from_given_weights(files: tuple[str, ...], tmp_path: Path) -> None:
    start = fit(config(files, tmp_path / "start", steps=0, seed=7))
    trunk = {name: tensor for name, tensor in load_file(start).items() if name.startswith("trunk.")}
    save_file({name.removeprefix("trunk."): t for name, t in trunk.items()}, tmp_path / "trunk.safetensors")
    found = load_file(fit(config(files, tmp_path / "next", steps=0, weights=str(tmp_path / "trunk.safetensors"))))
    assert all(torch.equal(found[name], tensor) for name, tensor in trunk.items() if "num_batches" not in name)


def test_prepared_scans_have_the_size_asked_for(files: tuple[str, ...]) -> None:
    with np.load(files[0]) as data:
        assert data["image"].shape == data["regions"].shape == (6, PIXELS, PIXELS)
