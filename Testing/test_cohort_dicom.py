"""Cohorts of DICOM series, with results as DICOM SEG."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from cohort_folder import ORGANS, make_cohort, make_scan, use_bright_engine
from dicom_folder import write_volume

from FewShotSegLib.cli import main
from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.corrections import add_support
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.review import write_review
from FewShotSegLib.cohort.run import Tally, run
from FewShotSegLib.download import sha256_of
from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.segfiles import read_labels, write_segmentation
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

pytest.importorskip("highdicom", reason="needs the extra [dicom]")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CohortConfig:
    """A NIfTI, a folder with a series, and one with two series."""
    use_bright_engine(monkeypatch)
    config = make_cohort(tmp_path, 1, dicom_seg=True)
    for number, (folder, series) in enumerate([("d1", "1.1"), ("d2", "2.1"), ("d3", "2.2")], 1):
        voxels = np.rint(make_scan(number)[0].array[: 5 - number])
        write_volume(config.source / folder, voxels, series=series, Modality="MR", RescaleIntercept=0)
    for path in (config.source / "d3").iterdir():
        path.rename(config.source / "d2" / f"second{path.name}")
    (config.source / "d3").rmdir()
    return config


def test_every_series_has_its_dicom_seg(config: CohortConfig) -> None:
    (config.source / "list.csv").write_text("image;name;series\ns000.nii;s000;\nd1;d1;\nd2;a1;2.1\nd2;b2;2.2\n")
    config = replace(config, source=config.source / "list.csv")
    assert run(config) == Tally(done=4)
    places = Places(config.output)
    assert sorted(path.name for path in places.results.glob("*.dcm")) == ["a1.dcm", "b2.dcm", "d1.dcm"]
    for name, series in (("d1", "1.1"), ("a1", "2.1"), ("b2", "2.2")):
        folder = config.source.parent / ("d1" if name == "d1" else "d2")
        assert pydicom.dcmread(places.dicom_seg(name)).ReferencedSeriesSequence[0].SeriesInstanceUID == series
        layers = read_labels(places.result(name))
        back = Support.read(folder, places.dicom_seg(name), series=series, slices="all")
        assert [organ.name for organ in back.organs] == ["liver", "spleen"]
        for mask, segment in zip(back.masks, layers.segments, strict=True):
            assert mask.any() and np.array_equal(mask, layers.mask(segment))
        record = CaseRecord.read(places.record(name))
        assert record is not None and record.dicom_seg == sha256_of(places.dicom_seg(name)) and not record.notes
        check(places.dicom_seg(name))
    assert run(config) == Tally(kept=4)


def test_what_was_done_without_gets_it_without_being_segmented_again(
    config: CohortConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = use_bright_engine(monkeypatch)
    run(replace(config, dicom_seg=False))
    places = Places(config.output)
    assert not list(places.results.glob("*.dcm"))
    labels = read_labels(places.result("d1"))
    assert run(config) == Tally(kept=3) and engines[1].names == []
    assert sorted(path.name for path in places.results.glob("*.dcm")) == ["d1.dcm", "d2.dcm"]
    back = Support.read(config.source / "d1", places.dicom_seg("d1"), slices="all")
    assert all(np.array_equal(mask, labels.mask(s)) for mask, s in zip(back.masks, labels.segments, strict=True))
    written = places.dicom_seg("d2").stat().st_mtime_ns
    places.dicom_seg("d1").unlink()  # lost
    run(config)
    assert places.dicom_seg("d1").exists() and places.dicom_seg("d2").stat().st_mtime_ns == written


def test_which_series_was_taken_and_left_out_copies_are_noted(config: CohortConfig) -> None:
    for path in (config.source / "d1").iterdir():
        (config.source / "d1" / f"copy{path.name}").write_bytes(path.read_bytes())
    run(config)
    notes = {}
    for name in ("d1", "d2", "s000"):
        record = CaseRecord.read(Places(config.output).record(name))
        assert record is not None
        notes[name] = record.notes
    assert len(notes["d1"]) == 1 and "4 copies of slices are left out" in notes["d1"][0]
    assert len(notes["d2"]) == 1 and "holds 2 series" in notes["d2"][0] and notes["s000"] == ()
    assert "d2 holds 2 series" in write_review(config.output).read_text(encoding="utf-8")


def test_one_of_an_earlier_result_never_stays(config: CohortConfig) -> None:
    run(config)
    assert run(replace(config, dicom_seg=False, nearest=1)) == Tally(done=3)
    assert not list(Places(config.output).results.glob("*.dcm"))


def check(path: Path) -> None:
    """Nothing that dciodvfy calls an error, where it is installed."""
    if shutil.which("dciodvfy"):
        told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
        assert not [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]


def test_a_correction_is_the_dicom_seg_too(config: CohortConfig, tmp_path: Path) -> None:
    run(config)
    before = pydicom.dcmread(Places(config.output).dicom_seg("d1")).SOPInstanceUID
    geometry = Volume.read(config.source / "d1").geometry
    labels = make_scan(9)[1]
    corrected = write_segmentation(geometry.to_sitk(labels), ORGANS, tmp_path / "corrected.seg.nrrd")
    add_support(config.output, "d1", corrected, rerun="none")
    after = Places(config.output).dicom_seg("d1")
    assert pydicom.dcmread(after).SOPInstanceUID != before
    back = Support.read(config.source / "d1", after, slices="all")
    assert np.array_equal(back.masks[0], labels == 1) and np.array_equal(back.masks[1], labels == 2)


def test_what_stands_against_it_is_a_note_and_a_full_disk_is_not(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OutputError("no frame of reference")

    def full(*arguments: object, **options: object) -> None:
        raise OutputError("Cannot write: No space left on device") from OSError(28, "No space left on device")

    monkeypatch.setattr("FewShotSegLib.cohort.dicom.write_dicom_seg", refuse)
    assert run(config) == Tally(done=3)
    record = CaseRecord.read(Places(config.output).record("d1"))
    assert record is not None and "There is no DICOM SEG: no frame of reference" in record.notes[0]
    monkeypatch.setattr("FewShotSegLib.cohort.dicom.write_dicom_seg", full)
    with pytest.raises(OutputError, match="No space left"):
        run(config)  # from a reader
    with pytest.raises(OutputError, match="No space left"):
        run(replace(config, nearest=1))
    assert list(Places(config.output).locks.iterdir()) == []
    monkeypatch.undo()
    use_bright_engine(monkeypatch)
    run(config)
    record = CaseRecord.read(Places(config.output).record("d1"))
    assert record is not None and record.dicom_seg and record.notes == ()


def test_asked_for_on_the_command_line_when_a_run_goes_on_and_linked_in_the_review(config: CohortConfig) -> None:
    run(replace(config, dicom_seg=False))
    assert main(["cohort", "run", str(config.output), "--dicom-seg"]) == 0
    assert CohortConfig.read(config.output).dicom_seg and Places(config.output).dicom_seg("d2").exists()
    page = write_review(config.output).read_text(encoding="utf-8")
    assert 'href="results/d1.dcm"' in page and "s000.dcm" not in page


def test_without_highdicom_nothing_begins(config: CohortConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigError, match="fewshotseg\\[dicom\\]"):
        run(config)
    assert not Places(config.output).results.exists()
