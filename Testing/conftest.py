"""Fixtures for every test: where the golden vectors and the shared data are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).resolve().parent

# The same examples in every run; none is too slow on a busy machine (0.2 s were the limit of each, 1 s of drawing ten).
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


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


# ---- the same in every run, whatever else the machine does and whichever tests ran before


@pytest.fixture(scope="session", autouse=True)
def float32() -> Iterator[None]:
    """No probe of the precision: it times two short runs, so that the load decides, for each model anew, how features round."""
    from FewShotSegLib.devices import FeatureRunner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureRunner, "_bf16_is_faster", lambda self: False)
        yield


@pytest.fixture(autouse=True)
def seeded(float32: None) -> None:
    """The random numbers of a test without a seed of its own do not depend on the tests before it."""
    import torch

    torch.manual_seed(0)


# ---- what the tests of whole jobs share: a checkpoint that learned nothing, and two invented patients on disk


@pytest.fixture(scope="module")
def small_and_steady(float32: None) -> Iterator[None]:
    """Slices of 128 pixels, for speed."""
    from FewShotSegLib import grid

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid, "DEFAULT_PIXELS", 128)
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with random weights: everything works with it, and nothing is found."""
    import torch

    from FewShotSegLib.cards import Card
    from FewShotSegLib.checkpoints import save_checkpoint
    from FewShotSegLib.encoders import create_encoder

    torch.manual_seed(0)
    card = Card("tiny", "random weights, for tests", methods=["match"], modalities=["MR"], licence="Apache-2.0")
    return save_checkpoint(create_encoder(channels=16), card, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two invented patients of 8 slices: a.nii.gz with its drawing a.seg.nrrd, and b.nii.gz."""
    from FewShotSegLib.phantom import make_patient
    from FewShotSegLib.segfiles import write_segmentation

    folder = tmp_path_factory.mktemp("clinic")
    for name, seed in (("a", 2), ("b", 0)):
        patient = make_patient(seed, shape=(8, 64, 64))
        patient.volume.write(folder / f"{name}.nii.gz")
        if name == "a":
            write_segmentation(patient.volume.geometry.to_sitk(patient.labels), patient.organs, folder / "a.seg.nrrd")
    return folder
