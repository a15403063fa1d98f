from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from FewShotSegLib import allocator

FAULTS = """
import resource, sys
import numpy as np
from FewShotSegLib.allocator import reuse_large_blocks
if sys.argv[1] == "reuse":
    assert reuse_large_blocks()
np.ones(10_000_000, np.float32)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(10_000_000, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_a_temporary_takes_the_pages_of_the_one_before() -> None:
    assert faults("reuse") < faults("default") / 4


def test_nothing_is_tried_on_other_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("the C library was opened"))
    assert allocator.reuse_large_blocks() is False


def test_a_smaller_threshold_is_tried_when_a_large_one_is_refused() -> None:
    asked: list[tuple[int, int]] = []

    def mallopt(parameter: int, value: int) -> int:
        asked.append((parameter, value))
        return int(value <= 1 << 25)

    assert allocator._set(mallopt, allocator.M_MMAP_THRESHOLD)
    assert asked == [(-3, 1 << 30), (-3, 1 << 25)]
