"""Loading scans, drawings and the sample case into a session."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from FewShotSegLib.app import sample
from FewShotSegLib.app.nodes import drawing_node
from FewShotSegLib.app.scans import Scan, add_scan, read_scans
from FewShotSegLib.app.uploads import find_drawings
from FewShotSegLib.errors import SupportError
from FewShotSegLib.mrml import volume_from_node
from FewShotSegLib.support import Support

if TYPE_CHECKING:
    from FewShotSegLib.app.session_page import SessionPage


class Loading:
    """What the page's file fields, the drop zones and the sample button do."""

    def __init__(self, page: SessionPage) -> None:
        self.page, self.state = page, page.state

    async def load(self, role: str, folder: Path) -> None:
        """Load what was uploaded into a folder, as "support", "query" or "drawing". Errors are shown, not raised."""
        with self._busy("Reading…"):
            if role == "drawing":
                await self._drawing(next(path for path in sorted(folder.rglob("*")) if path.is_file()))
                return
            scans = [add_scan(volume, series, self.page.viewer.scene) for volume, series in await read_scans(folder)]
            if role == "support":
                self.set_support(scans.pop(0))
                for drawing in find_drawings(folder)[:1]:  # dropped together with its scan
                    await self._drawing(drawing)
            if scans:
                self.add_queries(scans)

    def sample(self) -> None:
        """The invented patients: the first is drawn whole, the second is to be segmented."""
        if not self.state.loading:
            self.page.start(self._sample())

    async def _sample(self) -> None:
        with self._busy("Inventing two patients…"):
            first, second = await asyncio.to_thread(sample.patients, self.page.config.sample_shape)
            for scan in list(self.page.queries):
                self.remove_query(scan.id)
            self.set_support(add_scan(first.image, None, self.page.viewer.scene))
            assert self.page.support is not None
            self.page.replace_drawing(drawing_node(first, self.page.support.node))
            self.add_queries([add_scan(second, None, self.page.viewer.scene)])
            self.state.update({"drawn_whole": True, "panel": "draw"})
            self.page.viewer.go_to(first.image.geometry.shape[0] // 2)
            self.page.say("Sample case: patient A is drawn. Press Apply to find the same organs in patient B.")

    async def _drawing(self, path: Path) -> None:
        if self.page.support is None:
            raise SupportError("No scan is loaded", "the scan that was drawn on", "load the scan first, then its drawing")
        node = self.page.support.node
        support = await asyncio.to_thread(Support.on_scan, volume_from_node(node), path)
        self.page.replace_drawing(drawing_node(support, node))
        self.state.drawn_whole = bool(support.drawn.all())

    def set_support(self, scan: Scan) -> None:
        """Draw on this scan from now on, with an empty drawing."""
        page, old = self.page, self.page.support
        page.support = scan
        page.replace_drawing(page.drawing.new(scan.node, "Drawing"))
        if old is not None and all(result.scan is not old for result in page.running.results):
            page.viewer.scene.RemoveNode(old.node)
        low, high = scan.node.GetImageData().GetScalarRange()
        self.state.update({"support": scan.shown(), "drawn_whole": False, "panel": "draw", "own_scan": not page.queries})
        self.state.update({"range_min": low, "range_max": high, "range_step": max((high - low) / 200, 1e-6)})
        self.state.range = [low + 0.4 * (high - low), low + 0.8 * (high - low)]
        page.refresh()

    def add_queries(self, scans: list[Scan]) -> None:
        """More scans to segment."""
        self.page.queries += scans
        self.state.update({"queries": [scan.shown() for scan in self.page.queries], "own_scan": False, "panel": "scans"})
        self.page.refresh()

    def remove_query(self, scan_id: str) -> None:
        """Take a scan off the list, with its result."""
        page = self.page
        gone = next(scan for scan in page.queries if scan.id == scan_id)
        page.queries.remove(gone)
        page.running.drop([result for result in page.running.results if result.scan is gone])
        if self.state.shown == scan_id:
            page.show("support")
        page.viewer.scene.RemoveNode(gone.node)
        self.state.queries = [scan.shown() for scan in page.queries]
        page.refresh()

    @contextmanager
    def _busy(self, text: str) -> Iterator[None]:
        """Say what is being done; show what goes wrong."""
        with self.state as state:
            state.loading = text
        try:
            with self.page.telling("Loading"):
                yield
        finally:
            with self.state as state:
                state.loading = ""
