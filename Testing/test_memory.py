from __future__ import annotations

import subprocess
import sys

import numpy as np

from FewShotSegLib.memory import peak_memory_mb


def test_a_peak_is_remembered() -> None:
    before = peak_memory_mb()
    np.ones((int(before) + 100) * 2**17)  # MB of float64
    assert peak_memory_mb() > before + 50


def test_a_new_process_does_not_count_what_its_parent_held() -> None:
    held = np.ones(500 * 2**17)
    code = "from FewShotSegLib.memory import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert held.all() and 1 < float(done.stdout) < 250
