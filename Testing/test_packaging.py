"""What a user gets who installs the wheel, or the extension in Slicer: every file, and a library that finds its resources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CMAKE = shutil.which("cmake", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
WHERE = "import FewShotSegLib.resources as r; print(r.__file__); print(r.resource_dir('checkpoints'))"


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expected_files() -> set[str]:
    """Library sources and resources as paths inside the installed package's parent folder."""
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "FewShotSegLib").rglob("*.py")}
    resources = (path for path in (ROOT / "Resources").rglob("*") if path.is_file() and not path.name.startswith("."))
    return sources | {f"FewShotSegLib/{path.relative_to(ROOT).as_posix()}" for path in resources}


def module_files() -> set[str]:
    """Sources and resources of the Slicer module, as paths in the folder of Slicer's modules."""
    folder = ROOT / "FewShotSeg"
    files = [folder / "FewShotSeg.py", *(folder / "FewShotSegModule").glob("*.py"), *(folder / "Resources").rglob("*.*")]
    return {path.relative_to(folder).as_posix() for path in files}


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def copy_of_the_project(folder: Path) -> Path:
    """The project without environments, builds and data: building must not touch the checkout."""
    folder.mkdir()
    for name in ("FewShotSeg", "FewShotSegLib", "Resources"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "LICENSE", "CMakeLists.txt", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder / name)
    return folder


def assert_library_finds_its_resources(parent: Path) -> None:
    module, resources = run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(parent)!r}); {WHERE}"], parent
    ).split("\n")[:2]
    assert Path(module).parent == parent / "FewShotSegLib"
    assert Path(resources) == parent / "FewShotSegLib" / "Resources" / "checkpoints"


def test_wheel_holds_the_whole_library_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    project = copy_of_the_project(tmp_path / "project")
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    run([sys.executable, "-c", code], project)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    installed = files_below(tmp_path / "site")
    assert {name for name in installed if ".dist-info/" not in name} == expected_files()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in installed)
    assert_library_finds_its_resources(tmp_path / "site")


@pytest.mark.skipif(CMAKE is None, reason="cmake is not installed")
def test_installed_extension_holds_module_and_library(tmp_path: Path) -> None:
    project = copy_of_the_project(tmp_path / "project")
    build, target = tmp_path / "build", tmp_path / "installed"
    stand_in = ROOT / "Testing" / "slicer_cmake"
    run([str(CMAKE), "-S", str(project), "-B", str(build), f"-DSlicer_DIR={stand_in}", "-DBUILD_TESTING=ON"], tmp_path)
    run([str(CMAKE), "--install", str(build), "--prefix", str(target)], tmp_path)
    (modules,) = target.glob("lib/Slicer-*/qt-scripted-modules")
    assert files_below(modules) == expected_files() | module_files()
    assert list((modules / "FewShotSegLib" / "Resources" / "checkpoints").glob("*.safetensors")), "works without a network"
    assert_library_finds_its_resources(modules)
