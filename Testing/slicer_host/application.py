"""What a scripted module meets as `slicer.app` and `slicer.modules`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

LOGICS = {
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
}


class Emitter:
    """An object with signals, connected by their signature."""

    def __init__(self) -> None:
        self._slots: dict[str, list[Callable[..., Any]]] = {}

    def connect(self, signal: str, slot: Callable[..., Any]) -> bool:
        self._slots.setdefault(signal, []).append(slot)
        return True

    def disconnect(self, signal: str, slot: Callable[..., Any]) -> bool:
        if slot in self._slots.get(signal, []):
            self._slots[signal].remove(slot)
        return True

    def emit(self, signal: str, *told: Any) -> None:
        for slot in list(self._slots.get(signal, [])):
            slot(*told)


class Module:
    """`slicer.modules.<name>`."""

    def __init__(self, logic: Any = None, path: str = "", name: str = "") -> None:
        self._logic, self.path, self.name = logic, path, name
        self.widget: Any = None

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> Any:
        return self.widget


class Settings(dict[str, Any]):
    """QSettings that forget everything in the end."""

    def value(self, key: str, default: Any = None) -> Any:
        return self.get(key, default)

    def setValue(self, key: str, value: Any) -> None:
        self[key] = value

    def contains(self, key: str) -> bool:
        return key in self

    def remove(self, key: str) -> None:
        self.pop(key, None)

    def sync(self) -> None:
        pass


class Application(Emitter):
    """`slicer.app`, without a main window, views or a layout."""

    applicationName, majorVersion, minorVersion, revision, os = "SlicerTestHost", 5, 13, "0", "linux"
    documentationBaseUrl = "https://slicer.readthedocs.io/"

    def __init__(self, scene: Any, logic: Any, qt_application: Any, testing: bool) -> None:
        super().__init__()
        self._scene, self._logic, self._qt, self._testing = scene, logic, qt_application, testing
        self._settings, self._modules = Settings(), Emitter()
        self.temporaryPath = tempfile.gettempdir()

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def moduleManager(self) -> Emitter:
        return self._modules

    def processEvents(self, *told: Any) -> None:
        self._qt.processEvents()

    def topLevelWidgets(self) -> list[Any]:
        return []

    def settings(self) -> Settings:
        return self._settings

    userSettings = revisionUserSettings = settings

    def testingEnabled(self) -> bool:
        return self._testing

    def layoutManager(self) -> None:
        return None

    def setOverrideCursor(self, cursor: Any) -> None:
        pass

    def restoreOverrideCursor(self) -> None:
        pass

    def pauseRender(self) -> None:
        pass

    def resumeRender(self) -> None:
        pass

    def translate(self, context: str, text: str) -> str:
        return text

    def moduleDocumentationUrl(self, name: str) -> str:
        return self.documentationBaseUrl + name


def application_logic(scene: Any) -> Any:
    """The logic of the application, with the colours that volumes and segmentations ask for."""
    import slicer

    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetModuleLogic("Colors", logic.GetColorLogic())
    return logic


def module_logics(scene: Any, app_logic: Any) -> dict[str, Any]:
    """The logics of Slicer's own modules, by the names under `slicer.modules`."""
    import slicer

    logics = {}
    for name, cls in LOGICS.items():
        logics[name] = logic = getattr(slicer, cls)()
        logic.SetMRMLApplicationLogic(app_logic)
        logic.SetMRMLScene(scene)
        app_logic.SetModuleLogic(name.capitalize(), logic)
    return logics
