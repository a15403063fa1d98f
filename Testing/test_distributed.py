"""Two processes give what one gives with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from training_folder import prepared  # noqa: E402

from fewshotseg_training.distributed import Share  # noqa: E402
from FewShotSegLib.errors import ConfigError  # noqa: E402

PROGRAM = Path(__file__).with_name("learning_encoder.py")


def test_a_batch_is_shared_evenly() -> None:
    assert [list(range(6)[Share(rank, 3).of(6)]) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(ConfigError, match="batch of 5 for 2 processes"):
        Share(0, 2).of(5)


@pytest.mark.parametrize("method", ["carry", pytest.param("adnet", marks=pytest.mark.slow)])
def test_two_processes_train_like_one(tmp_path: Path, method: str) -> None:
    files = prepared(tmp_path / "data")
    small = {"steps": 3, "pairs": 4, "channels": 16, "reach_mm": 50.0, "min_pixels": 5, "bf16": False, "lr": 0.05}
    given = {"data": [files], "method": method, **small}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, start in (
        ("one", [sys.executable]),
        ("two", [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps({**given, "out": str(tmp_path / name)}))
        done = subprocess.run(
            [*start, str(PROGRAM), str(tmp_path / f"{name}.json")], env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr[-3000:]
    losses = [torch.load(tmp_path / name / "state.pt", weights_only=True)["losses"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) == 3
    one, two = (load_file(tmp_path / name / "encoder.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-5)
