"""The sample case: two invented patients, the first drawn whole. Nothing is downloaded, nobody's data is in it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from FewShotSegLib.phantom import make_patient
from FewShotSegLib.support import Support
from FewShotSegLib.volume import Volume

SEEDS = (1, 2)


def patients(shape: tuple[int, int, int]) -> tuple[Support, Volume]:
    """Patient A with the drawing of all organs, and patient B; shape is (z, y, x)."""
    first, second = (make_patient(seed, shape=shape) for seed in SEEDS)
    image = replace(first.volume, name="Sample patient A")
    masks = np.stack([first.labels == organ.label for organ in first.organs])
    return Support.create(image, masks, first.organs, slices="all"), replace(second.volume, name="Sample patient B")
