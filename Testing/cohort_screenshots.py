"""Picture of a cohort's review page for the README: `python Testing/cohort_screenshots.py FOLDER`.

Nine invented patients after one drawing, by the default checkpoint; one of the files is damaged, and the least sure case is
corrected with its true labels. Taken with a real browser at 1280 x 800.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from app_browser import SIZE, browsing
from PIL import Image

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.corrections import add_support
from FewShotSegLib.cohort.places import Places
from FewShotSegLib.cohort.record import CaseRecord
from FewShotSegLib.cohort.review import write_review
from FewShotSegLib.cohort.run import run
from FewShotSegLib.job import Drawing
from FewShotSegLib.phantom import Phantom, make_patient
from FewShotSegLib.segfiles import write_segmentation

PATIENTS, DRAWN, DAMAGED = 9, 0, 6
NAME = "cohort-review.png"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write cohort-review.png."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cohort", type=Path, help="keep the cohort here, and go on with it the next time")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        page = write_review(made(options.cohort or Path(temporary)), title="Nine invented patients")
        take(page, options.folder / NAME)


def made(folder: Path) -> Path:
    """The folder of a cohort with results, a failure and a correction."""
    scans = folder / "scans"
    scans.mkdir(parents=True, exist_ok=True)
    patients = {f"patient-{seed}": make_patient(seed) for seed in range(1, PATIENTS + 1)}
    for seed, (name, patient) in enumerate(patients.items(), 1):
        path = patient.volume.write(scans / f"{name}.nrrd")
        if seed == DAMAGED:
            path.write_bytes(path.read_bytes()[:100_000])
    drawn = make_patient(DRAWN)
    drawing = Drawing(drawn.volume.write(folder / "drawn.nrrd"), labels(drawn, folder / "drawn.seg.nrrd"))
    config = CohortConfig(scans, folder / "cohort", (drawing,))
    run(config)
    records = [CaseRecord.read(Places(config.output).record(name)) for name in patients]
    if not any(record.status == "corrected" for record in records if record):
        name = min((record.score, record.name) for record in records if record and record.status == "done")[1]
        add_support(config.output, name, labels(patients[name], folder / f"{name}.seg.nrrd"), rerun="none")
    return config.output


def labels(patient: Phantom, path: Path) -> Path:
    """The true labels as a file."""
    return write_segmentation(patient.volume.geometry.to_sitk(patient.labels), patient.organs, path)


def take(page: Path, path: Path) -> None:
    """The top of the page as a PNG."""
    with browsing() as browser:
        shown = browser.new_page(viewport=SIZE, color_scheme="light")
        shown.goto(page.resolve().as_uri())
        shown.wait_for_timeout(1500)
        Image.open(io.BytesIO(shown.screenshot())).convert("RGB").save(path, optimize=True)
    print(f"{path} ({path.stat().st_size // 1000} kB)")


if __name__ == "__main__":
    main()
