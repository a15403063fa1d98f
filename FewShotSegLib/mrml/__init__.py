"""Between MRML nodes (3D Slicer, slicer-core) and this library: the only room that knows `slicer` and VTK's scene.

Call it on the thread that owns the scene. What comes out of a node is a copy, and no node that the user made is ever changed.
"""

from FewShotSegLib.mrml.results import CONFIDENCE_TAG, show_segmentation
from FewShotSegLib.mrml.supports import support_from_nodes, support_steps
from FewShotSegLib.mrml.volumes import volume_from_node

__all__ = ["CONFIDENCE_TAG", "show_segmentation", "support_from_nodes", "support_steps", "volume_from_node"]
