"""Starting and closing the host, loading a module into it, and what tests ask it afterwards."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
import types
import unittest
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slicer_host import patches

BASE_PYTHON = "SLICER_BASE_PYTHON"


@dataclass
class LoadedModule:
    """A module file in the host."""

    name: str
    file: types.ModuleType
    module: Any
    widget: Any = None
    panel: Any = None


@dataclass
class Host:
    """The running host. What the module wanted to show or install is kept here instead."""

    app: Any
    messages: list[tuple[str, str]] = field(default_factory=list)
    """(level, text) of all message boxes: "error", "warning", "info", "question"."""
    installs: list[list[str]] = field(default_factory=list)
    """Requirements that were to be installed."""
    answers: list[bool] = field(default_factory=list)
    """Answers to the next questions, the first one first; afterwards every answer is yes."""
    slot_errors: list[BaseException] = field(default_factory=list)
    """Exceptions that came out of slots and timers, which Qt swallows."""
    _undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def scene(self) -> Any:
        import slicer

        return slicer.mrmlScene

    @property
    def errors(self) -> list[str]:
        """Texts of the error boxes."""
        return [text for level, text in self.messages if level == "error"]

    def load_module(self, path: str | Path) -> LoadedModule:
        """Import a module file and make its module object, as Slicer does at start-up."""
        import slicer

        from slicer_host.application import Module

        path = Path(path).resolve()
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
            self._undo.callback(lambda: sys.path.remove(str(path.parent)))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        file = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = file
        self._undo.callback(sys.modules.pop, path.stem, None)
        spec.loader.exec_module(file)
        setattr(slicer.modules, path.stem.lower(), Module(path=str(path), name=path.stem))
        setattr(slicer.moduleNames, path.stem, path.stem)
        module = getattr(file, path.stem)(types.SimpleNamespace(path=str(path), title="", icon=None))
        setattr(slicer.modules, f"{path.stem}Instance", module)
        return LoadedModule(path.stem, file, module)

    def show(self, loaded: LoadedModule, size: tuple[int, int] = (520, 1000)) -> Any:
        """Build the module's panel, show it and enter it; the scripted widget is returned, the Qt one is `loaded.panel`."""
        import qt
        import slicer

        panel = slicer.qMRMLWidget()
        panel.setLayout(qt.QVBoxLayout())
        panel.setMRMLScene(slicer.mrmlScene)
        loaded.panel, loaded.widget = panel, getattr(loaded.file, f"{loaded.name}Widget")(panel)
        setattr(slicer.modules, f"{loaded.name}Widget", loaded.widget)
        loaded.widget.setup()
        if hasattr(loaded.widget, "enter"):
            loaded.widget.enter()
        panel.resize(*size)
        panel.show()
        self.process_events()
        return loaded.widget

    def unload(self, loaded: LoadedModule) -> None:
        """Leave the panel and clean up, as Slicer does when it ends."""
        if hasattr(loaded.widget, "exit"):
            loaded.widget.exit()
        loaded.widget.cleanup()
        loaded.panel.close()
        self.process_events()

    def self_test(self, loaded: LoadedModule) -> unittest.TestResult:
        """Run every `test_*` of the module's test class by itself, as Slicer's ctest does."""
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(getattr(loaded.file, f"{loaded.name}Test")).run(result)
        return result

    def process_events(self) -> None:
        self.app.processEvents()

    def wait(self, condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
        """Let Qt work until the condition holds, which is returned; TimeoutError with what went wrong otherwise."""
        end = time.monotonic() + timeout_s
        while not (found := condition()):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {timeout_s} s; messages {self.messages}, slot errors {self.slot_errors}")
            self.process_events()
            time.sleep(0.005)
        return found

    def screenshot(self, widget: Any, path: str | Path) -> Path:
        """A picture of a widget."""
        self.process_events()
        assert widget.grab().save(str(path))
        return Path(path)

    def clear_scene(self) -> None:
        """What "Close scene" does."""
        self.scene.Clear(False)
        self.process_events()

    def close(self) -> None:
        """Take everything out of `sys.modules` and `slicer` again."""
        self._undo.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *told: object) -> None:
        self.close()


def start(*, testing: bool = False, base_python: str | Path | None = None) -> Host:
    """Start the host; `close` it, or use it in a `with` block.

    Args:
        testing: what `slicer.app.testingEnabled()` says. Slicer shows no message boxes while it is True.
        base_python: folder with Slicer's own `slicer` package, whose files are used instead of stand-ins; None: the environment
            variable SLICER_BASE_PYTHON, if it is set.
    """
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    import slicer
    import slicer.util

    base = base_python or os.environ.get(BASE_PYTHON)
    undo = contextlib.ExitStack()
    try:
        return _start(slicer, undo, testing, Path(base) if base else None)
    except BaseException:
        undo.close()
        raise


def _start(slicer: Any, undo: contextlib.ExitStack, testing: bool, base: Path | None) -> Host:
    qt = undo.enter_context(patches.modules({"qt": "qt", "ctk": "ctk"}))["qt"]
    from slicer_host import application, checkable, ctk, installs, qmrml, segment_editor, segments  # noqa: F401  # they register their widgets

    qt_application = qt.QApplication.instance() or qt.QApplication(["slicer_host", "-style", "fusion"])
    scene = slicer.vtkMRMLScene()
    logic = application.application_logic(scene)
    app = application.Application(scene, logic, qt_application, testing)
    modules = types.ModuleType("slicer.modules")
    for name, one in application.module_logics(scene, logic).items():
        setattr(modules, name, application.Module(one, name=name))
    host = Host(app, _undo=undo)
    names = {name: cls for name, cls in qt.CUSTOM.items() if name.startswith("qMRML")}
    names |= {"app": app, "mrmlScene": scene, "modules": modules, "moduleNames": types.ModuleType("moduleNames"), "selfTests": {}}
    undo.enter_context(patches.attributes(slicer, names))
    undo.enter_context(patches.attributes(slicer.util, patches.messages(host)))
    undo.enter_context(patches.entries({"slicer.modules": modules, "slicer.packaging": installs.make(host.installs)}))
    undo.enter_context(patches.attributes(slicer, {"packaging": sys.modules["slicer.packaging"]}))
    undo.enter_context(patches.base_python(slicer, base))
    undo.enter_context(patches.attributes(sys, {"excepthook": lambda kind, error, trace: patches.note(host, kind, error, trace)}))
    return host
