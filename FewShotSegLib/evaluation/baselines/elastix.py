"""One-shot atlas: itk-elastix registers the support to the query and carries its labels over (baselines.md)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from FewShotSegLib.evaluation.baselines.base import Baseline, Extent, missing_package
from FewShotSegLib.evaluation.baselines.fill_between import fill_between
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

PERCENTILES = (1.0, 99.5)
COMMON = {
    "NumberOfResolutions": ("4",),
    "ImagePyramidSchedule": ("8", "8", "1", "4", "4", "1", "2", "2", "1", "1", "1", "1"),
    "NumberOfSpatialSamples": ("4096",),
    "AutomaticTransformInitialization": ("true",),
}
STAGES: dict[str, dict[str, tuple[str, ...]]] = {
    "rigid": {"MaximumNumberOfIterations": ("256",)},
    "affine": {"MaximumNumberOfIterations": ("256",)},
    "bspline": {
        "MaximumNumberOfIterations": ("400",),
        "Registration": ("MultiMetricMultiResolutionRegistration",),
        "Metric": ("AdvancedMattesMutualInformation", "TransformBendingEnergyPenalty"),
        "Metric0Weight": ("1",),
        "Metric1Weight": ("20",),
        "FinalGridSpacingInVoxels": ("16", "16", "4"),
    },
}


class Elastix(Baseline):
    """Rigid, affine and B-spline registration by mutual information with bending energy; nearest-neighbour labels.

    A sparsely drawn support is first completed by contour interpolation between its drawn slices.
    """

    name: ClassVar[str] = "elastix"
    description: ClassVar[str] = "one-shot atlas: elastix rigid, affine and B-spline registration"
    protocols: ClassVar[tuple[str, ...]] = ("oracle-z", "full-volume")

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.itk = _itk()

    def masks(self, support: Support, query: Volume, extent: Extent) -> np.ndarray:
        """The support's masks, carried over."""
        masks = fill_between(support.masks, support.drawn) if support.is_sparse else support.masks
        transform = register(self.itk, support.image, query, self.seed)
        return np.stack([_carry(self.itk, mask, support.image, transform) for mask in masks])


def register(itk: Any, support: Volume, query: Volume, seed: int) -> Any:
    """The transform parameters (itk.ParameterObject) that bring the support's voxels onto the query's grid."""
    parameters = itk.ParameterObject.New()
    for stage, settings in STAGES.items():
        chosen = parameters.GetDefaultParameterMap(stage, 4)
        if "FinalGridSpacingInVoxels" in settings:
            chosen.erase("FinalGridSpacingInPhysicalUnits")
        for key, value in (COMMON | settings | {"RandomSeed": (str(seed),)}).items():
            chosen[key] = value
        parameters.AddParameterMap(chosen)
    fixed, moving = (_image(itk, _clipped(volume.array), volume) for volume in (query, support))
    _, transform = itk.elastix_registration_method(fixed, moving, parameter_object=parameters, log_to_console=False)
    return transform


def _carry(itk: Any, mask: np.ndarray, image: Volume, transform: Any) -> np.ndarray:
    """The support's mask (z, y, x) on the query's grid."""
    for index in range(transform.GetNumberOfParameterMaps()):
        transform.SetParameter(index, "FinalBSplineInterpolationOrder", "0")
    carried = itk.transformix_filter(_image(itk, mask.astype(np.float32), image), transform, log_to_console=False)
    return itk.array_from_image(carried) > 0.5


def _clipped(array: np.ndarray) -> np.ndarray:
    low, high = np.percentile(array, PERCENTILES)
    return np.clip(array, low, high).astype(np.float32)


def _image(itk: Any, array: np.ndarray, like: Volume) -> Any:
    """An array (z, y, x) as an ITK image on the grid of a scan."""
    image = itk.image_from_array(np.ascontiguousarray(array))
    image.SetSpacing(like.geometry.spacing)
    image.SetOrigin(like.geometry.origin)
    image.SetDirection(itk.matrix_from_array(np.array(like.geometry.direction).reshape(3, 3)))
    return image


def _itk() -> Any:
    """The package itk with elastix, whose modules take some seconds to load."""
    try:
        import itk
    except ImportError as error:
        raise missing_package("itk-elastix", Elastix.name) from error
    if not hasattr(itk, "elastix_registration_method"):
        raise missing_package("itk-elastix", Elastix.name)
    return itk
