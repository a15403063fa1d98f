"""How much memory a process has needed, and what a module measures in a process of its own. Light to import, so that the memory
is that of what is measured.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from FewShotSegLib.errors import OutputError

UNIT = 2**20 if sys.platform == "darwin" else 2**10  # of what `getrusage` tells, in a MB


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB.

    On Linux `getrusage` also counts what the process that started this one held at that moment, so the kernel's own record
    is read there.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT


def peak_memory_of_children_mb() -> float:
    """Largest resident memory of the largest process that this one started and that has ended, MB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / UNIT


def measured_apart(module: str, *arguments: str, timeout_s: float | None = None) -> dict[str, Any]:
    """Run `python -m module` in a new process; the JSON object that is the last line of what it prints.

    Raises:
        OutputError: it failed, with its last words.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    if done.returncode:
        raise OutputError(f"{module} failed: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))
