"""The module `slicer.packaging`: Slicer 5.11 and later install Python packages with it. Here installs are only noted down."""

from __future__ import annotations

import importlib.metadata
import types
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement


def make(noted: list[list[str]]) -> types.ModuleType:
    """The module, whose installs are appended to `noted`."""
    module = types.ModuleType("slicer.packaging")

    def pip_install(requirements: Any, **told: Any) -> None:
        noted.append(_listed(requirements))

    def pip_ensure(requirements: Any, constraints: Any = None, requester: str = "", **told: Any) -> None:
        missing = [one for one in _listed(requirements) if not pip_check(one)]
        if missing:
            noted.append(missing)

    vars(module).update(pip_install=pip_install, pip_ensure=pip_ensure, pip_check=pip_check, load_requirements=load_requirements)
    return module


def pip_check(requirements: Any) -> bool:
    """Whether all of them are installed, in a version that fits."""
    return all(_installed(Requirement(one)) for one in _listed(requirements))


def load_requirements(path: Any) -> list[str]:
    """The lines of a requirements file."""
    lines = (line.partition("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _listed(requirements: Any) -> list[str]:
    if isinstance(requirements, str):
        return requirements.split()
    return [str(one) for one in requirements]


def _installed(requirement: Requirement) -> bool:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return requirement.specifier.contains(importlib.metadata.version(requirement.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False
