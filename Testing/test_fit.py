"""The training loop on tiny scans: repeatable, resumable, learning."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from training_folder import prepared  # noqa: E402

from fewshotseg_training.augment import augment  # noqa: E402
from fewshotseg_training.carry import carry_loss  # noqa: E402
from fewshotseg_training.carry_learner import CarryModel, draw_pair  # noqa: E402
from fewshotseg_training.fit import FitConfig, Paused, Run, TrainingError, fit  # noqa: E402
from fewshotseg_training.scans import TrainingScan, load_scan  # noqa: E402
from FewShotSegLib.encoders import create_encoder  # noqa: E402
from FewShotSegLib.errors import ConfigError, VolumeError  # noqa: E402


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
    features = CarryModel(create_encoder(channels=8)).eval().features(torch.randn(2, 32, 32))
    assert features.shape == (2, 8, 4, 4) and features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2, 4, 4), rtol=1e-3, atol=1e-3)


def test_the_temperature_is_learned(files: tuple[str, ...], tmp_path: Path) -> None:
    run = started(files, tmp_path)
    run.model(run.learner.source.batch(1, run.share))["carry"].backward()
    gradients = {name: p.grad for name, p in run.model.named_parameters()}
    assert gradients["log_temperature"] is not None and gradients["log_temperature"] != 0
    assert all(g is not None for g in gradients.values())


def test_the_loss_falls(files: tuple[str, ...], tmp_path: Path) -> None:
    run = started(files, tmp_path, steps=40, lr=5e-2)
    batch = run.learner.source.batch(1, run.share)
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(run.learner.source, "batch", lambda step, share: batch)
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
def test_the_carry_training_is_that_of_the_released_checkpoint(files: tuple[str, ...], tmp_path: Path) -> None:
    """The first version of the loop, written out: every option that came later leaves its losses as they were, bit for bit."""
    run = started(files, tmp_path, pairs=2, seed=3)
    for _ in range(2):
        run.advance()
    torch.manual_seed(3)
    model = CarryModel(create_encoder(channels=16)).train()
    optimiser = torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9, weight_decay=5e-4)
    rng, generator = np.random.default_rng(3), torch.Generator().manual_seed(3)
    sets = [[load_scan(Path(f)) for f in files]]
    losses = []
    for step in (1, 2):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 5) ** 0.9
        a, a_ids, b, b_ids = (torch.stack(t) for t in zip(*(draw_pair(sets, 50.0, rng) for _ in range(2)), strict=True))
        if torch.rand((), generator=generator) < 0.5:
            a, a_ids = augment(a, a_ids, run.config.augment, generator)
        else:
            b, b_ids = augment(b, b_ids, run.config.augment, generator)
        with torch.autocast("cpu", torch.bfloat16):
            features = model.encoder(torch.cat([a, b]))
        first, second = torch.nn.functional.normalize(features.float(), dim=1, eps=1e-4).chunk(2)
        t = model.log_temperature.exp()
        pairs = zip(first, a_ids, second, b_ids, strict=True)
        loss = torch.stack([carry_loss(f, i, g, j, t) + carry_loss(g, j, f, i, t) for f, i, g, j in pairs]).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        losses.append(loss.item())
    assert losses == run.losses


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


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(files: tuple[str, ...], tmp_path: Path) -> None:
    """`kill -9` in mid-training; what was saved last is whole, and the end is that of a run that nobody disturbed."""
    given = {"data": [files], "steps": 100, "pairs": 2, "channels": 16, "reach_mm": 50.0, "save_every_s": 0.0}
    for name in ("whole", "killed"):
        (tmp_path / f"{name}.json").write_text(json.dumps({**given, "out": str(tmp_path / name)}))

    def start(name: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(__file__).with_name("learning_encoder.py")), str(tmp_path / f"{name}.json")]
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)

    victim = start("killed")
    while not (tmp_path / "killed" / "state.pt").exists() and victim.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    step = json.loads((tmp_path / "killed" / "progress.json").read_text())["step"]
    assert 0 < step < given["steps"]
    both = [start(name) for name in ("whole", "killed")]
    assert [process.wait(timeout=250) for process in both] == [0, 0]
    one, other = (load_file(tmp_path / name / "encoder.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    losses = [torch.load(tmp_path / name / "state.pt", weights_only=True)["losses"] for name in ("whole", "killed")]
    assert losses[0] == losses[1] and len(losses[0]) == given["steps"]


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.safetensors", "progress.json", "run.json", "state.pt"]


def test_a_run_pauses_when_its_time_is_over(files: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(Paused, match="paused after step 1 of 4"):
        fit(config(files, tmp_path, minutes=1e-6))
    assert json.loads((tmp_path / "progress.json").read_text())["step"] == 1
    assert not (tmp_path / "encoder.safetensors").exists()
    fit(config(files, tmp_path))  # goes on without a limit
    said = json.loads((tmp_path / "progress.json").read_text())
    assert (said["step"], said["steps"]) == (4, 4) and said["loss"] > 0


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


def test_another_configuration_does_not_go_on_with_a_run(files: tuple[str, ...], tmp_path: Path) -> None:
    fit(config(files, tmp_path, steps=0))
    with pytest.raises(ConfigError, match="another lr, seed"):
        fit(config(files, tmp_path, steps=0, seed=1, lr=0.5))
    said = json.loads((tmp_path / "run.json").read_text())
    for later in ("method", "options", "ema", "episode_augment"):  # a run of the first version
        del said[later]
    (tmp_path / "run.json").write_text(json.dumps(said))
    fit(config(files, tmp_path, steps=0))


def test_a_loss_that_is_not_finite_stops_the_training(files: tuple[str, ...], tmp_path: Path) -> None:
    run = started(files, tmp_path)
    with torch.no_grad():
        run.model.log_temperature.fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss of step 1 is nan"):
        run.advance()


def test_the_running_mean_of_the_weights_is_saved_instead(files: tuple[str, ...], tmp_path: Path) -> None:
    run = started(files, tmp_path, ema=0.9)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    run.advance()
    after = {k: v.clone() for k, v in run.model.state_dict().items()}
    found = load_file(run.export())
    name = "trunk.layer1.0.conv2.weight"
    expected = 0.9 * before[f"encoder.{name}"] + 0.1 * after[f"encoder.{name}"]
    torch.testing.assert_close(found[name], expected)
    assert not torch.equal(found[name], after[f"encoder.{name}"])


@pytest.mark.parametrize("wrong", [{"pairs": 0}, {"steps": -1}, {"ema": 1.0}, {"schedule": "up"}, {"optimiser": "lbfgs"}])
def test_impossible_configurations_are_refused(files: tuple[str, ...], tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        config(files, tmp_path, **wrong)
