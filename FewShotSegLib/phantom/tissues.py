"""What the phantom is made of, and how bright each tissue is in an MR and a CT scan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Tissue(IntEnum):
    """One number per voxel of the painted anatomy."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    CORTICAL_BONE = 4
    MARROW = 5
    DISC = 6
    CSF = 7
    CORD = 8
    LUNG = 9
    AIRWAY_VESSEL = 10
    HEART = 11
    HEART_BLOOD = 12
    LIVER = 13
    LIVER_VESSEL = 14
    GALLBLADDER = 15
    SPLEEN = 16
    KIDNEY_CORTEX = 17
    KIDNEY_MEDULLA = 18
    RENAL_PELVIS = 19
    AORTA = 20
    AORTA_WALL = 21
    VEIN = 22
    ARTERY = 23
    STOMACH_WALL = 24
    STOMACH_CONTENT = 25
    BOWEL_WALL = 26
    BOWEL_CONTENT = 27
    FECES = 28
    GAS = 29
    PANCREAS = 30


@dataclass(frozen=True)
class Look:
    """How one tissue looks with one modality.

    Attributes:
        mean: brightness of the average patient; MR in arbitrary units, CT in Hounsfield units.
        spread: standard deviation of that brightness between patients.
        grain: standard deviation of the fine texture within the tissue.
        mottle: standard deviation of the coarse texture within the tissue.
        content: how far the brightness moves when the local content goes from 0 to 1 (bowel loops differ).
    """

    mean: float
    spread: float = 0.0
    grain: float = 0.0
    mottle: float = 0.0
    content: float = 0.0


# Fat-suppressed T2-weighted MR. Spleen, kidneys and bowel overlap each other, and liver overlaps pancreas and bowel wall.
MR = {
    Tissue.AIR: Look(0),
    Tissue.SKIN: Look(150, 30, 20, 20),
    Tissue.FAT: Look(72, 16, 12, 9),
    Tissue.MUSCLE: Look(150, 22, 22, 14),
    Tissue.CORTICAL_BONE: Look(40, 8, 10, 5),
    Tissue.MARROW: Look(215, 35, 24, 20),
    Tissue.DISC: Look(190, 60, 20, 40),
    Tissue.CSF: Look(930, 60, 20, 20),
    Tissue.CORD: Look(330, 40, 20, 20),
    Tissue.LUNG: Look(22, 6, 6, 8),
    Tissue.AIRWAY_VESSEL: Look(150, 30, 30, 30),
    Tissue.HEART: Look(190, 30, 35, 40),
    Tissue.HEART_BLOOD: Look(110, 50, 35, 60),
    Tissue.LIVER: Look(300, 45, 20, 20),
    Tissue.LIVER_VESSEL: Look(560, 60, 40, 30),
    Tissue.GALLBLADDER: Look(1000, 80, 15, 20),
    Tissue.SPLEEN: Look(610, 75, 22, 30),
    Tissue.KIDNEY_CORTEX: Look(630, 45, 28, 25),
    Tissue.KIDNEY_MEDULLA: Look(690, 40, 35, 35),
    Tissue.RENAL_PELVIS: Look(780, 150, 60, 80),
    Tissue.AORTA: Look(150, 70, 25, 50),
    Tissue.AORTA_WALL: Look(330, 60, 40, 40),
    Tissue.VEIN: Look(260, 110, 40, 90),
    Tissue.ARTERY: Look(230, 60, 40, 40),
    Tissue.STOMACH_WALL: Look(330, 40, 40, 40),
    Tissue.STOMACH_CONTENT: Look(620, 160, 60, 90),
    Tissue.BOWEL_WALL: Look(390, 50, 60, 50),
    Tissue.BOWEL_CONTENT: Look(330, 50, 60, 60, content=440),
    Tissue.FECES: Look(170, 40, 60, 70, content=250),
    Tissue.GAS: Look(10, 3),
    Tissue.PANCREAS: Look(370, 50, 45, 40),
}

# Contrast-enhanced CT in the portal venous phase. Liver, spleen, blood, pancreas and bowel wall overlap.
CT = {
    Tissue.AIR: Look(-1000),
    Tissue.SKIN: Look(5, 15, 20, 15),
    Tissue.FAT: Look(-103, 5, 5, 8),
    Tissue.MUSCLE: Look(58, 7, 10, 8),
    Tissue.CORTICAL_BONE: Look(480, 80, 90, 60),
    Tissue.MARROW: Look(190, 35, 50, 25),
    Tissue.DISC: Look(90, 12, 8, 8),
    Tissue.CSF: Look(20, 6, 5, 5),
    Tissue.CORD: Look(38, 5, 5, 5),
    Tissue.LUNG: Look(-850, 25, 30, 30),
    Tissue.AIRWAY_VESSEL: Look(20, 30, 60, 30),
    Tissue.HEART: Look(112, 12, 8, 8),
    Tissue.HEART_BLOOD: Look(165, 18, 6, 6),
    Tissue.LIVER: Look(110, 13, 4, 4),
    Tissue.LIVER_VESSEL: Look(160, 14, 5, 5),
    Tissue.GALLBLADDER: Look(12, 6, 3, 3),
    Tissue.SPLEEN: Look(122, 13, 4, 4),
    Tissue.KIDNEY_CORTEX: Look(185, 22, 7, 6),
    Tissue.KIDNEY_MEDULLA: Look(160, 22, 8, 8),
    Tissue.RENAL_PELVIS: Look(40, 50, 10, 10),
    Tissue.AORTA: Look(162, 22, 5, 4),
    Tissue.AORTA_WALL: Look(130, 20, 10, 10),
    Tissue.VEIN: Look(148, 18, 7, 14),
    Tissue.ARTERY: Look(150, 20, 10, 10),
    Tissue.STOMACH_WALL: Look(85, 10, 12, 8),
    Tissue.STOMACH_CONTENT: Look(60, 60, 22, 22),
    Tissue.BOWEL_WALL: Look(95, 12, 12, 10),
    Tissue.BOWEL_CONTENT: Look(20, 10, 15, 15, content=200),
    Tissue.FECES: Look(-60, 40, 70, 60, content=150),
    Tissue.GAS: Look(-950, 20),
    Tissue.PANCREAS: Look(95, 12, 14, 12),
}

LOOKS = {"MR": MR, "CT": CT}
