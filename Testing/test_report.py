from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from FewShotSegLib.errors import OutputError
from FewShotSegLib.organs import Organ
from FewShotSegLib.phantom import Phantom, make_patient
from FewShotSegLib.report import ReportJob, contact_sheet, film_strip, write_contact_sheet, write_report
from FewShotSegLib.report.colors import APART, contour_colors
from FewShotSegLib.report.hints import BARS, doubtful_slices, hint, strip
from FewShotSegLib.report.slices import Window, choose_slices, marked_slices, side_letters, slice_name
from FewShotSegLib.segmentation import Segmentation
from FewShotSegLib.volume import Geometry, Volume

SHAPE = (18, 96, 96)


@pytest.fixture(scope="module")
def patient() -> Phantom:
    return make_patient(4, "MR", SHAPE)


def segmentation_of(phantom: Phantom, labels: np.ndarray | None = None, **fields) -> Segmentation:
    labels = phantom.labels if labels is None else labels
    present = np.stack([(labels == organ.label).any((1, 2)) for organ in phantom.organs])
    arguments = {
        "confidence": np.where(present.any(1), (0.92, 0.65, 0.31, 0.8), np.nan),
        "slice_confidence": np.where(present, 0.75, np.nan),
        "name": "patient four",
        "seconds": 4.25,
    }
    return Segmentation(phantom.volume.geometry, phantom.organs, labels, **{**arguments, **fields})


def shifted(labels: np.ndarray) -> np.ndarray:
    return np.roll(labels, 4, axis=2)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


# ------------------------------------------------------------------------------------------------ which slices, how grey


def test_slices_are_spread_from_the_first_to_the_last_marked_one():
    marked = np.zeros(50, bool)
    marked[[10, 31]] = True
    assert choose_slices(marked, 4).tolist() == [10, 17, 24, 31]
    assert choose_slices(marked[:15], 12).tolist() == [10]
    assert choose_slices(np.zeros(5, bool), 12).tolist() == [0, 1, 2, 3, 4]


def test_slices_are_named_by_their_number_in_the_scan_and_height():
    upside_down = Geometry((4, 4, 10), (1, 1, 5), (0, 0, 100), (1, 0, 0, 0, -1, 0, 0, 0, -1))
    assert slice_name(upside_down, 9) == "slice 0 · S +100 mm"
    sagittal = Geometry((10, 10, 4), (2, 3, 4), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    assert slice_name(sagittal, 9) == "S +0 mm"
    assert side_letters(upside_down) == side_letters(sagittal) == ("R", "L")
    thick = Geometry((10, 10, 4), (2, 3, 9), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    assert slice_name(thick, 3) == "slice 0 · L +0 mm"
    assert side_letters(thick) == ("A", "P")
    labels = np.zeros((4, 10, 10), np.uint8)
    labels[:, 0] = 1
    assert np.flatnonzero(marked_slices(sagittal, labels)).tolist() == [9]


def test_window_is_soft_tissue_for_ct_and_ignores_what_is_not_a_number(patient):
    assert Window.of(make_patient(0, "CT", (4, 16, 16)).volume).low == -150
    array = patient.volume.array.astype(np.float32)
    array[0, 0, 0], array[0, 0, 1] = np.nan, np.inf
    window = Window.of(replace(patient.volume, array=array))
    assert 300 < window.high < 3000
    assert window.grey(np.array([np.nan, -1e9, 1e9])).tolist() == [0, 0, 1]


def test_contour_colours_can_be_told_apart():
    names = ["liver", "right kidney", "left kidney", "spleen", "aorta", "gallbladder", "stomach", "pancreas", "thing"]
    colors = np.array(contour_colors([Organ(name, i + 1) for i, name in enumerate(names)]))
    gaps = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 9 * np.eye(len(names))
    assert gaps[:6, :6].min() > APART
    assert gaps.min() > 0.25


# ------------------------------------------------------------------------------------------------------- the contact sheet


def test_sheet_shows_the_liver_on_the_left_and_the_spleen_on_the_right(patient):
    def tinted(name: str) -> float:
        organ = next(organ for organ in patient.organs if organ.name == name)
        only = Segmentation(
            patient.volume.geometry,
            (organ,),
            np.where(patient.labels == organ.label, patient.labels, 0),
            np.ones(1),
            np.ones((1, SHAPE[0])),
        )
        sheet = pixels(contact_sheet(patient.volume, only, slices=1, columns=1))
        colored = np.argwhere(np.ptp(sheet[40:250, :300], axis=-1) > 40)
        return float(colored[:, 1].mean())

    assert tinted("liver") < 140 < 160 < tinted("spleen")


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "PIR", "SAL"])
def test_sheet_is_the_same_whatever_the_orientation_of_the_scan(patient, orientation):
    def oriented(array: np.ndarray) -> sitk.Image:
        return sitk.DICOMOrient(patient.volume.geometry.to_sitk(array), orientation)

    image, labels = oriented(patient.volume.array), oriented(patient.labels)
    volume = Volume(sitk.GetArrayFromImage(image), Geometry.of(image), modality="MR")
    turned = Segmentation(
        volume.geometry, patient.organs, sitk.GetArrayFromImage(labels), np.ones(4), np.ones((4, volume.array.shape[0])), name="x"
    )
    straight = contact_sheet(patient.volume, segmentation_of(patient, name="x"))
    found = contact_sheet(volume, turned)
    assert found.size == straight.size
    tile = np.s_[36:260, 8:308]
    assert np.abs(pixels(found)[tile] - pixels(straight)[tile]).mean() < 1.0


def test_truth_is_drawn_white_and_dashed_and_scored(patient):
    wrong = segmentation_of(patient, shifted(patient.labels))
    without, with_truth = contact_sheet(patient.volume, wrong), contact_sheet(patient.volume, wrong, truth=patient.labels)
    assert with_truth.height >= without.height
    body = np.s_[36 : without.height - 80]
    white = (pixels(with_truth)[body].min(-1) > 225) & (pixels(without)[body].min(-1) < 200)
    assert white.sum() > 400
    _, dashes = ndimage.label(white, np.ones((3, 3)))
    assert dashes > 40


def test_sheet_of_a_scan_in_which_nothing_was_found(patient):
    nothing = segmentation_of(patient, np.zeros_like(patient.labels))
    sheet = contact_sheet(patient.volume, nothing, slices=12)
    assert sheet.width > 1000
    assert np.ptp(pixels(sheet)[40:-60], axis=-1).max() < 25


def test_a_film_strip_has_inner_slices_side_by_side_and_no_text(patient):
    strip = film_strip(patient.volume, segmentation_of(patient), slices=4)
    assert strip.width == 4 * 300 + 3 * 8 and strip.height <= 300
    gaps = pixels(strip)[:, [302, 610, 918]]
    assert (gaps == gaps[0, 0]).all()
    assert all((np.ptp(pixels(strip)[:, x : x + 300], axis=-1) > 40).sum() > 500 for x in (0, 308, 616, 924))
    one = segmentation_of(patient, np.where(np.arange(SHAPE[0])[:, None, None] == 5, patient.labels, 0))
    assert film_strip(patient.volume, one, slices=4).width == 300
    assert film_strip(patient.volume, segmentation_of(patient, np.zeros_like(patient.labels))).width > 1000


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_sheet_of_a_scan_without_contrast(patient, value):
    flat = replace(patient.volume, array=np.full(SHAPE, value, np.float32))
    assert contact_sheet(flat, segmentation_of(patient)).width > 1000


@pytest.mark.parametrize("shape", [(1, 64, 64), (600, 20, 20), (3, 8, 200)])
def test_sheet_of_unusual_shapes(shape):
    phantom = make_patient(0, "CT", shape)
    sheet = contact_sheet(phantom.volume, segmentation_of(phantom), truth=phantom.labels)
    assert max(sheet.size) < 5000


def test_labels_of_another_shape_are_refused(patient):
    with pytest.raises(ValueError, match="truth"):
        contact_sheet(patient.volume, segmentation_of(patient), truth=patient.labels[1:])


def test_sheet_of_twelve_slices_is_quick():
    phantom = make_patient(2)
    started = time.process_time()
    contact_sheet(phantom.volume, segmentation_of(phantom), truth=phantom.labels)
    assert time.process_time() - started < 2.0


def test_sheet_file_is_whole_or_absent(patient, tmp_path):
    path = write_contact_sheet(tmp_path / "new" / "sheet.png", patient.volume, segmentation_of(patient))
    assert Image.open(path).format == "PNG"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_contact_sheet(tmp_path / "file" / "sheet.png", patient.volume, segmentation_of(patient))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "new", "sheet.png"]


# ------------------------------------------------------------------------------------------------------------------- hints


def test_hints_say_what_to_do():
    assert [hint(c).level for c in (0.9, 0.6, 0.2, float("nan"))] == ["good", "glance", "look", "absent"]
    assert hint(0.2).text == "look at this one"


def test_doubtful_slices_are_the_worst_ones_in_order():
    confidence = np.array([np.nan, 0.9, 0.4, 0.1, 0.45, 0.3, 0.2, 0.49, 0.48, np.nan])
    assert doubtful_slices(confidence) == [2, 3, 4, 5, 6, 8]
    assert doubtful_slices(np.array([np.nan, 0.8])) == []


def test_strip_of_a_long_scan_keeps_its_worst_slice():
    confidence = np.full(2000, 0.9)
    confidence[1234], confidence[:100] = 0.1, np.nan
    bars = strip(confidence)
    assert len(bars) <= BARS
    (worst,) = [bar for bar in bars if bar.level == "look"]
    assert worst.x <= 61.7 <= worst.x + worst.width
    assert min(bar.x for bar in bars) >= 4.9


# -------------------------------------------------------------------------------------------------------------------- page


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data) -> None:
        self.text += data

    def attribute(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def read_page(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_page_says_everything_about_a_scan(patient, tmp_path):
    job = ReportJob(
        patient.volume,
        segmentation_of(patient, shifted(patient.labels), notes=("GPU memory ran out; continued on the CPU.",)),
        patient.labels,
        {"method": "match", "checkpoint": "carry-abdomen-heart"},
    )
    page = read_page(write_report(tmp_path, [job], title="Livers", created=datetime(2024, 5, 6, 7, 8)))
    for expected in ("Livers", "2024-05-06 07:08", "patient four", "GPU memory ran out", "match", "4.2 s", "look at this one"):
        assert expected in page.text
    volumes = job.segmentation.volumes_ml()
    for name, ml in volumes.items():
        assert name in page.text and f"{ml:.0f}" in page.text
    assert "Dice" in page.text
    assert page.count("svg") == 4
    assert page.count("rect") == int(np.isfinite(job.segmentation.slice_confidence).sum())


def test_page_asks_the_network_for_nothing_and_its_picture_is_the_sheet(patient, tmp_path):
    path = write_report(tmp_path, [ReportJob(patient.volume, segmentation_of(patient))])
    page = read_page(path)
    assert page.count("script") == page.count("link") == 0
    (source,) = page.attribute("src")
    kind, _, data = source.partition(",")
    assert kind == "data:image/png;base64"
    embedded = Image.open(io.BytesIO(base64.b64decode(data)))
    assert np.array_equal(pixels(embedded), pixels(contact_sheet(patient.volume, segmentation_of(patient))))
    assert np.array_equal(pixels(embedded), pixels(Image.open(tmp_path / "01_patient_four.png")))
    assert all(target.startswith("#") for target in page.attribute("href"))
    text = path.read_text(encoding="utf-8").replace(data, "")
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text


def test_names_from_outside_are_shown_as_text(patient, tmp_path):
    nasty = '"><script>alert(1)</script>/../x'
    organs = (Organ(nasty, 1), *patient.organs[1:])
    segmentation = replace(segmentation_of(patient), organs=organs, name=nasty, notes=(nasty,))
    path = write_report(tmp_path, [ReportJob(patient.volume, segmentation, None, {nasty: nasty})], title=nasty)
    page = read_page(path)
    assert page.count("script") == 0
    assert page.text.count(nasty) >= 6
    assert {p.parent for p in tmp_path.rglob("*.png")} == {tmp_path}


def test_dice_is_shown_only_where_the_truth_is_known(patient, tmp_path):
    page = read_page(write_report(tmp_path, [ReportJob(patient.volume, segmentation_of(patient))]))
    assert "Dice" not in page.text and "truth" not in page.text


def test_an_organ_that_was_not_found_is_said_to_be_missing(patient, tmp_path):
    labels = np.where(patient.labels == 3, 0, patient.labels)
    page = read_page(write_report(tmp_path, [ReportJob(patient.volume, segmentation_of(patient, labels), patient.labels)]))
    assert "not found" in page.text
    assert "0.000" in page.text
    assert "nan" not in page.text.lower()


def test_many_scans_are_listed_first_and_held_one_at_a_time(patient, tmp_path):
    asked = []

    def jobs() -> Iterator[ReportJob]:
        for number in range(3):
            asked.append(sorted(path.name for path in tmp_path.glob("*.png")))
            yield ReportJob(patient.volume, segmentation_of(patient, name=f"scan {number}"))

    page = read_page(write_report(tmp_path, jobs()))
    assert [len(files) for files in asked] == [0, 1, 2]
    assert page.attribute("href") == ["#scan-1", "#scan-2", "#scan-3"]
    assert set(page.attribute("id")) >= {"scan-1", "scan-2", "scan-3"}


def test_a_report_that_cannot_be_written_leaves_nothing(patient, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write_report(tmp_path / "file", [ReportJob(patient.volume, segmentation_of(patient))])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
