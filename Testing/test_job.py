from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from FewShotSegLib.errors import Cancelled, CheckpointError, ConfigError, VolumeError
from FewShotSegLib.job import Drawing, Listener, Outcome, SegmentJob, run
from FewShotSegLib.progress import Progress
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.segmenter import SegmenterConfig
from FewShotSegLib.volume import Volume

SLICE = 4  # all organs are drawn there


class Diary(Listener):
    """Writes down what it hears; asks to stop at a stage of a query."""

    def __init__(self, stop_at: str = "") -> None:
        self.begun: list[str] = []
        self.moments: list[Progress] = []
        self.outcomes: list[Outcome] = []
        self.stop_at = stop_at

    def started(self, query: Path) -> None:
        self.begun.append(query.name)

    def progressed(self, progress: Progress) -> None:
        self.moments.append(progress)

    def finished(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def cancelled(self) -> bool:
        return bool(self.moments) and self.moments[-1].stage == self.stop_at


@pytest.fixture(scope="module")
def config(tiny_checkpoint: Path) -> SegmenterConfig:
    return SegmenterConfig(checkpoint=str(tiny_checkpoint), probabilities=True)


@pytest.fixture(scope="module")
def done(clinic: Path, config: SegmenterConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[SegmentJob, Diary]:
    """One drawn slice; three queries: the same scan, one that is not there, and another patient."""
    folder = tmp_path_factory.mktemp("job")
    queries = (clinic / "a.nii.gz", clinic / "missing.nii.gz", clinic / "b.nii.gz")
    drawing = Drawing(clinic / "a.nii.gz", clinic / "a.seg.nrrd", (SLICE,))
    job = SegmentJob((drawing,), queries, folder / "out", ("liver", "Spleen"), report=folder / "report", config=config)
    diary = Diary()
    assert run(job, diary) == diary.outcomes
    return job, diary


def test_every_query_has_its_files_and_the_failing_one_none(done: tuple[SegmentJob, Diary]) -> None:
    job, _ = done
    names = sorted(path.name for path in job.output.iterdir())
    assert names == ["a.seg.nrrd", "a_probabilities.seq.nrrd", "b.seg.nrrd", "b_probabilities.seq.nrrd"]
    assert job.report is not None
    assert sorted(path.name for path in job.report.iterdir()) == ["01_a.png", "02_b.png", "report.html", "run.json"]


def test_drawn_slices_of_the_same_scan_stay_as_drawn(done: tuple[SegmentJob, Diary], clinic: Path) -> None:
    drawing, result = read_labels(clinic / "a.seg.nrrd"), read_labels(done[0].output / "a.seg.nrrd")
    assert [segment.organ.name for segment in result.segments] == ["liver", "spleen"]
    for segment in result.segments:
        drawn = next(other for other in drawing.segments if other.organ == segment.organ)
        assert np.array_equal(result.mask(segment)[SLICE], drawing.mask(drawn)[SLICE])


def test_a_result_lies_on_the_grid_of_its_query(done: tuple[SegmentJob, Diary], clinic: Path) -> None:
    assert read_labels(done[0].output / "b.seg.nrrd").geometry.same_as(Volume.read(clinic / "b.nii.gz").geometry)


def test_outcomes_tell_volumes_and_the_error(done: tuple[SegmentJob, Diary]) -> None:
    job, diary = done
    own, missing, other = diary.outcomes
    assert isinstance(missing.error, VolumeError) and "missing.nii.gz" in str(missing.error)
    assert own.error is other.error is None
    labels = read_labels(own.output)
    liver = labels.mask(labels.segments[0]).sum() * labels.geometry.voxel_ml
    assert own.organs[0].name == "liver" and own.organs[0].ml == pytest.approx(liver)
    assert diary.begun == [query.name for query in job.queries]


def test_progress_grows_to_one_for_each_query(done: tuple[SegmentJob, Diary]) -> None:
    fractions = [moment.fraction for moment in done[1].moments]
    ends = [i for i, fraction in enumerate(fractions) if fraction == 1.0]
    assert fractions[-1] == 1.0 and len({moment.stage for moment in done[1].moments}) == 3
    first = fractions[: ends[0] + 1]
    assert first == sorted(first) and len(first) > 5


def test_the_record_says_how_everything_was_made(done: tuple[SegmentJob, Diary], clinic: Path, tiny_checkpoint: Path) -> None:
    job, _ = done
    assert job.report is not None
    record = json.loads((job.report / "run.json").read_text())
    card = json.loads(tiny_checkpoint.with_suffix(".json").read_text())
    assert record["checkpoint"] == {"name": "tiny", "sha256": card["sha256"]}
    assert record["config"]["method"] == "match" and record["method_options"]["sigma"] == 3.0
    assert {"python", "torch", "numpy", "SimpleITK", "fewshotseg"} <= set(record["versions"])
    assert record["supports"][0]["drawn"] == {"liver": [SLICE], "spleen": [SLICE]}
    own, missing, _ = record["queries"]
    assert own["query"] == str(clinic / "a.nii.gz") and own["organs"]["liver"]["ml"] > 0
    assert "does not exist" in missing["error"] and "output" not in missing


def test_cancelling_leaves_nothing(clinic: Path, config: SegmenterConfig, tmp_path: Path) -> None:
    drawing = Drawing(clinic / "a.nii.gz", clinic / "a.seg.nrrd", (SLICE,))
    diary = Diary(stop_at="encoding the support")
    with pytest.raises(Cancelled):
        run(SegmentJob((drawing,), (clinic / "b.nii.gz",), tmp_path / "out", report=tmp_path / "r", config=config), diary)
    assert list(tmp_path.rglob("*.*")) == []
    assert diary.outcomes == []


def test_a_missing_only_query_is_the_error_of_the_job(clinic: Path, config: SegmenterConfig, tmp_path: Path) -> None:
    drawing = Drawing(clinic / "a.nii.gz", clinic / "a.seg.nrrd")
    with pytest.raises(VolumeError, match="missing"):
        run(SegmentJob((drawing,), (clinic / "missing.nii.gz",), tmp_path / "out", config=config))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_loaded_or_is_not_there_stops_the_job_first(clinic: Path, tmp_path: Path) -> None:
    drawing = Drawing(clinic / "a.nii.gz", clinic / "a.seg.nrrd")
    with pytest.raises(CheckpointError):
        run(SegmentJob((drawing,), (clinic / "b.nii.gz",), tmp_path / "out", config=SegmenterConfig(checkpoint="no such")))
    with pytest.raises(ConfigError, match="without a drawing"):
        run(SegmentJob((), (clinic / "b.nii.gz",), tmp_path / "out"))
