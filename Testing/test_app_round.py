"""The page's whole round in a real browser: drop scans, draw with the mouse, Apply, look, download, correct, stop, fail."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from app_browser import Served, Visit, browsing, eventually, serving, settled
from dicom_folder import write_volume
from scipy import ndimage

from FewShotSegLib.dicom_labels import find_drawing
from FewShotSegLib.phantom import Phantom, make_patient
from FewShotSegLib.segfiles import read_labels
from FewShotSegLib.volume import Volume

pytestmark = pytest.mark.timeout(900)  # the first test has the browser's and the server's start in its time
SHAPE = (12, 96, 96)
BRUSH_MM = 32
DICOM_SERIES = "1.2.826.0.1.3680043.8.498.77"


@dataclass
class Evidence:
    """What was seen during the round; arrays are (z, y, x)."""

    served: Served
    visit: Visit
    folder: Path
    drawn: Phantom
    new: Phantom
    slice: int
    before: np.ndarray = field(default_factory=lambda: np.zeros(3))
    after: np.ndarray = field(default_factory=lambda: np.zeros(3))
    painted: np.ndarray = field(default_factory=lambda: np.zeros(SHAPE, bool))
    answers: list[float] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)

    def mask(self, patient: Phantom) -> np.ndarray:
        """The true liver."""
        return patient.labels == patient.organs[0].label

    def row(self, number: int) -> dict[str, Any]:
        """A result as the page lists it: 0 the drawn scan's, 1 the new one's."""
        return dict(self.visit.state("results")[number])

    def get(self, what: str, kind: str) -> Path:
        path = self.folder / f"{what}-{time.monotonic_ns()}.{kind}"
        path.write_bytes(self.visit.fetch(f"download/{what}/{kind}"))
        return path

    def drawing(self) -> np.ndarray:
        return liver(self.get("drawing", "seg.nrrd"))


def liver(path: Path) -> np.ndarray:
    """The only organ of a file, bool (z, y, x)."""
    labels = read_labels(path)
    (segment,) = labels.segments
    return labels.mask(segment)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def write_patients(folder: Path) -> tuple[Phantom, Phantom]:
    """a.nii.gz; b.zip, a CT series; flat.nrrd, in which every voxel is the same."""
    drawn, new = (make_patient(seed, "CT", shape=SHAPE) for seed in (1, 2))
    drawn.volume.write(folder / "a.nii.gz")
    x, y, z = new.volume.spacing
    tags = {"PixelSpacing": [y, x], "SliceThickness": z, "series": DICOM_SERIES, "RescaleIntercept": -1024}
    write_volume(folder / "series", new.volume.array + 1024, step=z, **tags)
    shutil.make_archive(str(folder / "b"), "zip", folder / "series")
    Volume(np.zeros(SHAPE, np.int16), drawn.volume.geometry, modality="CT").write(folder / "flat.nrrd")
    return drawn, new


def redder(color: np.ndarray) -> bool:
    """Than blue, as Slicer's colour of a liver is."""
    return bool(color[0] - color[2] > 20)


def paint_liver(seen: Evidence) -> None:
    """Fill the true liver of the slice with a few strokes of a large brush."""
    page, mask = seen.visit, seen.mask(seen.drawn)[seen.slice]
    inner = ndimage.binary_erosion(mask, iterations=round(BRUSH_MM / 2 / seen.drawn.volume.spacing[0]))
    for row in np.flatnonzero(inner.any(1))[::6]:
        columns = np.flatnonzero(inner[row])
        page.stroke([page.place(row, column, SHAPE[1:]) for column in (columns[0], columns[-1])])


def run_and_watch(seen: Evidence) -> None:
    """Press Ctrl+Enter; turn slices and time the page's answers until the results are there."""
    page = seen.visit
    page.page.keyboard.press("Control+Enter")
    page.until("get('busy')")
    while page.state("busy"):
        place, begun = page.state("place_Red"), time.monotonic()
        page.page.keyboard.press("ArrowUp" if len(seen.answers) % 2 else "ArrowDown")
        page.until(f"get('place_Red') !== '{place}' || !get('busy')")
        seen.answers.append(time.monotonic() - begun)
        seen.progress.append(page.state("progress"))
        time.sleep(0.1)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """Everything up to the results; the page stays open for the tests, which use it in their order."""
    folder = tmp_path_factory.mktemp("round")
    drawn, new = write_patients(folder)
    truth = drawn.labels == drawn.organs[0].label
    with browsing() as browser, serving(folder, "--upload-mb", 2, "--sessions", 3) as served:
        page = Visit(browser, served)
        seen = Evidence(served, page, folder, drawn, new, int(truth.sum((1, 2)).argmax()))
        page.drop("support", [folder / "a.nii.gz"])
        page.until("get('support')")
        page.go_to(seen.slice)
        page.page.click("#add")
        page.until("get('tool') === 'paint'")
        for _ in range((BRUSH_MM - 16) // 2):
            page.page.keyboard.press("]")
        page.until(f"get('brush') === {BRUSH_MM}")
        middle = [int(v) for v in np.round(ndimage.center_of_mass(truth[seen.slice]))]
        seen.before = page.color(*middle, SHAPE[1:])
        paint_liver(seen)
        seen.painted = settled(seen.drawing)
        page.page.mouse.move(176, 20)

        def red() -> bool:
            seen.after = page.color(*middle, SHAPE[1:])
            return redder(seen.after)

        eventually(red, lambda: seen.after)
        page.drop("query", [folder / "b.zip"])
        page.until("get('queries').length === 1")
        page.page.click("#own")
        page.until("get('own_scan') && !get('why')")
        run_and_watch(seen)
        yield seen
        page.close()


# ------------------------------------------------------------------------------------------------ drawing and result


def test_the_mouse_paints_the_organ_on_one_slice(seen: Evidence) -> None:
    assert np.flatnonzero(seen.painted.any((1, 2))).tolist() == [seen.slice]
    assert dice(seen.painted[seen.slice], seen.mask(seen.drawn)[seen.slice]) > 0.75


def test_what_is_painted_is_seen(seen: Evidence) -> None:
    """Grey before; after it as red as a liver."""
    assert np.ptp(seen.before) < 12
    assert redder(seen.after)


def test_both_scans_are_segmented(seen: Evidence) -> None:
    assert not seen.visit.state("message_open") or seen.visit.state("message_kind") != "error", seen.visit.state("message")
    assert [row["name"] for row in seen.visit.state("results")] == ["a", "DICOM CT 1"]
    own, new = (liver(seen.get(seen.row(k)["id"], "seg.nrrd")) for k in (0, 1))
    assert np.array_equal(own[seen.slice], seen.painted[seen.slice]), "the drawn slice stays as it is drawn"
    rest = np.arange(SHAPE[0]) != seen.slice
    assert dice(own[rest], seen.mask(seen.drawn)[rest]) > 0.5
    assert dice(new, seen.mask(seen.new)) > 0.55


def test_the_result_of_another_scan_is_not_seen_on_this_one(seen: Evidence) -> None:
    """The first result to come is shown, alone: choosing it in the list, which hides all others, changes nothing in 3D."""
    page = seen.visit
    assert page.state("shown") == seen.row(0)["id"]
    as_it_came = settled(lambda: page.pixels(1))
    page.page.click("[data-result] >> nth=0 >> .fs-scan-name")
    page.page.mouse.move(176, 20)
    page.page.wait_for_timeout(1000)
    chosen = settled(lambda: page.pixels(1))
    assert np.abs(as_it_came - chosen).mean() < 0.5


def test_the_list_tells_volume_and_confidence(seen: Evidence) -> None:
    (organ,) = seen.row(1)["organs"]
    voxels = liver(seen.get(seen.row(1)["id"], "seg.nrrd"))
    assert organ["name"] == "liver" and 0 < organ["percent"] <= 100
    millilitres = voxels.sum() * np.prod(seen.new.volume.spacing) / 1000
    assert abs(float(organ["ml"].split()[0]) - millilitres) < 1
    assert "liver" in seen.visit.text("[data-result] >> nth=1")


def test_the_result_is_seen_in_slice_and_3d(seen: Evidence) -> None:
    page, found = seen.visit, liver(seen.get(seen.row(1)["id"], "seg.nrrd"))
    number = int(found.sum((1, 2)).argmax())
    inner = np.argwhere(ndimage.binary_erosion(found[number], iterations=3))
    page.page.click("[data-result] >> nth=1 >> .fs-scan-name")
    page.until(f"get('shown') === '{seen.row(1)['id']}'")
    page.go_to(number)

    def colors() -> list[np.ndarray]:
        return [page.color(row, column, SHAPE[1:]) for row, column in inner[:: max(1, len(inner) // 3)]]

    eventually(lambda: all(map(redder, colors())), colors)
    eventually(lambda: np.ptp(page.color(3, 48, SHAPE[1:])) < 12, lambda: "air is coloured")

    def surface() -> float:
        solid = page.pixels(1)
        return float(((solid[..., 0] - solid[..., 2]) > 40).mean())

    eventually(lambda: surface() > 0.03, lambda: "no surface is seen")


def test_the_page_answers_while_the_model_runs(seen: Evidence) -> None:
    """Slices turn during the run, most of them at once; the limit allows for a busy machine."""
    assert len(seen.answers) >= 3 and np.median(seen.answers) < 3, seen.answers


def test_progress_rises_to_the_end(seen: Evidence) -> None:
    rising = seen.progress[: int(np.argmax(seen.progress)) + 1]
    assert rising == sorted(rising) and max(rising) > 30, seen.progress


# ------------------------------------------------------------------------------------------------ files out


def test_downloads_hold_the_same_voxels(seen: Evidence) -> None:
    result = seen.row(1)["id"]
    with seen.visit.page.expect_download() as download:
        seen.visit.page.click("[data-result] >> nth=1 >> [data-download]")
        seen.visit.page.click('[data-kind="seg.nrrd"]')
    download.value.save_as(seen.folder / "clicked.seg.nrrd")
    assert download.value.suggested_filename == "DICOM CT 1 segmented.seg.nrrd"
    slicer = read_labels(seen.folder / "clicked.seg.nrrd")
    nifti = read_labels(seen.get(result, "nii.gz"))
    scan = Volume.read(seen.folder / "series")
    path = seen.get(result, "dcm")
    seg = find_drawing(path)
    assert seg is not None and slicer.geometry.same_as(scan.geometry) and nifti.geometry.same_as(scan.geometry)
    assert [segment.organ.name for segment in slicer.segments] == ["liver"]
    assert slicer.mask(slicer.segments[0]).any()
    for other in (nifti, seg.read(scan)):
        assert np.array_equal(other.mask(other.segments[0]), slicer.mask(slicer.segments[0]))
    header = pydicom.dcmread(path)
    assert header.Modality == "SEG" and header.ReferencedSeriesSequence[0].SeriesInstanceUID == DICOM_SERIES


def test_dicom_seg_is_refused_for_a_scan_that_is_not_dicom(seen: Evidence) -> None:
    answer = seen.visit.context.request.get(f"{seen.visit.home}/download/{seen.row(0)['id']}/dcm")
    assert answer.status == 400 and "choose .seg.nrrd" in answer.text()


# ------------------------------------------------------------------------------------------------ correct, stop, fail


def test_a_correction_teaches_the_rest_of_the_scan(seen: Evidence) -> None:
    page, old = seen.visit, seen.row(0)["id"]
    page.page.click("[data-result] >> nth=0 >> [data-correct]")
    page.until(f"get('editing') === '{old}' && get('tool') === 'paint'")
    number = seen.slice - 2
    page.go_to(number)
    before = liver(seen.get(old, "seg.nrrd"))
    page.stroke([page.place(20, 20, SHAPE[1:]), page.place(20, 24, SHAPE[1:])])
    corrected = settled(lambda: liver(seen.get(old, "seg.nrrd")) & ~before)
    assert np.flatnonzero(corrected.any((1, 2))).tolist() == [number] and corrected[number, 20, 22]
    page.page.click("[data-result] >> nth=0 >> [data-again]")
    page.until(f"!get('busy') && get('results').every(r => r.id !== '{old}')")
    row = next(row for row in page.state("results") if row["name"] == "a")
    now = liver(seen.get(row["id"], "seg.nrrd"))
    assert np.array_equal(now[number], (before | corrected)[number]), "a corrected slice stays as it was corrected"
    assert np.array_equal(seen.drawing(), seen.painted)


def wait_for_stop(page: Visit, then: Callable[[], object]) -> str:
    """Apply, do something as soon as the model works, and return the message at the end."""
    page.page.click("#apply")
    page.until("get('busy') && get('progress') > 0")
    then()
    page.until("!get('busy') && get('message_open')")
    return str(page.state("message"))


def test_cancel_leaves_everything(seen: Evidence) -> None:
    page, results = seen.visit, [row["id"] for row in seen.visit.state("results")]
    message = wait_for_stop(page, lambda: page.page.click("#cancel"))
    assert message == "Stopped. The drawing is as it was." and page.page.is_enabled("#apply")
    assert [row["id"] for row in page.state("results")] == results
    assert np.array_equal(seen.drawing(), seen.painted)


def test_a_scan_that_cannot_be_segmented_leaves_the_drawing(seen: Evidence) -> None:
    page = seen.visit
    page.choose("text=Add scans…", [seen.folder / "flat.nrrd"]) if page.page.is_visible("text=Add scans…") else page.drop(
        "query", [seen.folder / "flat.nrrd"]
    )
    page.until("get('queries').length === 2")
    if page.state("own_scan"):
        page.page.evaluate("window.trame.state.set('own_scan', false)")
    page.page.evaluate("id => window.trame.trigger('remove_query', [id])", page.state("queries")[0]["id"])
    page.until("get('queries').length === 1 && !get('own_scan')")
    page.page.click("#apply")
    page.until("!get('busy') && get('message_kind') === 'error'")
    assert "flat" in page.state("message").lower() or "same value" in page.state("message"), page.state("message")
    assert page.page.is_visible("#message >> text=What to do")
    assert np.array_equal(seen.drawing(), seen.painted)


def test_a_model_that_is_killed_leaves_the_drawing(seen: Evidence) -> None:
    page = seen.visit
    page.drop("query", [seen.folder / "b.zip"])  # so that it works for a while
    page.until("get('queries').length === 2 && !get('loading')")
    page.page.evaluate("window.trame.state.update({own_scan: true, message_open: false})")
    page.until("get('own_scan') && !get('message_open') && !get('why')")
    message = wait_for_stop(page, lambda: [os.kill(pid, signal.SIGKILL) for pid in seen.served.model_processes()])
    assert page.state("message_kind") == "error" and message
    assert page.page.is_enabled("#apply") and np.array_equal(seen.drawing(), seen.painted)


# ------------------------------------------------------------------------------------------------ nothing leaves


def test_no_request_leaves_the_machine(seen: Evidence) -> None:
    """Neither the browser's, whatever the page asked for, nor an attempt of any of the server's processes."""
    asked = {url.split("/s/")[0].replace("ws://", "http://").removeprefix("blob:") for url in seen.visit.requests}
    assert len(seen.visit.requests) > 20
    assert all(url.startswith((seen.served.base, "data:")) for url in asked), asked
    assert seen.served.far_connections() == []


def test_the_page_has_no_faults(seen: Evidence) -> None:
    assert seen.visit.faults == []
