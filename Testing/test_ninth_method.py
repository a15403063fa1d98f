"""The example of CONTRIBUTING, a ninth method: a file in the folder of the methods and its name in the list, nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_alpnet import disc, features_of
from tiny_encoder import TinyEncoder

from FewShotSegLib import methods
from FewShotSegLib.methods import Method, create_method, list_methods
from FewShotSegLib.methods.base import upsample
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.strategies.heads import HeadTask, Shot, direct, propagate
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

FOLDER = Path(__file__).parent / "ninth_method"


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(FOLDER)])
    monkeypatch.setattr(methods, "NAMES", (*methods.NAMES, "gauss"))


def test_the_example_has_thirty_lines() -> None:
    assert len([line for line in (FOLDER / "gauss.py").read_text().splitlines() if line.strip()]) <= 30


def test_it_is_listed_and_made_with_its_options() -> None:
    assert list_methods()[-1] == "gauss"
    method = create_method("gauss", floor=0.1)
    assert isinstance(method, Method) and method.config.floor == 0.1


@pytest.mark.parametrize("strategy", [direct, propagate])
def test_both_strategies_find_the_organ_with_it(strategy: object) -> None:
    support, query = (torch.stack([disc(at, r) for r in (20, 28, 34, 28, 20)]) for at in ((60, 64), (70, 56)))
    task = HeadTask([Shot(features_of(support, noise=0.3), support)], features_of(query, noise=0.3, seed=1), (0, 4))
    found = upsample(strategy(create_method("gauss"), task)[:, None], (128, 128))[:, 0] > 0  # type: ignore[operator]
    assert 2 * (found * query).sum() / (found.sum() + query.sum()) > 0.85


def test_the_whole_job_works_with_it(clinic: Path) -> None:
    support = Support.read(clinic / "a.nii.gz", clinic / "a.seg.nrrd")
    query = Volume.read(clinic / "b.nii.gz")
    worker = Segmenter(SegmenterConfig(method="gauss", device="cpu"), encoder=TinyEncoder())  # type: ignore[arg-type]
    result = worker.segment(support, query)
    assert result.labels.shape == query.array.shape and result.labels.any()
    sure = result.confidence[~np.isnan(result.confidence)]
    assert len(sure) and (sure >= 0).all() and (sure <= 1).all()
