"""The page about all results of a cohort."""

from __future__ import annotations

import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from cohort_folder import GEOMETRY, ORGANS, make_cohort, make_scan, use_bright_engine

from FewShotSegLib.cohort.config import CohortConfig
from FewShotSegLib.cohort.corrections import add_support
from FewShotSegLib.cohort.review import write_review
from FewShotSegLib.cohort.run import run
from FewShotSegLib.errors import ConfigError
from FewShotSegLib.segfiles import write_segmentation
from FewShotSegLib.volume import Volume

WHEN = datetime(2026, 1, 2, 3, 4)


class Rows(HTMLParser):
    """The rows of the table of cases, and all addresses of the page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.kinds: list[str] = []
        self.names: list[str] = []
        self.addresses: list[str] = []
        self.pictures = 0
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if "data-kinds" in found:
            self.kinds.append(str(found["data-kinds"]))
        if found.get("data-key") == "name":
            self.names.append(str(found["data-value"]))
        self.addresses += [str(found[key]) for key in ("src", "href") if key in found]
        self.pictures += str(found.get("src", "")).startswith("data:image/jpeg")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CohortConfig:
    """Seven cases: s003 fails, s005 has a huge liver, s001 is corrected."""
    use_bright_engine(monkeypatch)
    config = make_cohort(tmp_path, 7)
    (config.source / "s003.nii").write_bytes(b"<script>")
    huge, labels = make_scan(5)
    huge.array[0:4, 0:8] = 200
    Volume(huge.array, huge.geometry, modality="MR").write(config.source / "s005.nii")
    run(config)
    corrected = write_segmentation(GEOMETRY.to_sitk(make_scan(9)[1]), ORGANS, tmp_path / "corrected.seg.nrrd")
    add_support(config.output, "s001", corrected, rerun="none")
    return config


def test_the_doubtful_ones_are_first_and_what_is_unusual_is_marked(config: CohortConfig) -> None:
    page = write_review(config.output, created=WHEN)
    rows = Rows(page)
    assert rows.names == ["s003", "s000", "s002", "s004", "s005", "s006", "s001"]
    assert rows.kinds[0].split() == ["failed", "look"] and rows.kinds[-1].split() == ["corrected"]
    assert [name for name, kinds in zip(rows.names, rows.kinds, strict=True) if "unusual" in kinds] == ["s005"]
    text = page.read_text()
    assert '<span class="none">s003.nii ' in text  # why it failed, in place of a picture
    assert "liver large" in text and "2026-01-02 03:04" in text and '<span class="weakest">spleen</span>' in text
    dots = re.findall(r'<i( class="far")? style="left: ([\d.]+)%[^"]*" title="(\w+): \d+ mL">', text)
    assert len(dots) == 2 * 6 and [(at, name) for far, at, name in dots if far] == [("100.0", "s005")]


def test_the_page_needs_nothing_but_itself_and_its_folder(config: CohortConfig) -> None:
    rows = Rows(write_review(config.output))
    assert rows.pictures == 6  # all but that of the failed case
    for address in rows.addresses:
        assert address.startswith("data:") or (config.output / address).is_file(), address
    assert not re.search(r"https?://", re.sub(r"http://www\.w3\.org/\S+", "", (config.output / "review.html").read_text()))


def test_pictures_beyond_a_number_are_links(config: CohortConfig) -> None:
    rows = Rows(write_review(config.output, pictures=3))
    assert rows.pictures == 2 and sum(address.endswith(".jpg") for address in rows.addresses) == 4


def test_before_anything_is_done_and_without_a_cohort(tmp_path: Path) -> None:
    config = make_cohort(tmp_path, 2)
    config.write()
    assert "waiting" in write_review(config.output).read_text()
    with pytest.raises(ConfigError, match="not the folder of a cohort"):
        write_review(tmp_path)
