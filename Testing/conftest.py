"""Fixtures for every test: where the golden vectors and the shared data are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "parity: compares with golden vectors of the published methods")


def _folder(variable: str, default: Path) -> Path:
    """The folder named by an environment variable, which must then exist; else the default, which may be absent."""
    named = os.environ.get(variable)
    if named and not Path(named).is_dir():
        pytest.fail(f"{variable} names a folder that does not exist: {named}")
    folder = Path(named) if named else default
    if not folder.is_dir():
        pytest.skip(f"{folder.name} is absent: set {variable} to its folder")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Golden vectors of the published methods, with `alpnet_visa/` and `adnet_family/` below."""
    return _folder("FEWSHOTSEG_GOLDEN", HERE / "golden")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The shared scans and weights, which are never part of the repository."""
    return _folder("FEWSHOTSEG_SHARED", HERE.parents[1] / "shared")
