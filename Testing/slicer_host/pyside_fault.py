"""PySide6 6.12.0 gives back references to True and None that it never took: with each `Signal.emit`, each call of a slot, each
`setVisible`. Before Python 3.12 the process then aborts in the end ("deallocating True or False"). So that it does not, these
objects get more references here than any test can lose.
"""

from __future__ import annotations

import ctypes
import sys

SPARE = 2_000_000


def give_spare_references() -> None:
    """Once per process."""
    if sys.version_info < (3, 12):  # later, they are immortal
        for one in (None, True, False):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object((one,) * SPARE))  # a tuple that is never freed
