"""The queue of trainings: read, run in order on what there is, packed for a machine without network and brought back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fewshotseg_training")

from fewshotseg_training.queue import runner  # noqa: E402
from fewshotseg_training.queue.parts import MIB, read_parts, write_parts  # noqa: E402
from fewshotseg_training.queue.runner import run_queue  # noqa: E402
from fewshotseg_training.queue.tasks import PAUSED, Places, Training, read_queue  # noqa: E402
from FewShotSegLib.cohort.locks import Locks  # noqa: E402
from FewShotSegLib.errors import ConfigError  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
TEXT = """# Queue

Not a command: `fewshotseg-train fit nothing`.

## Carry first

Expected: more.

```sh
# a comment
fewshotseg-train fit {cache}/toy --weights {weights} --out {runs}/carry
fewshotseg-train fit {cache}/toy --method alpnet \\
    --base {runs}/carry/encoder.safetensors --out {runs}/own
```

```sh
fewshotseg-train fit {cache}/other --out {runs}/other
```
"""


@pytest.fixture()
def queue(tmp_path: Path) -> Path:
    path = tmp_path / "QUEUE.md"
    path.write_text(TEXT)
    return path


@pytest.fixture()
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "cache", tmp_path / "runs", tmp_path / "weights" / "imagenet.safetensors")


def finish(run: Path, name: str = "encoder.safetensors") -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / name).write_bytes(b"done")


# ---------------------------------------------------------------------------------------------- reading
def test_commands_stand_in_code_blocks_with_the_text_above(queue: Path, places: Places) -> None:
    carry, own, other = read_queue(queue)
    assert (carry.name, carry.sets, carry.bases, carry.wants_weights) == ("carry", ("toy",), (), True)
    assert (own.name, own.bases, own.wants_weights) == ("own", ("carry",), False)
    assert own.text.endswith("Expected: more.") and other.text == ""
    assert places.fill(carry.words[2]) == str(places.weights)


def test_the_projects_own_queue_can_be_read() -> None:
    trainings = read_queue(ROOT / "training" / "QUEUE.md")
    names = {training.name for training in trainings}
    assert len(trainings) > 10 and all(set(training.bases) <= names for training in trainings)
    cli = pytest.importorskip("fewshotseg_training.cli")
    import typer.main

    fit = typer.main.get_command(cli.app).commands["fit"]  # type: ignore[attr-defined]
    for training in trainings:
        assert fit.make_context("fit", list(training.words)).params["out"]  # every option exists


@pytest.mark.parametrize(
    "line",
    [
        "fewshotseg-train export {runs}/a b",
        "fewshotseg-train fit {cache}/a",
        "fewshotseg-train fit a --out elsewhere/b",
        "rm -r x",
    ],
)
def test_other_commands_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "q.md").write_text(f"```sh\n{line}\n```\n")
    with pytest.raises(ConfigError, match="queue's line"):
        read_queue(tmp_path / "q.md")


def test_two_trainings_into_one_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "q.md").write_text("```sh\n" + 2 * "fewshotseg-train fit {cache}/a --out {runs}/b\n" + "```\n")
    with pytest.raises(ConfigError, match="same folder twice: b"):
        read_queue(tmp_path / "q.md")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_queue(tmp_path / "none.md")


def test_states(queue: Path, places: Places) -> None:
    carry, own, _ = read_queue(queue)
    assert (carry.state(places.runs), own.state(places.runs)) == ("waiting", "waits for carry")
    (places.runs / "carry").mkdir(parents=True)
    (places.runs / "carry" / "progress.json").write_text('{"step": 3, "steps": 9}')
    assert carry.state(places.runs) == "step 3 of 9" and carry.ready(places.runs)
    finish(places.runs / "carry")
    assert carry.state(places.runs) == "finished" and own.ready(places.runs) and not carry.ready(places.runs)


# ---------------------------------------------------------------------------------------------- running
def test_what_is_ready_is_trained_in_order(queue: Path, places: Places) -> None:
    started: list[list[str]] = []

    def start(command: list[str], log: Path) -> int:
        out = Path(command[command.index("--out") + 1])
        started.append([out.name, *command[command.index("fit") + 1 :], log.name])
        finish(out)
        return 0

    found = run_queue(read_queue(queue), places, tell=lambda _: None, start=start)
    assert found == {"carry": "finished", "own": "finished", "other": "finished"}
    assert [words[0] for words in started] == ["carry", "own", "other"]
    assert started[0][1:] == [
        f"{places.cache}/toy",
        "--weights",
        str(places.weights),
        "--out",
        f"{places.runs}/carry",
        "carry.log",
    ]
    assert run_queue(read_queue(queue), places, tell=lambda _: None, start=start) == {}


def test_a_training_that_fails_is_passed_over_and_what_needs_it_waits(queue: Path, places: Places) -> None:
    def start(command: list[str], log: Path) -> int:
        return 1 if command[-1].endswith("carry") else 0

    found = run_queue(read_queue(queue), places, tell=lambda _: None, start=start)
    assert found["carry"].startswith("failed with code 1") and found["other"] == "finished" and "own" not in found


def test_the_minutes_are_shared(queue: Path, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(runner.time, "monotonic", lambda: clock[0])
    given: list[float] = []

    def start(command: list[str], log: Path) -> int:
        given.append(float(command[command.index("--minutes") + 1]))
        clock[0] += 60 * 10
        finish(Path(command[command.index("--out") + 1]))
        return PAUSED if len(given) == 2 else 0

    found = run_queue(read_queue(queue), places, minutes=20.2, tell=lambda _: None, start=start)
    assert given == pytest.approx([20.2, 10.2], abs=0.01)  # the third would have 12 seconds: not begun
    assert found == {"carry": "finished", "own": "paused"}


def test_only_one_queue_runs_in_a_folder(queue: Path, places: Places) -> None:
    with Locks(places.runs) as locks:
        assert locks.take("queue") is None
        with pytest.raises(ConfigError, match="runs in .* already"):
            run_queue(read_queue(queue), places)


def test_the_background_outlives_its_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real detached process, with a program in place of the module."""
    monkeypatch.setattr(
        runner, "MODULE", [sys.executable, "-c", "import sys, os; print(sys.argv[1:], os.getsid(0) == os.getpid())"]
    )
    number, log = runner.in_background(["--minutes", "0"], tmp_path / "runs")
    deadline = time.monotonic() + 60
    while "minutes" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.read_text().strip() == "['queue', 'run', '--here', '--minutes', '0'] True" and number != os.getpid()


# ---------------------------------------------------------------------------------------------- travelling
def test_files_go_through_parts_and_come_out_whole(tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(np.random.default_rng(0).bytes(5 * MIB + 7))
    (tmp_path / "small.txt").write_text("small")
    parts = write_parts([("runs/a/big.bin", big), ("small.txt", tmp_path / "small.txt")], tmp_path / "parts", "pack", 2 * MIB)
    assert len(parts) == 3 and all(part.stat().st_size <= 2 * MIB for part in parts)
    written = read_parts(parts[::-1], tmp_path / "out")
    assert written == [tmp_path / "out" / "runs" / "a" / "big.bin", tmp_path / "out" / "small.txt"]
    assert written[0].read_bytes() == big.read_bytes() and written[1].read_text() == "small"


def test_parts_that_lack_or_are_damaged_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(np.random.default_rng(1).bytes(3 * MIB))
    parts = write_parts([("a", tmp_path / "a")], tmp_path / "parts", "pack", MIB)
    with pytest.raises(ConfigError, match="3 of the 4 parts"):
        read_parts(parts[1:], tmp_path / "out")
    data = bytearray(parts[1].read_bytes())
    data[100] ^= 1
    parts[1].write_bytes(data)
    with pytest.raises(ConfigError, match="damaged"):
        read_parts(parts, tmp_path / "out")
    with pytest.raises(ConfigError, match="not the parts of one pack"):
        read_parts([tmp_path / "a"], tmp_path / "out")
    evil = write_parts([("../evil", tmp_path / "a")], tmp_path / "evil_parts", "pack", 4 * MIB)
    with pytest.raises(ConfigError, match="plain files inside"):
        read_parts(evil, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil").exists()


def test_a_training_travels_and_its_state_comes_back(queue: Path, places: Places, tmp_path: Path) -> None:
    """Here packed, there unpacked and paused, brought back, and gone on with here."""
    pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")
    import torch
    from safetensors.torch import load_file, save_file
    from training_folder import prepared

    from fewshotseg_training.fit import FitConfig, Paused, fit
    from fewshotseg_training.queue import travel
    from fewshotseg_training.scans import load_scan

    files = prepared(tmp_path)
    weights = {"weight": torch.linspace(0, 1, 6).reshape(2, 3), "bias": torch.tensor([1 / 3])}
    places.weights.parent.mkdir()
    save_file(weights, places.weights)
    trainings = read_queue(queue)
    chosen = travel.of_one_pack(trainings, places.runs)
    assert [t.name for t in chosen] == ["carry", "own"]  # the third needs another set
    parts = travel.pack(queue, chosen, places, tmp_path / "pack", limit=MIB)
    assert sum(p.stat().st_size for p in parts) < sum(Path(f).stat().st_size for f in files)

    there = Places(tmp_path / "there" / "cache", tmp_path / "there" / "runs", tmp_path / "there" / "weights" / "x.safetensors")
    travel.unpack(parts, there, there.runs)
    assert read_queue(there.runs / "QUEUE.md") == trainings
    found = load_file(there.weights.with_name("imagenet.safetensors"))
    assert found["weight"].dtype == torch.float16 and torch.equal(found["bias"], weights["bias"])
    scans = [load_scan(Path(f)) for f in files]
    moved = [load_scan(there.cache / "toy" / Path(f).name) for f in files]
    for scan, small in zip(scans, moved, strict=True):
        assert small.image.dtype == np.uint8 and np.array_equal(small.regions, scan.regions)
        assert small.superpixels is not None and np.array_equal(small.superpixels, scan.superpixels)
        step = np.ptp(scan.grey(2)) / 100
        np.testing.assert_allclose(small.grey(2), scan.grey(2), atol=step)

    given = {"steps": 3, "method": "flow", "pairs": 2, "optimiser": "adam", "lr": 1e-3}
    config = FitConfig((tuple(str(there.cache / "toy" / Path(f).name) for f in files),), str(there.runs / "carry"), **given)
    with pytest.raises(Paused):
        fit(FitConfig(config.data, config.out, **given, minutes=1e-6))
    results = travel.write_results(trainings, there, tmp_path / "results")
    assert results.left_out == () and len(results.parts) <= travel.RESULT_PARTS
    travel.unpack(results.parts, places, places.runs)
    assert trainings[0].state(places.runs) == "step 1 of 3"
    fit(FitConfig((files,), str(places.runs / "carry"), **given))  # other folders, the same training
    assert trainings[0].finished(places.runs)
    finished = travel.write_results(trainings, places, tmp_path / "finished")
    assert sum(p.stat().st_size for p in finished.parts) < sum(p.stat().st_size for p in results.parts) / 2
    tiny = travel.write_results([trainings[0], Training("none", ())], places, tmp_path / "tiny", limit=MIB, parts=1)
    assert len(tiny.parts) == 1


def test_what_is_missing_is_told_before_packing(queue: Path, places: Places, tmp_path: Path) -> None:
    travel = pytest.importorskip("fewshotseg_training.queue.travel")
    with pytest.raises(ConfigError, match="the set toy, the weights .*imagenet.safetensors"):
        travel.pack(queue, travel.of_one_pack(read_queue(queue), places.runs), places, tmp_path / "pack")
    with pytest.raises(ConfigError, match="anything to bring back"):
        travel.write_results(read_queue(queue), places, tmp_path / "results")


def test_a_machine_without_the_packages_for_scans_can_train(tmp_path: Path) -> None:
    """It runs `fit` and `queue` without SimpleITK, pydicom and platformdirs."""
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['SimpleITK', 'pydicom', 'platformdirs']))\n"
        "from fewshotseg_training.cli import app\n"
        "sys.argv = ['fewshotseg-train', 'queue', 'list', '--queue', 'training/QUEUE.md', '--root', sys.argv[1]]\n"
        "app()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "carry-chaos-0: waiting" in done.stdout and "waits for carry-chaos-0" in done.stdout
