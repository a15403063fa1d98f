"""The page in a real browser without the model: tools, undo, keys, themes, files that are dropped, limits, several visitors."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from app_browser import Served, Visit, browsing, eventually, serving, settled

from FewShotSegLib.phantom import Phantom, make_patient
from FewShotSegLib.segfiles import read_labels, write_segmentation

pytestmark = pytest.mark.timeout(900)  # the first test has the browser's and the server's start in its time
SHAPE = (8, 64, 64)
SLICE = 5
TOO_MUCH = 1_200_000


@pytest.fixture(scope="module")
def patient() -> Phantom:
    return make_patient(1, shape=SHAPE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, patient: Phantom) -> Path:
    """a.nrrd with its drawing a.seg.nrrd, b.nii.gz, a file that is no scan, and one that is too large."""
    folder = tmp_path_factory.mktemp("files")
    patient.volume.write(folder / "a.nrrd")
    patient.volume.write(folder / "b.nii.gz")
    write_segmentation(patient.volume.geometry.to_sitk(patient.labels), patient.organs, folder / "a.seg.nrrd")
    (folder / "broken.nii.gz").write_bytes(b"this is no scan")
    (folder / "large.nii").write_bytes(bytes(TOO_MUCH))
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(folder: Path, browser: Any) -> Iterator[Served]:
    with serving(folder, "--upload-mb", 1, "--sessions", 6, "--small-sample") as served:
        yield served


@pytest.fixture(scope="module")
def page(browser: Any, served: Served, folder: Path) -> Iterator[Visit]:
    """A visit with a scan and its drawing, dropped together, at `SLICE`."""
    page = Visit(browser, served)
    assert page.page.is_visible("text=Load a scan, or drop it here") and page.page.is_disabled("#apply")
    assert page.text("#why") == "Load a scan to draw on, or try the sample case."
    page.drop("support", [folder / "a.nrrd", folder / "a.seg.nrrd"])
    page.until("get('organs').length === 4 && !get('loading')")
    page.go_to(SLICE)
    yield page
    assert page.faults == []
    page.close()


def drawn(page: Visit) -> dict[str, np.ndarray]:
    """The organs of the drawing by name, bool (z, y, x)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawing.seg.nrrd"
        path.write_bytes(page.fetch("download/drawing/seg.nrrd"))
        labels = read_labels(path)
    return {segment.organ.name: labels.mask(segment) for segment in labels.segments}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# ------------------------------------------------------------------------------------------------ drawing


def test_a_drawing_that_is_dropped_with_its_scan_is_loaded(page: Visit, patient: Phantom) -> None:
    found = drawn(page)
    assert same(found, {organ.name: patient.labels == organ.label for organ in patient.organs})
    assert page.state("support")["name"] == "a" and not page.page.is_visible("text=Load a scan, or drop it here")


def test_erase_undo_redo(page: Visit, patient: Phantom) -> None:
    """Erasing takes voxels of one slice from the chosen organ; Z brings back exactly these, Y takes them again."""
    before, liver = drawn(page), patient.labels == patient.organs[0].label
    row, column = np.argwhere(liver[SLICE])[liver[SLICE].sum() // 2]
    page.page.keyboard.press("e")
    page.until("get('tool') === 'erase'")
    spot = page.place(row, column, SHAPE[1:])
    page.stroke([spot, (spot[0] + 4, spot[1])])
    page.until("get('can_undo')")
    erased = settled(lambda: before["liver"] & ~drawn(page)["liver"])
    assert np.flatnonzero(erased.any((1, 2))).tolist() == [SLICE] and erased[SLICE, row, column]
    after = drawn(page)
    assert same({**after, "liver": before["liver"]}, before), "the other organs are untouched"
    page.page.keyboard.press("Control+z")
    page.until("get('can_redo')")
    assert same(drawn(page), before)
    page.page.keyboard.press("y")
    page.until("get('can_undo')")
    assert same(drawn(page), after)
    page.page.keyboard.press("z")
    page.until("get('can_redo')")


def test_a_grey_value_range_fills_a_slice(page: Visit, patient: Phantom) -> None:
    before = drawn(page)
    page.page.fill("#new-name", "bright")
    page.page.keyboard.press("Tab")
    page.page.click("#add")
    page.until("get('organs').length === 5")
    page.page.click("#tool-threshold")
    page.page.wait_for_selector("#fill")
    low, high = (float(v) for v in np.quantile(patient.volume.array[SLICE], (0.9, 0.97)))
    page.page.evaluate("range => window.trame.state.set('range', range)", [low, high])
    page.page.wait_for_timeout(1000)  # the slider sends its value a moment later
    page.page.click("#fill")
    page.until("get('organs')[4].drawn !== 'not drawn yet'")
    plane = patient.volume.array[SLICE]
    expected = np.zeros(SHAPE, bool)
    expected[SLICE] = (plane >= low) & (plane <= high)
    assert expected.any() and np.array_equal(drawn(page)["bright"], expected)
    for _ in range(2):
        page.page.click("#undo")
        time.sleep(0.5)
    page.until("get('organs').length === 4")
    assert same(drawn(page), before)


def test_painting_may_be_limited_to_the_range(page: Visit, patient: Phantom) -> None:
    before, plane = drawn(page), patient.volume.array[SLICE]
    low, high = float(np.quantile(plane, 0.8)), float(plane.max())
    page.page.keyboard.press("p")
    page.until("get('tool') === 'paint'")
    page.page.evaluate("range => window.trame.state.set('range', range)", [low, high])
    page.page.wait_for_timeout(1000)  # the slider sends its value a moment later
    page.page.click("text=Paint only in the grey-value range")
    page.until("get('limit_range')")
    row = SHAPE[1] // 2
    page.stroke([page.place(row, column, SHAPE[1:]) for column in (10, 50)])
    added = settled(lambda: drawn(page)["liver"] & ~before["liver"])
    assert np.flatnonzero(added.any((1, 2))).tolist() == [SLICE]
    assert (plane[added[SLICE]] >= low).all() and added.sum() > 10
    page.page.click("text=Paint only in the grey-value range")
    page.page.keyboard.press("z")
    page.until("get('can_redo')")
    assert same(drawn(page), before)


# ------------------------------------------------------------------------------------------------ keys and themes


def test_keys_choose_tools_brush_views_and_help(page: Visit) -> None:
    keys = page.page.keyboard
    page.page.mouse.move(176, 20)
    for key, tool in (("p", "paint"), ("t", "threshold"), ("e", "erase"), ("Escape", "look"), ("p", "paint"), ("v", "look")):
        keys.press(key)
        page.until(f"get('tool') === '{tool}'")
    keys.press("p")
    brush = page.state("brush")
    keys.press("]")
    page.until(f"get('brush') === {brush + 2}")
    keys.press("[")
    page.until(f"get('brush') === {brush}")
    for key, layout in (("2", "four"), ("3", "slice"), ("4", "3d"), ("1", "one")):
        keys.press(key)
        page.until(f"get('layout') === '{layout}'")
    page.page.wait_for_selector(".fs-views img.image-display-area >> nth=3")
    keys.press("?")
    page.page.wait_for_selector('text="Keyboard shortcuts"')
    assert page.page.is_visible("kbd >> text=Ctrl+Enter")
    keys.press("Escape")
    page.until("!get('help')")


def test_keys_are_left_alone_while_a_name_is_typed(page: Visit) -> None:
    tool = page.state("tool")
    page.page.click("input.fs-organ-name >> nth=0")
    page.page.keyboard.type("tep")
    time.sleep(1)
    assert page.state("tool") == tool
    page.page.keyboard.press("Control+a")
    page.page.keyboard.type("Leber")
    page.page.keyboard.press("Tab")
    page.until("get('organs')[0].name === 'Leber'")
    page.page.fill("input.fs-organ-name >> nth=0", "liver")
    page.page.keyboard.press("Tab")
    page.until("get('organs')[0].name === 'liver'")


def brightness(page: Visit) -> float:
    """Of the left side, 0 to 255."""
    shade = page.page.evaluate("getComputedStyle(document.querySelector('.fs-drawer')).backgroundColor")
    return float(np.mean([float(v) for v in shade.partition("(")[2].rstrip(")").split(",")[:3]]))


def test_dark_and_light(page: Visit, browser: Any, served: Served) -> None:
    """The system's theme at first; D turns it, and the choice is remembered."""
    assert brightness(page) < 60
    page.page.keyboard.press("d")
    page.until("get('theme') === 'light'")
    eventually(lambda: brightness(page) > 200)  # it fades
    page.page.keyboard.press("d")
    page.until("get('theme') === 'dark'")
    other = Visit(browser, served, "light")
    other.until("get('theme') === 'light'")
    other.close()


# ------------------------------------------------------------------------------------------------ files and limits


def error_of(page: Visit) -> str:
    page.until("get('message_open') && get('message_kind') === 'error'")
    said = str(page.state("message"))
    page.page.click("#message >> text=Close")
    page.until("!get('message_open')")
    return said


def test_what_is_no_scan_or_too_large_is_told_and_changes_nothing(page: Visit, folder: Path) -> None:
    before = drawn(page)
    page.drop("query", [folder / "broken.nii.gz"])
    assert "broken.nii.gz" in error_of(page)
    page.drop("query", [folder / "large.nii"])
    said = error_of(page)
    assert "at most 1 MB" in said and "--upload-mb" in said
    assert page.state("queries") == [] and same(drawn(page), before)


def test_scans_are_added_and_removed(page: Visit, folder: Path) -> None:
    page.page.click("text=Choose scans to segment")
    page.choose("text=Add scans…", [folder / "b.nii.gz", folder / "a.nrrd"])
    page.until("get('queries').length === 2")
    assert sorted(scan["name"] for scan in page.state("queries")) == ["a_1", "b"]  # the support is called a
    for left in (1, 0):
        page.page.click(".v-expansion-panel:nth-child(2) [aria-label=Remove] >> nth=0")
        page.until(f"get('queries').length === {left}")


# ------------------------------------------------------------------------------------------------ several visitors


def test_two_visitors_and_two_tabs_do_not_see_each_other(page: Visit, browser: Any, served: Served) -> None:
    before = drawn(page)
    other = Visit(browser, served)
    assert other.state("support") is None and other.state("organs") == []
    assert not other.context.request.get(f"{other.home}/download/drawing/seg.nrrd").ok
    other.page.click("#sample")
    other.until("get('queries').length === 1 && get('organs').length === 4 && !get('loading')")
    assert other.state("support")["name"] == "Sample patient A"
    eventually(lambda: other.page.is_enabled("#apply"))
    other.page.click("#clear")
    other.until("get('organs').length === 0")
    tab = page.context.new_page()
    tab.goto(served.base)
    tab.wait_for_selector("#sample")
    assert tab.url != page.page.url and tab.evaluate("window.trame.state.get('support')") is None
    tab.close()
    assert page.state("support")["name"] == "a" and same(drawn(page), before)
    assert other.state("theme") == "dark" and other.faults == []
    other.close()


def test_another_visitor_needs_the_token(page: Visit, browser: Any) -> None:
    """Not even the address of a session helps."""
    context = browser.new_context()
    answer = context.request.get(f"{page.home}/download/drawing/seg.nrrd")
    assert answer.status == 403 and "needs its token" in answer.text()
    context.close()


def test_an_idle_session_is_closed_and_says_so(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 12 s without traffic its files are gone, and the page notices within 15 s more (and the 10 s between looks)."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serving(tmp_path, "--idle-minutes", 0.2) as served:
        page = Visit(browser, served)
        assert list(tmp_path.glob("fewshotseg-*"))
        page.page.wait_for_selector("#gone", timeout=180_000)
        assert "session is closed" in page.text("#gone")
        eventually(lambda: not list(tmp_path.glob("fewshotseg-*")))  # closed first, then its process ends, then its files go
        page.page.click("#gone >> text=Open a new one")
        page.page.wait_for_selector("#sample")
        page.close()


def test_nothing_left_the_machine(page: Visit, served: Served) -> None:
    asked = {url.split("/s/")[0].replace("ws://", "http://").removeprefix("blob:") for url in page.requests}
    assert all(url.startswith((served.base, "data:")) for url in asked), asked
    assert served.far_connections() == []
