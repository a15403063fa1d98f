"""Pictures of the panel for README and extension index, from the folder Testing: `python -m slicer_host.screenshots FOLDER`.

Every picture says that it was made on this test host: Slicer's own window looks a little different. The segmentation shown is
a real one of an invented patient, made with the bundled checkpoint. Also makes the thumbnail of the sample data.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import slicer_host  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "FewShotSeg" / "FewShotSeg.py"
LABEL = "FewShotSeg panel on the project's test host (not a picture of 3D Slicer)"
SHAPE = (16, 128, 128)
WIDTH, STRIP = 560, 26
THUMBNAIL = 256


def main(folder: Path) -> None:
    """Write panel-draw.png, panel-running.png, panel-results.png and panel-method.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with slicer_host.start() as host:
        loaded = host.load_module(MODULE)
        panel = host.show(loaded, (WIDTH, 800))
        _draw_one_slice(host, panel)
        _take(host, loaded, folder / "panel-draw.png")
        panel.ui.applyButton.click()
        host.wait(lambda: panel.logic.run.state.fraction > 0.3 or not panel.logic.running, 900)
        _take(host, loaded, folder / "panel-running.png")
        host.wait(lambda: not panel.logic.running, 900)
        panel.ui.resultsTable.selectRow(0)
        panel._update()
        _take(host, loaded, folder / "panel-results.png")
        panel.ui.methodSection.collapsed = panel.ui.advancedGroupBox.collapsed = False
        for name in ("supportSection", "querySection", "resultsSection"):
            getattr(panel.ui, name).collapsed = True
        _take(host, loaded, folder / "panel-method.png")
        host.unload(loaded)


def _draw_one_slice(host: Any, panel: Any) -> None:
    """Two patients; of the first, one slice is drawn."""
    from FewShotSegModule import sample_data, selftest

    drawn, drawing, new = sample_data.load_patients(SHAPE)
    selftest._keep_one_slice(drawing, drawn)
    panel._parameters.supportVolume, panel._parameters.supportSegmentation = drawn, drawing
    panel._parameters.queryVolumes = [new]
    host.process_events()


def _take(host: Any, loaded: Any, path: Path) -> None:
    """A picture of the panel at its natural height, under a strip that says where it was made."""
    from PySide6 import QtCore, QtGui

    for _ in range(3):
        host.process_events()
        loaded.panel.resize(WIDTH, loaded.panel.sizeHint.height())
    host.process_events()
    shown = loaded.panel.grab()
    picture = QtGui.QPixmap(shown.width(), shown.height() + STRIP)
    picture.fill(QtGui.QColor(60, 70, 90))
    painter = QtGui.QPainter(picture)
    painter.setPen(QtGui.QColor(255, 255, 255))
    painter.drawText(QtCore.QRect(0, 0, shown.width(), STRIP), QtCore.Qt.AlignmentFlag.AlignCenter, LABEL)
    painter.drawPixmap(0, STRIP, shown)
    painter.end()
    if not picture.save(str(path)):
        raise OSError(f"{path} could not be written")
    print(path)


def thumbnail(path: Path) -> None:
    """The middle slice of the sample data's first patient, with the drawn organs."""
    import numpy as np
    from PIL import Image

    from FewShotSegLib.phantom import make_patient

    patient = make_patient(2, shape=(36, 192, 192))
    k = int(np.argmax([len(np.unique(plane)) for plane in patient.labels]))
    image = patient.volume.array[k].astype(float)
    grey = np.clip(image / np.percentile(image, 99.5), 0, 1)[..., None].repeat(3, axis=2)
    for organ in patient.organs:
        where = patient.labels[k] == organ.label
        grey[where] = 0.45 * grey[where] + 0.55 * np.array(organ.color)
    Image.fromarray((255 * grey).astype(np.uint8)).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS).save(path)
    print(path)


if __name__ == "__main__":
    thumbnail(ROOT / "FewShotSeg" / "Resources" / "Icons" / "FewShotSegPatients.png")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "screenshots")
