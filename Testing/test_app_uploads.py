"""Files from the browser: names, limits, zips that lie, and which files are scans."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from FewShotSegLib.app.uploads import MB, Budget, find_drawings, find_scans, safe_name, save, unpack
from FewShotSegLib.errors import VolumeError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("scan.nii.gz", "scan.nii.gz"),
        ("../../etc/passwd", "passwd"),
        ("C:\\scans\\a b.nrrd", "a b.nrrd"),
        ("Müller;rm -rf.nii", "Müller_rm -rf.nii"),
        ("...", "file"),
        ("", "file"),
        ("x" * 300 + ".nii", "x" * 116 + ".nii"),
    ],
)
def test_names_lead_nowhere(given: str, kept: str) -> None:
    assert safe_name(given) == kept


def test_the_budget_is_counted_to_the_byte() -> None:
    budget = Budget(1)
    budget.take(MB)
    with pytest.raises(VolumeError, match="at most 1 MB") as refused:
        budget.take(1)
    assert "--upload-mb" in refused.value.action


async def _chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(MB // 2)


def test_nothing_is_left_of_a_file_that_is_too_large(tmp_path: Path) -> None:
    asyncio.run(save(_chunks(2), tmp_path / "a", Budget(1)))
    assert (tmp_path / "a").stat().st_size == MB
    with pytest.raises(VolumeError):
        asyncio.run(save(_chunks(3), tmp_path / "b", Budget(1)))
    assert not (tmp_path / "b").exists()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_keeps_its_folders_apart_and_hidden_files_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"one/1.dcm": b"1", "two/1.dcm": b"2", "__MACOSX/x": b"", "one/.DS_Store": b""})
    unpack(path, tmp_path / "out", 1)
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert found == ["0/1.dcm", "1/1.dcm"] and not path.exists()


@pytest.mark.parametrize("name", ["../out.txt", "/etc/x", "a/../../x", "C:/x", "..\\x"])
def test_a_zip_cannot_write_outside(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "a.zip", {name: b"x"})
    with pytest.raises(VolumeError, match="leads outside"):
        unpack(path, tmp_path / "in" / "out", 1)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_what_a_zip_really_holds_is_counted(tmp_path: Path) -> None:
    path = zipped(tmp_path / "bomb.zip", {"a": bytes(3 * MB)})
    assert path.stat().st_size < MB / 10
    with pytest.raises(VolumeError, match="at most 2 MB"):
        unpack(path, tmp_path / "out", 2)


def test_a_damaged_zip_is_told(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": b"hello" * 100})
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(VolumeError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out", 1)


def test_images_and_series_are_found(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "b.mhd", "b.raw", "note.txt", "a.seg.nrrd", "series/1", "series/2.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert find_scans(tmp_path) == [tmp_path / "a.nii.gz", tmp_path / "b.mhd", tmp_path / "series"]


@pytest.mark.parametrize("name", ["01_label.nii.gz", "Labels.nrrd", "patient-mask.mha", "liver seg.nii", "a.seg.nrrd"])
def test_a_drawing_beside_its_scan_is_no_scan(tmp_path: Path, name: str) -> None:
    for other in (name, "unlabelled_segovia.nii.gz"):
        (tmp_path / other).write_bytes(b"x")
    assert find_drawings(tmp_path) == [tmp_path / name]
    assert find_scans(tmp_path) == [tmp_path / "unlabelled_segovia.nii.gz"]


def test_a_scan_alone_is_a_scan_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "mask.nii.gz").write_bytes(b"x")
    assert find_scans(tmp_path) == [tmp_path / "mask.nii.gz"] and find_drawings(tmp_path) == []


def test_no_scan_is_told(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(VolumeError, match="note.txt"):
        find_scans(tmp_path)
