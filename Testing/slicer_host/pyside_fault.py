"""PySide6 6.12.0 gives back one reference to True too many with each `Signal.emit`. Before Python 3.12 the process then aborts
in the end ("deallocating True or False"). So that it does not, True gets more references here than any test can lose.
"""

from __future__ import annotations

import ctypes
import sys

SPARE = 200_000


def give_spare_references() -> None:
    """Once per process."""
    if sys.version_info < (3, 12):  # later, True is immortal
        for _ in range(SPARE):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(True))
