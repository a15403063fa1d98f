"""README, "A checkpoint from your own scans": its commands, one after the other as they stand there, on invented DICOM series."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from dicom_folder import write_volume

pytest.importorskip("fewshotseg_training._felzenszwalb", reason="the compiled core of the training package is not built")

from FewShotSegLib.phantom import make_patient  # noqa: E402
from FewShotSegLib.segfiles import read_labels, write_segmentation  # noqa: E402
from FewShotSegLib.volume import Volume  # noqa: E402

README = Path(__file__).resolve().parents[1] / "README.md"
HEADING = "## A checkpoint from your own scans"
FULL, SHORT = "--steps 450", "--steps 1"
"""All that is changed: 450 steps take eight minutes; one shows that the training goes."""


def commands() -> list[list[str]]:
    """The indented lines of the section, as words."""
    section = README.read_text(encoding="utf-8").split(HEADING + "\n")[1].split("\n## ")[0]
    code = "\n".join(line[4:] for line in section.splitlines() if line.startswith("    "))
    assert code.count(FULL) == 1
    return [shlex.split(line) for line in re.sub(r"\\\n\s*", "", code).replace(FULL, SHORT).splitlines()]


@pytest.fixture()
def clinic(tmp_path: Path) -> Path:
    """A folder with two CT series, scans/patient1 and 2, something that is no scan, and a drawing of the first."""
    for number in (1, 2):
        patient = make_patient(number, "CT", shape=(8, 64, 64))
        series = tmp_path / "scans" / f"patient{number}"
        x, y, z = patient.volume.spacing
        voxels = patient.volume.array.round() + 1000  # the files subtract them again
        write_volume(series, voxels, step=z, series=f"1.2.3.{number}", PixelSpacing=[y, x], SliceThickness=z)
        if number == 1:
            image = Volume.read(series)
            write_segmentation(image.geometry.to_sitk(patient.labels), patient.organs, tmp_path / "drawing.seg.nrrd")
    (tmp_path / "scans" / "patient3").mkdir()
    (tmp_path / "scans" / "patient3" / "broken.nii.gz").write_bytes(b"not a scan")
    return tmp_path


def test_the_tutorial_runs_as_written(clinic: Path) -> None:
    said = []
    for program, *words in commands():
        command = [str(Path(sys.executable).with_name(program)), *words]
        done = subprocess.run(command, cwd=clinic, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program} {words}\n{done.stdout}{done.stderr}"
        said.append(done.stdout + done.stderr)
    prepared, trained, _, shown, _ = said
    assert "2 scans of scans are ready" in prepared and "Skipped patient3_broken" in prepared
    assert "random numbers" not in trained
    assert "Abdominal CT of our clinic" in shown and "scans, 2 scans" in shown
    card = json.loads((clinic / "checkpoints" / "ours.json").read_text())
    assert {"chaos_t2", "scans"} <= {data["name"] for data in card["training_data"]}
    assert card["licence"].startswith("Research use only") and card["extra"]["steps"] == 1
    found = read_labels(clinic / "results" / "patient2.seg.nrrd")
    assert found.geometry == Volume.read(clinic / "scans" / "patient2").geometry
    assert {segment.organ.name for segment in found.segments} == {"liver", "right kidney", "left kidney", "spleen"}
    record = json.loads((clinic / "results" / "run.json").read_text())
    assert "ours" in json.dumps(record) and (clinic / "results" / "report.html").exists()
