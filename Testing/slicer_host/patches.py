"""What the host puts in place of what is there, each for the time of a `with` block."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slicer_host.host import Host

OWN = {"slicer.ScriptedLoadableModule": "scripted", "slicer.parameterNodeWrapper": "parameter_node", "slicer.i18n": "i18n"}


def note(host: Host, kind: Any, error: BaseException, trace: Any) -> None:
    host.slot_errors.append(error)
    sys.__excepthook__(kind, error, trace)


def messages(host: Host) -> dict[str, Any]:
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
def base_python(slicer: Any, base: Path | None) -> Iterator[None]:
    """Slicer's own Python files where there are some, else the stand-ins."""
    if base is None:
        with modules(OWN) as loaded, attributes(slicer, {name.partition(".")[2]: one for name, one in loaded.items()}):
            yield
        return
    folder = str(base / "slicer" if (base / "slicer").is_dir() else base)
    slicer.__path__.append(folder)
    own = [name for name in OWN if importlib.util.find_spec(name) is None]
    try:
        with modules({name: OWN[name] for name in own}):
            yield
    finally:
        slicer.__path__.remove(folder)
        for name in [name for name in sys.modules if any(name == one or name.startswith(f"{one}.") for one in OWN)]:
            del sys.modules[name]
        for name in OWN:
            vars(slicer).pop(name.partition(".")[2], None)


@contextlib.contextmanager
def modules(names: dict[str, str]) -> Iterator[dict[str, types.ModuleType]]:
    """Our modules under the names that Slicer gives them."""
    loaded = {name: importlib.import_module(f"slicer_host.{own}") for name, own in names.items()}
    with entries(loaded):
        yield loaded


@contextlib.contextmanager
def entries(modules: dict[str, types.ModuleType]) -> Iterator[None]:
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
def attributes(owner: Any, values: dict[str, Any]) -> Iterator[None]:
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
