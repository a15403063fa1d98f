"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from FewShotSegLib.errors import OutputError
from FewShotSegLib.files import atomic_path, split_suffix


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("folder/a.b.nii.gz", ("a.b", ".nii.gz")),
        ("liver.SEG.nrrd", ("liver", ".SEG.nrrd")),
        ("plain.json", ("plain", ".json")),
        ("none", ("none", "")),
    ],
)
def test_split_suffix(name: str, expected: tuple[str, str]) -> None:
    assert split_suffix(name) == expected


def test_the_file_appears_at_the_end_under_its_name(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "result.seg.nrrd"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.name.endswith(".seg.nrrd")
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert os.listdir(target.parent) == ["result.seg.nrrd"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_usual_permissions_are_given(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path: Path, interruption: type[BaseException]) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(interruption), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise interruption
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="Cannot write .*result.txt") as caught, atomic_path(tmp_path / "file" / "result.txt"):
        pytest.fail("the block must not run")
    assert "may be written to" in str(caught.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root and Windows may write into read-only folders")
def test_a_read_only_folder_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"), atomic_path(tmp_path / "result.txt") as temporary:
        temporary.write_text("x")


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "result.txt").mkdir()
    with pytest.raises(OutputError, match="is a folder"), atomic_path(tmp_path / "result.txt"):
        pytest.fail("the block must not run")


def test_a_writer_that_wrote_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No such file"), atomic_path(tmp_path / "result.txt"):
        pass
    assert os.listdir(tmp_path) == []


FULL_DISK = """
import resource, sys
from pathlib import Path
from FewShotSegLib.errors import OutputError
from FewShotSegLib.files import atomic_path
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with atomic_path(Path(sys.argv[1])) as temporary:
        temporary.write_bytes(bytes(2000))
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="the full disk is imitated by a POSIX limit on file size")
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "result.bin")], capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("Cannot write")
    assert os.listdir(tmp_path) == []
