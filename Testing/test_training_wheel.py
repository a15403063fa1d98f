"""The training package from source: sdist, a wheel made of it with the compiled core, and a clear word without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("Cython")
pytest.importorskip("setuptools")

TRAINING = Path(__file__).resolve().parents[1] / "training"


def build(project: Path, what: str, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What pip and uv do in an environment with the build's requirements: one call of the build backend."""
    out.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_{what}({str(out)!r})"
    variables = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], cwd=project, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as the sdist holds it, unpacked: building must not touch the checkout."""
    folder = tmp_path_factory.mktemp("source")
    left_out = shutil.ignore_patterns("__pycache__", "*.so", "*.cpp", "*.egg-info", "build")
    copy = Path(shutil.copytree(TRAINING, folder / "checkout", ignore=left_out))
    done = build(copy, "sdist", folder / "sdist")
    assert done.returncode == 0, done.stderr
    (archive,) = (folder / "sdist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    (unpacked,) = folder.glob("fewshotseg_training-*")
    return unpacked


def test_the_sdist_holds_the_source_of_the_core(source: Path) -> None:
    assert (source / "fewshotseg_training" / "_felzenszwalb.pyx").exists() and (source / "setup.py").exists()


def test_without_a_compiler_the_build_says_what_to_do(source: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    done = build(copy, "wheel", tmp_path / "wheel", CC="no-such-compiler", CXX="no-such-compiler")
    assert done.returncode != 0 and not list((tmp_path / "wheel").glob("*.whl"))
    assert "a working C++ compiler" in done.stderr and "apt install g++" in done.stderr


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("c++") is None, reason="no C++ compiler")
def test_the_wheel_of_the_sdist_holds_every_module_and_the_compiled_core(source: Path, tmp_path: Path) -> None:
    done = build(source, "wheel", tmp_path / "wheel", CFLAGS="-O0")
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {path.relative_to(TRAINING).as_posix() for path in (TRAINING / "fewshotseg_training").rglob("*.py")}
    assert expected <= names and any(name.startswith("fewshotseg_training/_felzenszwalb.") and ".so" in name for name in names)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    cut = (
        "import numpy as np; from fewshotseg_training._felzenszwalb import segment; "
        "print(len(np.unique(segment(np.random.default_rng(0).uniform(0, 255, (3, 16, 16)), 1 / 255, 50, 2.0))))"
    )
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {cut}"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 0 and int(found.stdout) > 1, found.stderr
