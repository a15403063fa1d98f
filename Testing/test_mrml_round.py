"""The clinician's whole round through nodes and a worker process: draw one slice of the liver, segment, correct one slice."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mrml_nodes import add_segmentation, add_volume, mask_in, new_scene

from FewShotSegLib.background import Job, ProcessRunner, ResultEvent
from FewShotSegLib.geometry import Geometry
from FewShotSegLib.mrml import CONFIDENCE_TAG, show_segmentation, support_from_nodes, volume_from_node
from FewShotSegLib.phantom import ORGANS, make_patient
from FewShotSegLib.resources import resource_dir
from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT, SegmenterConfig
from FewShotSegLib.volume import Volume

NAME = "Abdomen segmented"
PATIENCE_S = 600.0

pytestmark = pytest.mark.skipif(
    not (resource_dir("checkpoints") / f"{DEFAULT_CHECKPOINT}.safetensors").is_file(), reason="the default checkpoint is absent"
)


@pytest.fixture(scope="module")
def runner() -> Any:
    runner = ProcessRunner()
    yield runner
    runner.close()


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def draw(scene: Any, scan: Any, mask: np.ndarray, geometry: Geometry) -> Any:
    return add_segmentation(scene, geometry, {"liver": mask}, scan)


def segment(runner: ProcessRunner, scan: Any, drawing: Any, slices: list[int]) -> Any:
    """What Apply does; the result node."""
    support = support_from_nodes(scan, drawing, ["liver"], slices)
    runner.start(Job((support,), (volume_from_node(scan),), SegmenterConfig(device="cpu")))
    events, end = [], time.monotonic() + PATIENCE_S
    while runner.running:
        assert time.monotonic() < end, events
        events += runner.poll()
        time.sleep(0.02)
    (result,) = [event for event in events if isinstance(event, ResultEvent)] or [events[-1]]
    assert isinstance(result, ResultEvent), result
    return show_segmentation(result.segmentation, scan)


def check_round(runner: ProcessRunner, volume: Volume, truth: np.ndarray, least: float, gain: float) -> None:
    """Draw the slice with most of the liver; segment; correct the worst slice; segment again. Dice is over the other slices."""
    scene = new_scene()
    scan = add_volume(scene, volume.array, volume.geometry, "Abdomen")
    area = truth.sum(axis=(1, 2))
    first = int(area.argmax())
    one_slice = np.zeros_like(truth)
    one_slice[first] = truth[first]
    drawing = draw(scene, scan, one_slice, volume.geometry)

    node = segment(runner, scan, drawing, [first])
    assert node.GetName() == NAME and node.GetSegmentation().GetNumberOfSegments() == 1
    part = node.GetSegmentation().GetNthSegment(0)
    assert part.GetName() == "liver" and part.HasTag(CONFIDENCE_TAG)
    found = mask_in(node, node.GetSegmentation().GetNthSegmentID(0), volume.geometry)
    assert np.array_equal(found[first], truth[first]), "the drawing stays"
    assert dice(found, truth) > least

    errors = (found != truth).sum(axis=(1, 2))
    worst = int(errors.argmax())
    corrected = found.copy()
    corrected[worst] = truth[worst]
    both = sorted({first, worst} & set(np.flatnonzero(area)))
    again = segment(runner, scan, draw(scene, scan, corrected, volume.geometry), both)
    assert again.GetName() not in (NAME, drawing.GetName()) and scene.IsNodePresent(node)
    better = mask_in(again, again.GetSegmentation().GetNthSegmentID(0), volume.geometry)
    print(f"Dice {dice(found, truth):.3f}, after correcting slice {worst}: {dice(better, truth):.3f}")
    assert dice(better, truth) > dice(found, truth) + gain
    assert np.array_equal(mask_in(drawing, "liver", volume.geometry), one_slice), "what was drawn is not touched"


def test_the_round_on_an_invented_patient(runner: ProcessRunner) -> None:
    patient = make_patient(1, shape=(12, 128, 128))
    check_round(runner, patient.volume, patient.labels == ORGANS[0].label, least=0.7, gain=0.005)


@pytest.mark.slow
def test_the_round_on_a_real_scan(runner: ProcessRunner, shared_dir: Path) -> None:
    folder = shared_dir / "data" / "chaos_t2"
    if not folder.is_dir():
        pytest.skip("chaos_t2 is absent")
    labels = Volume.read(folder / "01_label.nii.gz").array
    check_round(runner, Volume.read(folder / "01_image.nii.gz"), labels == 1, least=0.7, gain=0.002)
