from __future__ import annotations

import subprocess
import sys

import numpy as np


def printed(code: str) -> list[float]:
    """The numbers that a process of its own prints, whose peak is not that of all tests before."""
    code = f"import numpy as np; from FewShotSegLib.memory import peak_memory_mb; {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [float(number) for number in done.stdout.split()]


def test_a_peak_is_remembered() -> None:
    before, after = printed("before = peak_memory_mb(); np.ones(300 * 2**17); print(before, peak_memory_mb())")  # MB of float64
    assert after > before + 150


def test_a_new_process_does_not_count_what_its_parent_held() -> None:
    held = np.ones(500 * 2**17)
    (peak,) = printed("print(peak_memory_mb())")
    assert held.all() and 1 < peak < 250
