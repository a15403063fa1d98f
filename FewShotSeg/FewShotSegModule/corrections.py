"""Which slices of a result the user has corrected since it was made.

A result remembers a checksum of each of its slices in the tags of its segments, so that this also works after saving and
loading the scene.
"""

import zlib

import numpy as np
import vtk

MADE_TAG = "FewShotSeg.Made"
DRAWN_TAG = "FewShotSeg.Drawn"


def remember(segment, mask, drawn=None):
    """Note in a result's segment how it was made.

    Args:
        segment: vtkSegment.
        mask: bool (z, y, x), its voxels.
        drawn: bool (z,), slices that were taken over from the user's drawing; None where the drawing was another scan's.
    """
    segment.SetTag(MADE_TAG, " ".join(_checksums(mask)))
    segment.SetTag(DRAWN_TAG, "" if drawn is None else " ".join(map(str, np.flatnonzero(drawn).tolist())))


def is_result(segment):
    """Whether a segment is (part of) a result of this module."""
    return bool(read_tag(segment, MADE_TAG))


def corrected_slices(segment, mask):
    """Slices, bool (z,), of a result's segment whose voxels `mask` (z, y, x) are no longer as they were made."""
    made = read_tag(segment, MADE_TAG).split()
    if len(made) != len(mask):  # resampled or cropped since: nothing is known
        return np.zeros(len(mask), bool)
    return np.array([then != now for then, now in zip(made, _checksums(mask), strict=True)])


def drawn_slices(segment, count):
    """Slices, bool (count,), that were the user's drawing already when the result was made."""
    drawn = np.zeros(count, bool)
    numbers = [int(number) for number in read_tag(segment, DRAWN_TAG).split()]
    drawn[[number for number in numbers if number < count]] = True
    return drawn


def finished_slices(segment, mask):
    """Slices, bool (z,), of a result's segment that the user stands for: drawn before, or corrected since.

    A segment that the user neither drew on this scan nor corrected is accepted as it is: all its slices.
    """
    finished = drawn_slices(segment, len(mask)) | corrected_slices(segment, mask)
    return finished if finished.any() else np.ones(len(mask), bool)


def corrected_count(node, scan):
    """Number of the scan's slices on which a result node was changed since it was made."""
    from FewShotSegLib.errors import SupportError
    from FewShotSegLib.mrml import support_from_nodes

    try:
        support = support_from_nodes(scan, node)
    except SupportError:  # everything was erased
        return 0
    known = segments_by_name(node)
    pairs = [(known[organ.name], mask) for organ, mask in zip(support.organs, support.masks, strict=True) if organ.name in known]
    changed = [corrected_slices(segment, mask) for segment, mask in pairs]
    return int(np.any(changed, axis=0).sum()) if changed else 0


def segments_by_name(node):
    """The segments (vtkSegment) of a segmentation node by their names."""
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    return {segment.GetName(): segment for segment in segments}


def read_tag(segment, name):
    """A segment's tag, "" when it has none."""
    value = vtk.mutable("")
    return str(value.get()) if segment.GetTag(name, value) else ""


def _checksums(mask):
    """One word per slice; "0" for an empty one."""
    return [f"{zlib.crc32(np.ascontiguousarray(plane)):x}" if plane.any() else "0" for plane in mask]
