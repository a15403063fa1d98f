"""What the panel remembers: kept in the scene, saved and loaded with it."""

import enum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

METHODS = ["match", "alpnet", "visa", "adnet", "adnet3d", "qnet", "rpt", "pami", "qamp"]
STRATEGIES = ["auto", "direct", "propagate"]
DEVICES = ["auto", "cpu", "cuda", "mps"]


class Finished(enum.Enum):
    """Which slices of the drawing are finished, so that an organ that is not drawn on them is known to be absent."""

    AUTO = "auto"
    DRAWN = "drawn"
    ALL = "all"

    def label(self):
        """What the panel shows."""
        return {
            Finished.AUTO: _("Automatic"),
            Finished.DRAWN: _("Only the slices with a drawing"),
            Finished.ALL: _("Every slice"),
        }[self]


@parameterNodeWrapper
class FewShotSegParameters:
    """Inputs and options of one job.

    excludedSegments: IDs of segments that are not to be used, so that a newly drawn one is.
    finished: which slices of the drawing count.
    sameScan: segment the rest of the drawn scan; queryVolumes: and these.
    checkpoint: name of an installed one; ownCheckpoint: file that is used instead, where given.
    everyMm, batch, refine, largestOnly: as in `FewShotSegLib.segmenter.SegmenterConfig`.
    separateProcess: run in a process of its own, so that a crash or a full GPU never takes Slicer down.
    show3D: show results in 3D.
    """

    supportVolume: vtkMRMLScalarVolumeNode
    supportSegmentation: vtkMRMLSegmentationNode
    excludedSegments: list[str]
    finished: Finished = Finished.AUTO
    sameScan: bool = True
    queryVolumes: list[vtkMRMLScalarVolumeNode]
    method: Annotated[str, Choice(METHODS)] = "match"
    strategy: Annotated[str, Choice(STRATEGIES)] = "auto"
    checkpoint: str = ""
    ownCheckpoint: str = ""
    device: Annotated[str, Choice(DEVICES)] = "auto"
    everyMm: Annotated[float, WithinRange(1.0, 20.0)] = 5.0
    batch: Annotated[int, WithinRange(1, 64)] = 4
    refine: bool = True
    largestOnly: bool = True
    separateProcess: bool = True
    show3D: bool = False


OPTIONS = (
    "finished",
    "method",
    "strategy",
    "checkpoint",
    "ownCheckpoint",
    "device",
    "everyMm",
    "batch",
    "refine",
    "largestOnly",
    "separateProcess",
    "show3D",
)
"""What does not belong to a scene's nodes, and stays when the scene is closed."""


def connect(parameters, ui):
    """Bind the widgets with a property SlicerParameterName to the parameters; returns the tag for `disconnectGui`.

    Does what `connectGui` is for, which in many Slicer versions returns no tag (Slicer's issue 7547). What cannot be disconnected
    goes on writing: connecting anew empties the combo boxes, and their parameters would become the first choice.
    """
    named = ((widget.property("SlicerParameterName"), widget) for widget in vars(ui).values())
    return parameters.connectParametersToGui({name: widget for name, widget in named if name})


def options_of(parameters):
    """The options by name; {} without parameters."""
    return {} if parameters is None else {name: getattr(parameters, name) for name in OPTIONS}


def keep_options(parameters, options):
    """Put options back into a parameter node."""
    for name, value in options.items():
        setattr(parameters, name, value)


def queries(parameters):
    """Volume nodes to segment: the drawn scan itself first, where asked for, then the others, each once.

    Nodes that have left the scene are left out.
    """
    own = [parameters.supportVolume] if parameters.sameScan else []
    nodes = [node for node in [*own, *parameters.queryVolumes] if node is not None]
    return list({node.GetID(): node for node in nodes}.values())


def chosen_segments(parameters):
    """IDs of the segments to use, in order."""
    node = parameters.supportSegmentation
    excluded = set(parameters.excludedSegments)
    ids = node.GetSegmentation().GetSegmentIDs() if node is not None else ()
    return [name for name in ids if name not in excluded]
