"""The module's own tests on the test host, as Slicer runs them: every `test_*` by itself, in any order; and Reload and Test."""

from __future__ import annotations

import re
import runpy
import sys
import unittest
from pathlib import Path

import pytest
from slicer_cases import MODULE, slicer_with_module

ROOT = MODULE.parents[1]
REAL = "test_SegmentsAnInventedPatient"


def cases(loaded: object) -> list[str]:
    return sorted(unittest.defaultTestLoader.getTestCaseNames(loaded.file.FewShotSegTest))  # type: ignore[attr-defined]


def run(test: unittest.TestSuite | unittest.TestCase) -> unittest.TestResult:
    result = unittest.TestResult()
    test.run(result)
    assert result.wasSuccessful(), [trace for _test, trace in result.failures + result.errors]
    return result


@pytest.mark.parametrize("backwards", [False, True])
def test_every_test_passes_in_any_order(backwards: bool) -> None:
    with slicer_with_module(panel=False) as (_host, loaded):
        names = [name for name in cases(loaded) if name != REAL]
        suite = unittest.TestSuite(loaded.file.FewShotSegTest(name) for name in sorted(names, reverse=backwards))
        assert run(suite).testsRun == len(names) >= 6


def test_an_invented_patient_is_segmented_in_a_process_of_its_own() -> None:
    pytest.importorskip("torch")
    with slicer_with_module(panel=False) as (_host, loaded):
        assert run(loaded.file.FewShotSegTest(REAL)).skipped == []


def test_reload_and_test_runs_every_test(monkeypatch: pytest.MonkeyPatch) -> None:
    with slicer_with_module(panel=False) as (_host, loaded):
        called: list[str] = []
        for name in cases(loaded):
            monkeypatch.setattr(loaded.file.FewShotSegTest, name, lambda self, name=name: called.append(name))
        loaded.module.runTest(msec=0)
        assert called == cases(loaded)


def test_what_ci_runs_in_slicer_passes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script of the workflow: every test, and the panel test that ctest runs, too."""
    script = ROOT / ".github" / "slicer" / "selftest.py"
    monkeypatch.setattr(sys, "path", [*sys.path])
    ended: list[int] = []
    with slicer_with_module() as (_host, loaded):
        import slicer.util

        monkeypatch.setattr(slicer.modules.fewshotseg, "widget", loaded.widget)
        monkeypatch.setattr(slicer.util, "exit", ended.append)
        monkeypatch.delattr(loaded.file.FewShotSegTest, REAL)  # has its own test here, for it takes longer
        told = runpy.run_path(str(script))
    sys.modules.pop("FewShotSegPanelTest", None)
    assert ended == [0] and told["result"].testsRun == 7, told["result"]


def test_the_workflow_is_for_three_systems_and_says_that_it_has_not_run() -> None:
    text = (ROOT / ".github" / "workflows" / "slicer.yml").read_text(encoding="utf-8")
    assert text.startswith("# NOT YET RUN")
    assert re.findall(r"runner: (\w+)-latest", text) == ["ubuntu", "macos", "windows"]
    scripts = re.findall(r"--python-script (\S+)", text)
    assert len(scripts) == 3 and all((ROOT / name).is_file() for name in scripts)


def test_every_python_test_of_the_module_is_given_to_ctest() -> None:
    folder = MODULE.parent / "Testing" / "Python"
    listed = (folder / "CMakeLists.txt").read_text(encoding="utf-8")
    assert [path.name for path in Path(folder).glob("*.py") if f"SCRIPT {path.name})" not in listed] == []
