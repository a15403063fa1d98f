"""One session: its scene, its drawing, and what the page shows and edits. `loading` and `running` hold the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trame_server import Server

from FewShotSegLib.app.config import AppConfig
from FewShotSegLib.app.drawing import Drawing, DrawnOrgan, organs_of
from FewShotSegLib.app.jobs import Jobs
from FewShotSegLib.app.loading import Loading
from FewShotSegLib.app.methods import usable_methods
from FewShotSegLib.app.results import slice_with_most
from FewShotSegLib.app.running import Running
from FewShotSegLib.app.scans import Scan
from FewShotSegLib.app.state import initial, organ_rows, why_not
from FewShotSegLib.app.viewer import Viewer
from FewShotSegLib.errors import FewShotSegError

SOON_S = 0.15

logger = logging.getLogger(__name__)


class SessionPage:
    """What the user sees and may do. `page.build` connects it with the widgets."""

    def __init__(self, server: Server, config: AppConfig, folder: Path) -> None:
        self.server, self.state, self.config, self.folder = server, server.state, config, folder
        self.checkpoints = usable_methods(config.checkpoint)
        self.state.update(initial(list(self.checkpoints)))
        self.viewer = Viewer(server)
        self.drawing = Drawing(self.viewer.slicer)
        self.loading = Loading(self)
        self.running = Running(self, Jobs(config))
        self.support: Scan | None = None
        self.support_drawing: Any = None
        self.queries: list[Scan] = []
        self._pending = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.drawing.changed.connect(self._drawing_changed)
        for name, action in self._follows().items():
            self.state.change(name)(action)
        self.refresh()

    def _follows(self) -> dict[str, Callable[..., None]]:
        """What follows when the page changes a variable of the state."""
        return {
            "tool": lambda tool, **_: self.drawing.use(tool),
            "brush": lambda brush, **_: self.drawing.set_brush(brush),
            "range": lambda range, **_: self.drawing.set_range(*range),
            "limit_range": lambda limit_range, **_: self.drawing.limit_to_range(limit_range),
            "layout": lambda layout, **_: self.viewer.choose_layout(layout),
            "organ": lambda organ, **_: self._choose(organ),
            "own_scan": lambda **_: self.refresh(),
            "drawn_whole": lambda **_: self.refresh(),
        }

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what takes long. A button's action must return at once: the messages of a page are handled one after the other."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---- drawing

    def replace_drawing(self, node: Any) -> None:
        """This segmentation is the drawing from now on."""
        old, self.support_drawing = self.support_drawing, node
        self.edit("support")
        if old is not None and old is not node:
            self.viewer.scene.RemoveNode(old)

    def edit(self, what: str) -> None:
        """Edit the drawing ("support") or correct a result (its id)."""
        if what == "support":
            assert self.support is not None
            node, volume = self.support_drawing, self.support.node
        else:
            result = self.running.result(what)
            node, volume = result.node, result.scan.node
        if node is not self.drawing.node:
            self.drawing.open(node, volume)
        self.state.update({"editing": what, "tool": "look" if what == "support" else "paint"})
        self.show(what)
        self.refresh()

    def add_organ(self, name: str = "") -> None:
        """A new organ, ready to be painted."""
        organ = self.drawing.add(name or self.state.new_name)
        self.state.update({"drawn_whole": False, "organ": organ, "tool": "paint"})
        self.refresh()

    def rename_organ(self, organ: str, name: str) -> None:
        """Rename an organ."""
        self.drawing.rename(organ, name)
        self.refresh()

    def remove_organ(self, organ: str) -> None:
        """Remove an organ; undo brings it back."""
        self.drawing.remove(organ)
        self.refresh()

    def clear_drawing(self) -> None:
        """Remove every organ; undo brings them back one by one."""
        for organ in self.drawing.organs():
            self.drawing.remove(organ.id)
        self.state.update({"drawn_whole": False, "tool": "look"})
        self.refresh()

    def fill_range(self) -> None:
        """Add what lies in the grey range, on the slice that is shown, to the chosen organ."""
        number = self.viewer.slice_number()
        if number is None or not self.drawing.chosen:
            self.say("Add an organ first, and go to one of the scan's slices.", "error")
            return
        self.drawing.fill_range(number, *self.state.range)

    def undo(self) -> None:
        """Take back the last change of the drawing."""
        self.drawing.undo()
        self.refresh()

    def redo(self) -> None:
        """Repeat what was taken back."""
        self.drawing.redo()
        self.refresh()

    def _choose(self, organ: str) -> None:
        if organ and organ != self.drawing.chosen:
            self.drawing.choose(organ)

    # ---- showing

    def show(self, what: str) -> None:
        """Show the drawing ("support"), a scan to segment, or a result, by its id: on a slice that shows something of it."""
        if what == "support":
            self.viewer.show(self.support.node if self.support else None, [self.support_drawing])
        elif what.startswith("result"):
            result = self.running.result(what)
            self.viewer.show(result.scan.node, [result.node])
            wanted = slice_with_most(result.found.labels, self.viewer.slice_number())
            if wanted is not None:
                self.viewer.go_to(wanted)
        else:
            self.viewer.show(next(scan.node for scan in self.queries if scan.id == what), [])
        self.state.shown = what
        if self.state.editing != what:
            self.state.tool = "look"

    def look_at(self, result: str, slice_number: int) -> None:
        """Show a slice of a result."""
        self.show(result)
        self.viewer.go_to(int(slice_number))

    def say(self, text: str, kind: str = "info") -> None:
        """A message at the foot of the page."""
        with self.state as state:
            state.update({"message": text, "message_kind": kind, "message_open": True})

    @contextmanager
    def telling(self, work: str) -> Iterator[None]:
        """Say what goes wrong in a piece of work instead of raising it."""
        try:
            yield
        except FewShotSegError as error:
            self.say(str(error), "error")
        except Exception as error:
            logger.exception("%s failed", work)
            self.say(f"Unexpected error, {type(error).__name__}: {error}. The drawing is as it was.", "error")

    def drawn_organs(self) -> list[DrawnOrgan]:
        """The organs of the drawing, also while a result is corrected."""
        return organs_of(self.support_drawing) if self.support_drawing is not None else []

    def refresh(self) -> None:
        """Bring lists and buttons up to date with the drawing."""
        organs, drawn, undo = self.drawing.organs(), self.drawn_organs(), self.drawing.undo_stack
        with self.state as state:
            state.organs = organ_rows(organs)
            state.organ = self.drawing.chosen or (organs[0].id if organs else "")
            state.why = why_not(self.support is not None, drawn, len(self.queries), state.own_scan, state.drawn_whole)
            state.update({"can_undo": undo.can_undo(), "can_redo": undo.can_redo()})

    def _drawing_changed(self) -> None:
        """Painting makes many small changes: the page is told once, soon."""
        if self._pending:
            return
        try:
            asyncio.get_running_loop().call_later(SOON_S, self._changed)
            self._pending = True
        except RuntimeError:  # no loop yet: nobody looks at the page
            self.refresh()

    def _changed(self) -> None:
        self._pending = False
        self.refresh()

    def close(self) -> None:
        """End what runs in the background."""
        self.running.jobs.close()
