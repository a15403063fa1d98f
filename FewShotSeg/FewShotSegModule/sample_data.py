"""Data to try the module on, in Slicer's Sample Data module."""

import os

import slicer
from slicer.i18n import tr as _

CATEGORY = "FewShotSeg"
ICONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "Resources", "Icons")
SHAPE = (36, 192, 192)
SEEDS = (2, 0)

LIVER_URL = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
LIVER_SHA256 = "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"


def register():
    """Put two entries into Sample Data: invented patients, made here, and a real scan, downloaded when it is clicked."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="FewShotSegPatients",
        uris=[],
        fileNames=[],
        nodeNames=[],
        customDownloader=lambda _source=None: load_patients(),
        thumbnailFileName=os.path.join(ICONS, "FewShotSegPatients.png"),
    )
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="FewShotSegLiver",
        uris=LIVER_URL + LIVER_SHA256,
        fileNames="CTLiver.nrrd",
        nodeNames="CTLiver",
        checksums=f"SHA256:{LIVER_SHA256}",
        thumbnailFileName=os.path.join(ICONS, "FewShotSeg.png"),
    )


def load_patients(shape=SHAPE, seeds=SEEDS):
    """Make two invented abdomens, the first with its organs drawn: needs no network and no torch.

    Args:
        shape: voxels (z, y, x) of each.
        seeds: which persons.

    Returns:
        volume node and segmentation node of the first, volume node of the second.
    """
    from FewShotSegLib.phantom import make_patient

    first, second = (make_patient(seed, shape=shape) for seed in seeds)
    drawn, new = _add_volume(first.volume, _("Drawn patient")), _add_volume(second.volume, _("New patient"))
    drawing = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _("Drawing"))
    drawing.CreateDefaultDisplayNodes()
    drawing.SetReferenceImageGeometryParameterFromVolumeNode(drawn)
    for organ in first.organs:
        name = drawing.GetSegmentation().AddEmptySegment("", organ.name, organ.color)
        drawing.GetSegmentation().GetSegment(name).SetTag("TerminologyEntry", organ.terminology)
        slicer.util.updateSegmentBinaryLabelmapFromArray((first.labels == organ.label).astype("uint8"), drawing, name, drawn)
    if slicer.app.layoutManager() is not None:
        slicer.util.setSliceViewerLayers(background=drawn, fit=True)
    return drawn, drawing, new


def _add_volume(volume, name):
    """A library volume as a scalar volume node."""
    import numpy as np
    import vtk

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    matrix = vtk.vtkMatrix4x4()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.geometry.affine()  # LPS to RAS
    matrix.DeepCopy(affine.ravel().tolist())
    node.SetIJKToRASMatrix(matrix)
    slicer.util.updateVolumeFromArray(node, volume.array)
    node.SetAttribute("Modality", volume.modality)
    node.CreateDefaultDisplayNodes()
    return node
