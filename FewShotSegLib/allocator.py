"""Memory of large temporaries is used again instead of given back to the system (Linux with glibc only)."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable

M_TRIM_THRESHOLD = -1  # malloc.h
M_MMAP_THRESHOLD = -3
THRESHOLDS = (1 << 30, 1 << 25)  # bytes; older versions of glibc refuse more than 32 MiB


def reuse_large_blocks() -> bool:
    """Let the C library keep freed blocks for the next request; True when it agreed, False elsewhere.

    By default glibc maps every large block anew, so that each temporary array costs one page fault per 4 KiB. The process then
    keeps the memory of its peak until it ends, which is right for a command and wrong for a host such as Slicer: only the
    command line calls this, before anything large exists.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(_set(mallopt, parameter) for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))


def _set(mallopt: Callable[[int, int], int], parameter: int) -> bool:
    return any(mallopt(parameter, threshold) == 1 for threshold in THRESHOLDS)
