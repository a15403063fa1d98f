from __future__ import annotations

import os
from pathlib import Path

import pytest

from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.job_output import check_place, probability_file, record_file, spare, targets


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one/t2.nii.gz", "two/t2.nii.gz", "one/ct.nrrd", "dicom/0001.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_one_query_and_a_file_name_give_this_file(folder: Path) -> None:
    out = folder / "new" / "result.seg.nrrd"
    assert targets(out, [folder / "one/ct.nrrd"]) == [out]
    assert record_file(out, None, [out]) == folder / "new" / "result.run.json"


def test_a_folder_gets_a_file_for_each_query(folder: Path) -> None:
    out = folder / "results"
    found = targets(out, [folder / "one/ct.nrrd", folder / "dicom"])
    assert found == [out / "ct.seg.nrrd", out / "dicom.seg.nrrd"]
    assert targets(out, [folder / "one/ct.nrrd"]) == [out / "ct.seg.nrrd"]
    assert record_file(out, None, found) == out / "run.json"
    assert record_file(out, folder / "report", found) == folder / "report" / "run.json"


def test_a_folder_may_have_a_dot_in_its_name(folder: Path) -> None:
    queries = [folder / "one/ct.nrrd", folder / "two/t2.nii.gz"]
    assert targets(folder / "results.v2", queries)[0] == folder / "results.v2" / "ct.seg.nrrd"
    (folder / "there.nrrd").mkdir()
    assert targets(folder / "there.nrrd", queries[:1]) == [folder / "there.nrrd" / "ct.seg.nrrd"]


def test_queries_of_one_name_are_told_apart_by_their_folder(folder: Path) -> None:
    found = targets(folder / "out", [folder / "one/t2.nii.gz", folder / "two/t2.nii.gz", folder / "one/ct.nrrd"])
    assert [path.name for path in found] == ["one_t2.seg.nrrd", "two_t2.seg.nrrd", "ct.seg.nrrd"]
    with pytest.raises(ConfigError, match="one_t2.seg.nrrd"):
        targets(folder / "out", [folder / "one/t2.nii.gz"] * 2)


def test_a_file_for_several_queries_and_an_unknown_suffix_are_refused(folder: Path) -> None:
    queries = [folder / "one/ct.nrrd", folder / "two/t2.nii.gz"]
    with pytest.raises(ConfigError, match="2 queries"):
        targets(folder / "out.seg.nrrd", queries)
    with pytest.raises(OutputError, match="'.png'"):
        targets(folder / "out.png", queries[:1])


def test_no_input_is_replaced(folder: Path) -> None:
    drawing = folder / "one" / "ct.seg.nrrd"
    drawing.touch()
    found = targets(folder / "dicom" / ".." / "one", [folder / "one/ct.nrrd"])
    with pytest.raises(OutputError, match="would replace"):
        spare([drawing], found)
    spare([folder / "one/ct.nrrd"], found)


def test_a_place_below_a_file_is_refused_before_the_work(folder: Path) -> None:
    with pytest.raises(OutputError, match="is not a folder"):
        check_place(folder / "one/ct.nrrd" / "deep" / "result.seg.nrrd")
    check_place(folder / "new" / "deep" / "result.seg.nrrd")
    assert not (folder / "new").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused_before_the_work(folder: Path) -> None:
    (folder / "one").chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        check_place(folder / "one" / "result.seg.nrrd")


def test_probabilities_lie_beside_the_result() -> None:
    assert probability_file(Path("out/x.seg.nrrd")) == Path("out/x_probabilities.seq.nrrd")
