"""What the tests of the Slicer module share: the module in the test host, and volumes that cost nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODULE = Path(__file__).resolve().parents[1] / "FewShotSeg" / "FewShotSeg.py"
SHAPE = (8, 48, 48)


@contextlib.contextmanager
def slicer_with_module(*, panel: bool = True) -> Iterator[tuple[Any, Any]]:
    """The running host and the loaded module, its panel shown; skips where slicer-core or PySide6 is missing."""
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed")
    import slicer_host

    with slicer_host.start() as host:
        loaded = host.load_module(MODULE)
        if panel:
            host.show(loaded)
        yield host, loaded
        if panel:
            host.unload(loaded)
