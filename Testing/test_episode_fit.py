"""The methods' own trainings on the common loop: they learn, repeat, resume, and save what they learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from learning_encoder import create  # noqa: E402
from training_folder import prepared  # noqa: E402

from fewshotseg_training import learners  # noqa: E402
from fewshotseg_training.carry_learner import PairSource  # noqa: E402
from fewshotseg_training.distributed import Share  # noqa: E402
from fewshotseg_training.fit import FitConfig, Run, TrainingError, fit  # noqa: E402
from fewshotseg_training.flow_learner import NeighbourSource  # noqa: E402
from fewshotseg_training.presets import config_for  # noqa: E402
from fewshotseg_training.scans import TrainingScan  # noqa: E402
from fewshotseg_training.schedules import rate  # noqa: E402
from FewShotSegLib.errors import CheckpointError, ConfigError, VolumeError  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return prepared(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "create_encoder", create)


def config(files: tuple[str, ...], out: Path, method: str = "alpnet", **changes: object) -> FitConfig:
    return config_for(method, (files,), str(out), **{"steps": 4, "pairs": 2, "channels": 16, "min_pixels": 5, **changes})


@pytest.fixture(scope="module")
def flow(files: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A flow network, hardly trained."""
    return str(fit(config_for("flow", (files,), str(tmp_path_factory.mktemp("flow")), steps=2, pairs=2)))


@pytest.mark.parametrize("method", ["alpnet", "adnet", "visa"])
def test_a_training_goes_on_bit_for_bit(files: tuple[str, ...], flow: str, tmp_path: Path, method: str) -> None:
    given = {"flow": flow} if method == "visa" else {}
    whole = load_file(fit(config(files, tmp_path / "whole", method, **given)))
    (tmp_path / "cut").mkdir()
    first = Run(config(files, tmp_path / "cut", method, **given))
    first.advance()
    first.save()
    first.advance()  # this step is lost
    second = load_file(fit(config(files, tmp_path / "cut", method, **given)))
    assert all(torch.equal(whole[name], second[name]) for name in whole)
    losses = [torch.load(tmp_path / name / "state.pt", weights_only=True)["losses"] for name in ("whole", "cut")]
    assert losses[0] == losses[1] and len(set(losses[0])) == 4 and np.isfinite(losses[0]).all()
    assert (tmp_path / "whole" / "head.safetensors").exists() == (method == "adnet")


def test_the_loss_of_one_batch_falls(files: tuple[str, ...], tmp_path: Path) -> None:
    run = Run(config(files, tmp_path, lr=0.05, steps=60, schedule="constant"))
    batch = run.learner.source.batch(1, run.share)
    run.learner.source.batch = lambda step, share: batch  # type: ignore[method-assign]
    for _ in range(20):
        run.advance()
    assert np.mean(run.losses[-3:]) < 0.8 * np.mean(run.losses[:3])
    assert set(run.terms) == {"query", "alignment"}


def test_a_frozen_encoder_stays_and_the_head_learns(files: tuple[str, ...], tmp_path: Path) -> None:
    run = Run(config(files, tmp_path, "adnet", freeze_encoder=True))
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    run.advance()
    after = run.model.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(before[name], after[name])}
    assert changed == {"objective"} and not run.model.encoder.training and run.model.objective.training


def test_a_method_without_a_head_cannot_learn_with_a_frozen_encoder(files: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="Nothing is left to learn"):
        Run(config(files, tmp_path, "alpnet", freeze_encoder=True))


def test_training_starts_from_another_run(files: tuple[str, ...], tmp_path: Path) -> None:
    base = fit(config_for("carry", (files,), str(tmp_path / "carry"), steps=1, pairs=1, channels=24, reach_mm=50.0))
    found = fit(config(files, tmp_path / "next", base=str(base), steps=0))
    assert all(torch.equal(a, load_file(found)[name]) for name, a in load_file(base).items())
    assert json.loads((tmp_path / "next" / "run.json").read_text())["channels"] == 24
    with pytest.raises(CheckpointError, match="not in the folder of a run"):
        fit(config(files, tmp_path / "other", base=str(tmp_path / "encoder.safetensors")))


def test_the_flow_network_learns_to_move_slices(files: tuple[str, ...], tmp_path: Path) -> None:
    run = Run(config_for("flow", (files,), str(tmp_path), steps=40, pairs=2, lr=3e-3))
    batch = run.learner.source.batch(1, run.share)
    run.learner.source.batch = lambda step, share: batch  # type: ignore[method-assign]
    for _ in range(40):
        run.advance()
    assert run.losses[-1] < 0.9 * run.losses[0] and set(run.terms) == {"difference", "roughness"}


def test_realistic_episodes_need_a_flow_network(files: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a flow network"):
        Run(config(files, tmp_path, "visa"))
    torch.save({}, tmp_path / "flow.safetensors")
    with pytest.raises(CheckpointError, match="no flow network"):
        Run(config(files, tmp_path, "visa", flow=str(tmp_path / "flow.safetensors")))
    Run(config(files, tmp_path, "visa", options=(("stage", 1),)))  # its first stage needs none


def test_setting_2_leaves_slices_out(files: tuple[str, ...], tmp_path: Path) -> None:
    run = Run(config(files, tmp_path, exclude=(1,)))
    sampler = run.learner.source.source.sampler
    forbidden = {id(s): s.shows((1,))[:, 0] for s in sampler.sets[0]}
    assert any(f.any() for f in forbidden.values())
    for i in range(100):
        drawn = sampler.draw(np.random.default_rng(i))
        assert not forbidden[id(drawn.scan)][list(drawn.support)].any()


@pytest.mark.parametrize("method", ["carry", "flow"])
def test_setting_2_holds_for_pairs_of_slices(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices 2 and 3 of six show label 4; a slice's grey value is its number."""
    present = np.isin(np.arange(6), (2, 3))[:, None]
    image = np.repeat(np.arange(6, dtype=np.float16), 64).reshape(6, 8, 8)
    regions = np.tile(np.arange(8, dtype=np.uint16), (6, 8, 1))
    known = TrainingScan("a", image, regions, 10.0, labels=(4,), present=present)

    def seen(**options: object) -> set[int]:
        c = config_for(method, ((),), "", pairs=200, reach_mm=10.0, **options)
        source: type[PairSource | NeighbourSource] = PairSource if method == "carry" else NeighbourSource
        batch = source(c, [[known]], torch.device("cpu")).batch(1, Share())
        return {int(v) for side in batch[:: 2 if method == "carry" else 1] for v in side[:, 0, 0]}

    monkeypatch.setattr("fewshotseg_training.carry_learner.augment", lambda a, ids, *_: (a, ids))
    assert seen() == set(range(6)) and seen(exclude=(4,)) == {0, 1, 4, 5} and seen(exclude=(5,)) == set(range(6))
    known = replace(known, present=np.ones((6, 1), bool))
    with pytest.raises(VolumeError):
        seen(exclude=(4,))


def test_schedules() -> None:
    def rates(**given: object) -> list[float]:
        c = FitConfig((), "", lr=1.0, steps=4, **given)  # type: ignore[arg-type]
        return [rate(c, step) for step in (1, 2, 3, 4)]

    assert rates(schedule="constant") == [1.0] * 4
    assert rates(schedule="decay", decay=0.5, decay_every=2) == [1.0, 1.0, 0.5, 0.5]
    assert rates(schedule="cosine")[1] > 0.6 > 0.4 > rates(schedule="cosine")[2] > rates(schedule="cosine")[3] > 0


def test_records_and_pictures(files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain = load_file(fit(config(files, tmp_path / "plain", steps=2, show="none")))
    seen = load_file(fit(config(files, tmp_path / "seen", steps=2, show="none", log_every=1, pictures_every=2)))
    assert all(torch.equal(plain[name], seen[name]) for name in plain)  # looking changes nothing
    events = EventAccumulator(str(tmp_path / "seen" / "tensorboard"))
    events.Reload()
    assert {"loss", "rate", "terms/query", "terms/alignment"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("loss")] == [1, 2]
    (picture,) = events.Images(events.Tags()["images"][0])
    assert (picture.width, picture.height) == (3 * 64, 64)
    assert capsys.readouterr().out == ""


def test_pictures_of_carried_regions(files: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    given = {"min_pixels": 0, "reach_mm": 50.0, "steps": 2, "show": "none"}
    plain = load_file(fit(config(files, tmp_path / "plain", "carry", **given)))
    seen = load_file(fit(config(files, tmp_path / "seen", "carry", log_every=1, pictures_every=1, **given)))
    assert all(torch.equal(plain[name], seen[name]) for name in plain)
    events = EventAccumulator(str(tmp_path / "seen" / "tensorboard"))
    events.Reload()
    assert {"loss", "rate", "temperature"} <= set(events.Tags()["scalars"])
    pictures = events.Images("pair: regions, wanted, carried")
    assert [p.step for p in pictures] == [1, 2] and (pictures[0].width, pictures[0].height) == (3 * 64, 64)


def test_plain_lines_say_how_long_it_takes(
    files: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewshotseg_training.display.LINE_EVERY", 2)
    fit(config(files, tmp_path, show="auto"))  # no terminal here
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("2 loss ") and lines[0].endswith(" left") and "0:00:00" in lines[1]


def test_the_saved_encoder_may_be_a_mean_with_its_base(files: tuple[str, ...], tmp_path: Path) -> None:
    """A finished run can be saved anew with another part, so that both may be measured."""
    base = fit(config_for("carry", (files,), str(tmp_path / "base"), steps=1, pairs=1, channels=24, reach_mm=50.0))
    options: dict[str, Any] = {"base": str(base), "steps": 1, "pairs": 1, "reach_mm": 50.0}
    began, ended = load_file(base), load_file(fit(config_for("carry", (files,), str(tmp_path / "next"), **options)))
    mean = load_file(fit(config_for("carry", (files,), str(tmp_path / "next"), **options, keep_base=0.25)))
    assert any(not torch.equal(began[name], ended[name]) for name in ended)
    for name, value in mean.items():
        expected = began[name] * 0.25 + ended[name] * 0.75 if value.is_floating_point() else ended[name]
        assert torch.allclose(value, expected, atol=1e-6), name


@pytest.mark.parametrize(
    "options", [{"keep_base": 1.0, "base": "b"}, {"keep_base": 0.5}, {"keep_base": 0.5, "base": "b", "method": "flow"}]
)
def test_a_mean_without_a_base_or_without_the_training_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="keep_base"):
        FitConfig((("a",),), "out", **options)
