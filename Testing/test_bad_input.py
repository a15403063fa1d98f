"""Bad input of every kind, through the command line where a user meets it: what is told, and what is left on the disk."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_encoder import TinyEncoder

from FewShotSegLib.cards import Card
from FewShotSegLib.cli import main
from FewShotSegLib.organs import Organ
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.segmenter import Segmenter
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Geometry, Volume

HERE = Path(__file__).resolve().parent
LIVER = (Organ("liver", 1),)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """An encoder that costs nothing in place of every checkpoint; it may be told on what it was trained."""

    def install(modality: str) -> None:
        card = Card("quick", modalities=[modality])
        monkeypatch.setattr("FewShotSegLib.segmenter.load_checkpoint", lambda name: (TinyEncoder(), card))

    install("MR")
    return install


@pytest.fixture
def refused(clinic: Path, tmp_path: Path, quick: object) -> Callable[..., str]:
    """Run `segment` with some options changed; it must fail with code 2 and leave nothing. Gives the three lines."""

    def run(*more: object, **changes: object) -> str:
        code, err = segment(clinic, tmp_path / "out" / "result.seg.nrrd", *more, **changes)
        assert code == 2, err
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists()
        return err

    return run


def segment(clinic: Path, output: Path, *more: object, **changes: object) -> tuple[int, str]:
    """`fewshotseg segment`: the drawing of the first patient, the scan of the second. Exit code and stderr."""
    options = {"support_image": clinic / "a.nii.gz", "support_labels": clinic / "a.seg.nrrd", "query": clinic / "b.nii.gz"}
    given = {**options, "output": output, **changes}
    arguments = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        code = main(["segment", *arguments, *map(str, more)])
    return code, err.getvalue()


def changed(scan: Path, path: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """The scan with other voxels."""
    volume = Volume.read(scan)
    return replace(volume, array=change(volume.array.astype(np.float32))).write(path)


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("which", ["query", "support_image", "support_labels"])
def test_a_missing_file(refused: Callable[..., str], tmp_path: Path, which: str) -> None:
    assert "Found:      " + str(tmp_path / "gone.nii.gz") + " does not exist" in refused(**{which: tmp_path / "gone.nii.gz"})


@pytest.mark.parametrize("which", ["query", "support_image", "support_labels"])
def test_a_truncated_file(refused: Callable[..., str], clinic: Path, tmp_path: Path, which: str) -> None:
    whole = clinic / ("a.seg.nrrd" if which == "support_labels" else "a.nii.gz")
    cut = tmp_path / f"cut{''.join(whole.suffixes)}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    err = refused(**{which: cut})
    assert str(cut) in err and "What to do:" in err


def test_an_unknown_file_type(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear colleague")
    assert "letter.txt is not a known image file" in refused(query=tmp_path / "letter.txt")


# ------------------------------------------------------------------------------------------------ voxels


@pytest.mark.parametrize("which", ["query", "support_image"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers(refused: Callable[..., str], clinic: Path, tmp_path: Path, which: str, value: float) -> None:
    def spoil(array: np.ndarray) -> np.ndarray:
        array[3, 20:30, 20] = value
        return array

    bad = changed(clinic / ("b.nii.gz" if which == "query" else "a.nii.gz"), tmp_path / "bad.nrrd", spoil)
    assert "10 of 32768 voxels of bad are NaN or infinite" in refused(**{which: bad})


@pytest.mark.parametrize("which", ["query", "support_image"])
def test_a_constant_image(refused: Callable[..., str], clinic: Path, tmp_path: Path, which: str) -> None:
    flat = changed(clinic / ("b.nii.gz" if which == "query" else "a.nii.gz"), tmp_path / "flat.nrrd", np.ones_like)
    assert "All voxels of flat have the same value" in refused(**{which: flat})


def test_a_checkpoint_for_another_modality_is_warned_of(
    quick: Callable[[str], None], clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick("CT")
    code, err = segment(clinic, tmp_path / "result.seg.nrrd")
    assert code == 0 and (tmp_path / "result.seg.nrrd").is_file()
    assert "trained on CT, not on MR: expect a poor result" in err
    quick("MR")
    assert "expect a poor result" not in segment(clinic, tmp_path / "result.seg.nrrd")[1]


# ------------------------------------------------------------------------------------------------ drawings


def test_labels_empty_on_the_chosen_slices(refused: Callable[..., str]) -> None:
    err = refused("--organ", "spleen", support_slices="0")
    assert "'spleen' is empty on the chosen slices" in err and "where it is drawn: 4-6" in err


def test_slices_that_do_not_exist(refused: Callable[..., str]) -> None:
    assert "Slices 8, 99 do not exist" in refused(support_slices="4,8,99")


def test_a_label_grid_disjoint_from_the_image(refused: Callable[..., str], clinic: Path, tmp_path: Path) -> None:
    labels = Volume.read(clinic / "a.seg.nrrd")
    away = replace(labels.geometry, origin=(1000.0, 0.0, 0.0))
    Volume(labels.array, away).write(tmp_path / "away.nrrd")
    err = refused(support_labels=tmp_path / "away.nrrd")
    assert "lies in the image" in err and "x 1000..1315" in err


def test_an_image_in_place_of_labels(refused: Callable[..., str], clinic: Path) -> None:
    assert "is it the image?" in refused(support_labels=clinic / "a.nii.gz")


def test_an_unknown_organ(refused: Callable[..., str]) -> None:
    err = refused("--organ", "heart")
    assert "No organ 'heart'" in err and "'liver' (1)" in err


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("method", "macth", "one of match, alpnet, visa"),
        ("strategy", "sideways", "one of auto, direct, propagate"),
        ("device", "tpu", "one of auto, cpu"),
        ("option", "radus=3", "has no option 'radus'"),
        ("option", "sigma=wide", "option sigma = 'wide'"),
        ("option", "sigma=-1", "options are impossible"),
    ],
)
def test_an_unknown_choice_names_the_known_ones(refused: Callable[..., str], option: str, value: str, told: str) -> None:
    assert told in refused(**{option: value})


def test_an_unknown_checkpoint(clinic: Path, tmp_path: Path) -> None:
    code, err = segment(clinic, tmp_path / "out" / "x.seg.nrrd", checkpoint="carry-everything")
    assert code == 2 and "There is no checkpoint 'carry-everything'" in err and not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------ scans of unusual length


def bricks(slices: int, slice_mm: float = 5.0) -> tuple[Volume, np.ndarray]:
    """A scan of 8 x 32 pixels of 1 cm with a brick of up to 8 cm in its middle, and the brick's mask (1, z, y, x)."""
    z, y, x = np.ogrid[:slices, :8, :32]
    brick = (abs(z - (slices - 1) / 2) * slice_mm < 40) & (abs(y - 3) < 2) & (abs(x - 12) < 4)
    noise = np.random.default_rng(slices).normal(100, 5, brick.shape)
    return Volume((noise + 80 * brick).astype(np.int16), Geometry((32, 8, slices), (10, 10, slice_mm))), brick[None]


@pytest.mark.parametrize(("support_slices", "query_slices"), [(1, 9), (9, 1), (1, 1)])
def test_a_scan_of_one_slice(support_slices: int, query_slices: int) -> None:
    image, mask = bricks(support_slices)
    query, _ = bricks(query_slices)
    query = replace(query, array=query.array + 1)
    found = Segmenter(encoder=TinyEncoder()).segment(Support.create(image, mask, LIVER), query)  # type: ignore[arg-type]
    assert found.labels.shape == query.array.shape
    assert found.mask("liver").any() and not found.mask("liver").all()


def test_one_slice_drawn_in_a_scan_of_one_slice() -> None:
    image, mask = bricks(1)
    found = Segmenter(encoder=TinyEncoder()).segment(Support.create(image, mask, LIVER), image)  # type: ignore[arg-type]
    assert np.array_equal(found.mask("liver"), mask[0])


LONG = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_bad_input
from tiny_encoder import TinyEncoder
from FewShotSegLib.segmenter import Segmenter, SegmenterConfig
from FewShotSegLib.support import Support

def peak_mib():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

long, brick = test_bad_input.bricks(2000, 1.0)
short, mask = test_bad_input.bricks(9)
same = Support.create(long, brick, test_bad_input.LIVER, slices=[1000])
new = Support.create(short, mask, test_bad_input.LIVER)
before = peak_mib()
for support, every_mm in ((same, 5.0), (new, 20.0)):
    found = Segmenter(SegmenterConfig(every_mm=every_mm), encoder=TinyEncoder()).segment(support, long)
    assert found.labels.shape == (2000, 8, 32)
    assert found.mask("liver").any()
print(peak_mib() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a process is read from /proc")
def test_a_scan_of_2000_slices_needs_little_memory() -> None:
    """All its pixels for the network would be 131 MB, their scores 262 MB, and what the refinement needs of them 1.3 GB."""
    done = subprocess.run([sys.executable, "-c", LONG, str(HERE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 400


# ------------------------------------------------------------------------------------------------ places for the output


def test_an_unwritable_output_is_told_before_the_work(clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("FewShotSegLib.job.Segmenter", lambda config: pytest.fail("the work was begun"))
    code, err = segment(clinic, tmp_path / "file" / "result.seg.nrrd")
    assert code == 2 and "is not a folder" in err
    code, err = segment(clinic, tmp_path / "result.seg.nrrd", report=tmp_path / "file")
    assert code == 2 and "is not a folder" in err


def test_an_unknown_file_type_is_told_before_the_work(clinic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("FewShotSegLib.job.Segmenter", lambda config: pytest.fail("the work was begun"))
    code, err = segment(clinic, tmp_path / "result.stl")
    assert code == 2 and "unknown file type '.stl'" in err


def test_a_drawing_is_never_replaced(clinic: Path) -> None:
    before = (clinic / "a.seg.nrrd").read_bytes()
    code, err = segment(clinic, clinic, query=clinic / "a.nii.gz")
    assert code == 2 and "would replace" in err
    assert (clinic / "a.seg.nrrd").read_bytes() == before


COMMAND = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from tiny_encoder import TinyEncoder
from FewShotSegLib import segmenter
from FewShotSegLib.cards import Card
from FewShotSegLib.cli import main
from FewShotSegLib.devices import FeatureRunner

encode = FeatureRunner._encode

def slowly(self, slices):
    print("encoding", flush=True)
    sys.stdin.readline()
    return encode(self, slices)

segmenter.load_checkpoint = lambda name: (TinyEncoder(), Card("quick", modalities=["MR"]))
if sys.argv[2] == "full disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
else:
    FeatureRunner._encode = slowly
sys.exit(main(sys.argv[3:]))
"""


def command(how: str, clinic: Path, output: Path) -> list[str]:
    """The command line as a process, in which files may have 1000 bytes, or which waits for a line before it encodes."""
    support = ["--support-image", str(clinic / "a.nii.gz"), "--support-labels", str(clinic / "a.seg.nrrd")]
    rest = ["--query", str(clinic / "b.nii.gz"), "--output", str(output)]
    return [sys.executable, "-c", COMMAND, str(HERE), how, "segment", *support, *rest]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of the size of files")
def test_a_full_disk_leaves_no_half_written_file(clinic: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "result.seg.nrrd"
    done = subprocess.run(command("full disk", clinic, out), capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Cannot write" in done.stderr and "no half-written file was left" in done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no signals to other processes")
def test_ctrl_c_leaves_no_half_written_file(clinic: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "result.seg.nrrd"
    out.parent.mkdir()
    out.write_text("the result of yesterday")
    pipe = subprocess.PIPE
    process = subprocess.Popen(command("slow", clinic, out), stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "encoding\n"
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate("go on\n" * 100, timeout=250)
    assert process.returncode == 130, err
    assert "Stopping" in err and "The job was cancelled" in err and "Traceback" not in err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["result.seg.nrrd"]
    assert out.read_text() == "the result of yesterday"


def test_the_clinic_is_what_these_tests_say(clinic: Path) -> None:
    labels = read_labels(clinic / "a.seg.nrrd")
    slices = {s.organ.name: np.flatnonzero(labels.mask(s).any((1, 2))).tolist() for s in labels.segments}
    assert slices["spleen"] == [4, 5, 6] and labels.layers.shape == (1, 8, 64, 64)
