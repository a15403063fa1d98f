"""Starting and closing the host, loading a module into it, and what tests ask it afterwards."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import time
import types
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASE_PYTHON = "SLICER_BASE_PYTHON"
OWN = {"slicer.ScriptedLoadableModule": "scripted", "slicer.parameterNodeWrapper": "parameter_node", "slicer.i18n": "i18n"}


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
    qt = undo.enter_context(_modules({"qt": "qt", "ctk": "ctk"}))["qt"]
    from slicer_host import application, ctk, installs, qmrml, segments  # noqa: F401  # they register their widgets

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
    undo.enter_context(_attributes(slicer, names))
    undo.enter_context(_attributes(slicer.util, _messages(host)))
    undo.enter_context(_entries({"slicer.modules": modules, "slicer.packaging": installs.make(host.installs)}))
    undo.enter_context(_attributes(slicer, {"packaging": sys.modules["slicer.packaging"]}))
    undo.enter_context(_base_python(slicer, base))
    undo.enter_context(_attributes(sys, {"excepthook": lambda kind, error, trace: _note(host, kind, error, trace)}))
    return host


def _note(host: Host, kind: Any, error: BaseException, trace: Any) -> None:
    host.slot_errors.append(error)
    sys.__excepthook__(kind, error, trace)


def _messages(host: Host) -> dict[str, Any]:
    """`slicer.util`'s message boxes: noted down instead of shown."""

    def show(level: str) -> Callable[..., None]:
        def display(text: str, *told: Any, **named: Any) -> None:
            host.messages.append((level, text))

        return display

    def ask(text: str, *told: Any, **named: Any) -> bool:
        host.messages.append(("question", text))
        return host.answers.pop(0) if host.answers else True

    def delay(message: str, *told: Any, **named: Any) -> None:
        host.process_events()

    boxes = {f"{level}Display": show(level) for level in ("info", "warning", "error")}
    questions = dict.fromkeys(("confirmOkCancelDisplay", "confirmYesNoDisplay", "confirmRetryCloseDisplay"), ask)
    install = {"pip_install": lambda requirements, **told: sys.modules["slicer.packaging"].pip_install(requirements)}
    return {**boxes, **questions, **install, "messageBox": ask, "delayDisplay": delay}


@contextlib.contextmanager
def _base_python(slicer: Any, base: Path | None) -> Iterator[None]:
    """Slicer's own Python files where there are some, else the stand-ins."""
    if base is None:
        with _modules(OWN) as loaded, _attributes(slicer, {name.partition(".")[2]: one for name, one in loaded.items()}):
            yield
        return
    folder = str(base / "slicer" if (base / "slicer").is_dir() else base)
    slicer.__path__.append(folder)
    own = [name for name in OWN if importlib.util.find_spec(name) is None]
    try:
        with _modules({name: OWN[name] for name in own}):
            yield
    finally:
        slicer.__path__.remove(folder)
        for name in [name for name in sys.modules if any(name == one or name.startswith(f"{one}.") for one in OWN)]:
            del sys.modules[name]


@contextlib.contextmanager
def _modules(names: dict[str, str]) -> Iterator[dict[str, types.ModuleType]]:
    """Our modules under the names that Slicer gives them."""
    loaded = {name: importlib.import_module(f"slicer_host.{own}") for name, own in names.items()}
    with _entries(loaded):
        yield loaded


@contextlib.contextmanager
def _entries(modules: dict[str, types.ModuleType]) -> Iterator[None]:
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


@contextlib.contextmanager
def _attributes(owner: Any, values: dict[str, Any]) -> Iterator[None]:
    missing = object()
    before = {name: getattr(owner, name, missing) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is missing:
                delattr(owner, name)
            else:
                setattr(owner, name, value)
