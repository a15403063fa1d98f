"""From nodes to jobs: read on the main thread, in small steps, so that the panel never freezes."""

from dataclasses import dataclass, replace

import numpy as np
from slicer.i18n import tr as _

from FewShotSegModule import corrections
from FewShotSegModule.parameters import Finished, chosen_segments, queries


@dataclass(frozen=True)
class Request:
    """What the user asked for, as it was at Apply; later changes in the panel do not reach a job that runs."""

    supportVolume: object
    supportSegmentation: object
    segments: "tuple | None"
    finished: Finished
    queries: tuple
    config: object


@dataclass(frozen=True)
class Task:
    """A job for the runner, and the volume nodes of its queries."""

    job: object
    nodes: tuple


def request_of(parameters):
    """The request that the panel's settings describe."""
    return Request(
        supportVolume=parameters.supportVolume,
        supportSegmentation=parameters.supportSegmentation,
        segments=tuple(chosen_segments(parameters)) if parameters.excludedSegments else None,  # None leaves empty ones out
        finished=parameters.finished,
        queries=tuple(queries(parameters)),
        config=_config(parameters),
    )


def plan(request):
    """Read everything; a generator that yields None between small steps, and returns the tasks (`yield from`).

    The drawn scan itself is completed after its finished slices; the other scans are segmented after the whole drawing. Where
    both mean the same slices, it is one job.

    Raises:
        VolumeError, SupportError: see `FewShotSegLib.mrml`.
    """
    from FewShotSegLib.background import Job

    yield  # imports take time, too
    from FewShotSegLib.mrml import support_steps, volume_from_node

    yield

    slices = "all" if request.finished is Finished.ALL else "auto"
    support = yield from support_steps(request.supportVolume, request.supportSegmentation, request.segments, slices)
    yield
    within = _finished_only(support, request)
    yield
    others = within if request.finished is Finished.DRAWN or np.array_equal(within.drawn, support.drawn) else support
    tasks = {}
    for node in request.queries:
        own = node is request.supportVolume
        teacher = within if own else others
        scan = support.image if own else volume_from_node(node)
        tasks.setdefault(id(teacher), (teacher, []))[1].append((node, scan))
        yield
    return [
        Task(Job((teacher,), tuple(scan for _node, scan in found), request.config), tuple(node for node, _scan in found))
        for teacher, found in tasks.values()
    ]


def _finished_only(support, request):
    """The support of which only the finished slices count: in a drawing those with a drawing, in a result those corrected."""
    named = corrections.segments_by_name(request.supportSegmentation)
    present = np.any(support.masks, axis=(2, 3))
    drawn = present.copy()
    for row, organ in enumerate(support.organs):
        segment = named.get(organ.name)
        if segment is not None and corrections.is_result(segment):
            drawn[row] = corrections.finished_slices(segment, support.masks[row])
    if np.array_equal(drawn, support.drawn):
        return support
    forgotten = (present & ~drawn).any()
    return replace(support, masks=support.masks & drawn[:, :, None, None] if forgotten else support.masks, drawn=drawn)


def _config(parameters):
    """How to segment, as the library's configuration."""
    from FewShotSegLib.segmenter_config import DEFAULT_CHECKPOINT, SegmenterConfig

    return SegmenterConfig(
        method=parameters.method,
        strategy=parameters.strategy,
        checkpoint=parameters.ownCheckpoint or parameters.checkpoint or DEFAULT_CHECKPOINT,
        device=parameters.device,
        batch=parameters.batch,
        every_mm=parameters.everyMm,
        refine=parameters.refine,
        largest_only=parameters.largestOnly,
    )


def why_not_ready(parameters):
    """Why Apply is disabled, "" when it is not."""
    node = parameters.supportSegmentation
    if parameters.supportVolume is None:
        return _("Choose the scan that you drew on.")
    if node is None:
        return _("Choose or make a segmentation, and draw an organ in it.")
    if not chosen_segments(parameters):
        return _("Choose at least one segment: draw one, or tick one in the list.")
    if not any(is_drawn(node, name) for name in chosen_segments(parameters)):
        return _("The chosen segments are empty: draw an organ on at least one slice.")
    if not queries(parameters):
        return _("Choose what to segment: the rest of the drawn scan, other scans, or both.")
    return ""


def is_drawn(segmentation_node, segment_id):
    """Whether a segment has anything in it; looks at extents only, so that it may be asked at every stroke."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    for name in ("Binary labelmap", "Closed surface", "Planar contour"):
        shape = segment.GetRepresentation(name)
        if shape is None:
            continue
        if shape.IsA("vtkOrientedImageData"):
            extent = shape.GetExtent()
            if all(extent[2 * axis] <= extent[2 * axis + 1] for axis in range(3)):
                return True
        elif shape.GetNumberOfPoints():
            return True
    return False
