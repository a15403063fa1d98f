"""A Slicer just installed: the panel opens and the self-test passes before any package was installed.

So it is on the build machines of the Extensions Index, too, whose ctest has nothing but Slicer's own packages.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from slicer_cases import MODULE

REQUIREMENTS = MODULE.parent / "Resources" / "requirements.txt"
MODULES = {"scikit-image": "skimage"}
TOO_OLD = {"pydicom.pixels"}  # pydicom 3; Slicer 5.10 has 2.4
CODE = """
import importlib.util, sys, unittest

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT or name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ABSENT else found(name, package)
sys.meta_path.insert(0, Refuse())
from slicer_cases import slicer_with_module

with slicer_with_module() as (host, loaded):
    result = host.self_test(loaded)
    print([trace for _test, trace in result.errors + result.failures], [test.id().split(".")[-1] for test, _ in result.skipped])
    print(result.testsRun, host.messages, host.installs, host.slot_errors)
"""


def test_panel_opens_and_self_test_passes_without_any_installed_package() -> None:
    pytest.importorskip("slicer")
    pytest.importorskip("PySide6.QtWidgets")
    lines = [line for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    listed = {re.split("[<>=]", line)[0] for line in lines}
    absent = {MODULES.get(name, name) for name in listed} | {"torch", "torchvision", "jinja2"} | TOO_OLD
    done = subprocess.run(
        [sys.executable, "-c", f"ABSENT = {absent!r}\n{CODE}"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["[] ['test_SegmentsAnInventedPatient']", "7 [] [] []"], done.stdout
