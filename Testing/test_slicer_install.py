"""What happens on the first Apply when packages are missing: asked for, installed by the right means, or told how to go on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from slicer_cases import MODULE, slicer_with_module

ROOT = MODULE.parents[1]
REQUIREMENTS = MODULE.parent / "Resources" / "requirements.txt"
LIBRARY = ROOT / "FewShotSegLib"
ENTRIES = ("background", "mrml", "segmenter", "background/worker", "methods/visa", "methods/alpnet", "phantom", "checkpoints")
WITH_SLICER = {"numpy", "scipy", "SimpleITK", "pydicom", "vtkmodules", "vtk", "slicer", "PIL", "requests", "packaging", "jinja2"}
WITH_PYTORCH = {"torch", "torchvision"}
PACKAGE = {"skimage": "scikit-image"}


@pytest.fixture
def slicer_now(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Slicer as it is on the first Apply: torch is there, one package is missing until it is installed."""
    with slicer_with_module(panel=False) as (host, _loaded):
        from FewShotSegModule import install

        state = SimpleNamespace(host=host, install=install, torch=True, missing=["einops>=0.8"])
        monkeypatch.setattr(install, "torch_is_installed", lambda: state.torch)
        monkeypatch.setattr(install, "missing_packages", lambda file: list(state.missing))
        yield state


def pytorch_extension(monkeypatch: pytest.MonkeyPatch, install: Any) -> None:
    logic = type("PyTorchUtilsLogic", (), {"installTorch": lambda self, **told: install(**told)})
    monkeypatch.setitem(sys.modules, "PyTorchUtils", SimpleNamespace(PyTorchUtilsLogic=logic))


def test_nothing_is_asked_when_nothing_is_missing(slicer_now: SimpleNamespace) -> None:
    slicer_now.missing = []
    slicer_now.install.ensure_packages(REQUIREMENTS)
    assert slicer_now.host.installs == [] and slicer_now.host.messages == []


def test_packages_come_with_slicer_packaging(slicer_now: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer

    def ensure(requirements: list[str], requester: str) -> None:
        slicer_now.host.installs.append([requester, *requirements])
        slicer_now.missing = []

    monkeypatch.setattr(slicer.packaging, "pip_ensure", ensure)
    slicer_now.install.ensure_packages(REQUIREMENTS)
    assert slicer_now.host.installs == [["FewShotSeg", "einops>=0.8"]]


def test_saying_no_is_no_error(slicer_now: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer

    from FewShotSegLib.errors import Cancelled

    def ensure(requirements: list[str], requester: str) -> None:
        raise RuntimeError("User declined package installation")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", ensure)
    with pytest.raises(Cancelled, match="einops.*press Apply again"):
        slicer_now.install.ensure_packages(REQUIREMENTS)


def test_what_slicer_could_not_do_is_not_taken_for_a_no(slicer_now: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer

    def ensure(requirements: list[str], requester: str) -> None:
        raise RuntimeError("PythonSlicer executable not found")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", ensure)
    with pytest.raises(RuntimeError, match="PythonSlicer"):
        slicer_now.install.ensure_packages(REQUIREMENTS)


@pytest.mark.parametrize("answer", [True, False])
def test_older_slicer_is_asked_and_uses_pip_install(
    slicer_now: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    import slicer

    from FewShotSegLib.errors import Cancelled

    installed: list[Any] = []
    slicer_now.host.answers.append(answer)
    with monkeypatch.context() as older:  # which ends before the host does
        older.setitem(sys.modules, "slicer.packaging", None)
        older.delattr(slicer, "packaging")
        older.setattr(slicer.util, "pip_install", lambda names: (installed.append(names), slicer_now.missing.clear()))
        if answer:
            slicer_now.install.ensure_packages(REQUIREMENTS)
        else:
            with pytest.raises(Cancelled):
                slicer_now.install.ensure_packages(REQUIREMENTS)
    assert installed == ([["einops>=0.8"]] if answer else [])
    assert "einops" in slicer_now.host.messages[0][1]


def test_without_a_network_the_message_says_how_to_go_on(slicer_now: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer

    def ensure(requirements: list[str], requester: str) -> None:
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", ensure)
    with pytest.raises(slicer_now.install.InstallError) as told:
        slicer_now.install.ensure_packages(REQUIREMENTS)
    assert "connection to the internet" in told.value.expected and "--find-links" in told.value.action


def test_torch_comes_through_the_pytorch_extension_only(slicer_now: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    slicer_now.torch, slicer_now.missing = False, []
    with pytest.raises(slicer_now.install.InstallError, match="PyTorch extension is not installed.*Extensions Manager"):
        slicer_now.install.ensure_packages(REQUIREMENTS)
    calls: list[dict[str, Any]] = []

    def install(**told: Any) -> object:
        calls.append(told)
        slicer_now.torch = True
        return object()

    pytorch_extension(monkeypatch, install)
    slicer_now.install.ensure_packages(REQUIREMENTS)
    assert calls == [{"askConfirmation": True, "torchVersionRequirement": ">=2.4"}] and slicer_now.host.installs == []


def test_torch_may_be_declined(slicer_now: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    from FewShotSegLib.errors import Cancelled

    slicer_now.torch = False
    pytorch_extension(monkeypatch, lambda **told: None)
    with pytest.raises(Cancelled, match="PyTorch was not installed"):
        slicer_now.install.ensure_packages(REQUIREMENTS)


def test_what_is_missing_in_spite_of_the_installation_is_named(slicer_now: SimpleNamespace) -> None:
    with pytest.raises(slicer_now.install.InstallError, match="einops.*restart Slicer"):
        slicer_now.install.ensure_packages(REQUIREMENTS)


def test_an_old_slicer_is_told_so(slicer_now: SimpleNamespace) -> None:
    with pytest.raises(slicer_now.install.InstallError, match="Python 3.9.*Slicer 5.10"):
        slicer_now.install._check_python((3, 9))


def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    with slicer_with_module(panel=False):
        from FewShotSegModule import install

        file = tmp_path / "requirements.txt"
        file.write_text("# a comment\nnumpy>=1.9\nnumpy>=99.0  # not yet\nno-such-package-at-all>=1\nnumpy\n", encoding="utf-8")
        assert install.missing_packages(file) == ["numpy>=99.0", "no-such-package-at-all>=1"]
        assert install._numbers("1.26.0rc1") == install._numbers("1.26") < install._numbers("1.100")


# ---- the list itself


def reached(name: str, seen: set[str]) -> set[str]:
    """Other packages that a file of the library imports, at file scope or in functions, itself or through others."""
    path = next((p for p in (LIBRARY / f"{name}.py", LIBRARY / name / "__init__.py") if p.is_file()), None)
    if path is None or name in seen:
        return set()
    seen.add(name)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for imported in names:
            first, _, rest = imported.partition(".")
            found |= reached(rest.replace(".", "/"), seen) if first == "FewShotSegLib" else {first}
    return found


def test_requirements_are_what_the_library_needs_besides_slicer() -> None:
    seen: set[str] = set()
    needed = set().union(*(reached(name, seen) for name in ENTRIES)) - set(sys.stdlib_module_names)
    packages = {PACKAGE.get(name, name) for name in needed - WITH_SLICER - WITH_PYTORCH}
    listed = {re.split("[<>=]", line)[0] for line in REQUIREMENTS.read_text().splitlines() if line and line[0] != "#"}
    assert listed == packages
    assert not listed & WITH_PYTORCH, "pip may choose a build that does not fit the GPU: torch comes with the PyTorch extension"


def test_requirements_are_those_of_the_library() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        assert line.startswith("#") or f'"{line}"' in project


def test_first_apply_installs_and_then_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with slicer_with_module() as (host, loaded):
        from FewShotSegModule import install, sample_data
        from FewShotSegModule.pasting import PastingRunner

        asked: list[str] = []
        monkeypatch.setattr(install, "ensure_packages", asked.append)
        widget = loaded.widget
        monkeypatch.setattr(widget.logic, "_runner", lambda separate: PastingRunner())
        drawn, drawing, _new = sample_data.load_patients((8, 32, 32))
        widget._parameters.supportVolume, widget._parameters.supportSegmentation = drawn, drawing
        widget.onApply()
        host.wait(lambda: not widget.logic.running, 120)
        assert [Path(name) for name in asked] == [REQUIREMENTS] and len(widget.logic.run.state.nodes) == 1

        def refuse(file: str) -> None:
            raise install.InstallError("No network", "a network", "plug it in")

        monkeypatch.setattr(install, "ensure_packages", refuse)
        widget.onApply()
        assert widget.ui.statusLabel.text == "No network.\nExpected: a network.\nWhat to do: plug it in."
        assert not widget.logic.running and widget.ui.applyButton.enabled and host.slot_errors == []
    assert isinstance(install, ModuleType)
