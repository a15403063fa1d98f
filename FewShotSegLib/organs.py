"""Organ: a name, a label number, and what Slicer shows with them: a colour and a terminology entry."""

from __future__ import annotations

import colorsys
import re
from dataclasses import dataclass
from typing import NamedTuple

Color = tuple[float, float, float]

BY_NAME: Color = (-1.0, -1.0, -1.0)
"""Colour that stands for "choose one by the organ's name"."""


@dataclass(frozen=True)
class Organ:
    """One organ of a drawing or of a result.

    Left out, `color` (red, green, blue in 0..1) and `terminology` (Slicer's TerminologyEntry string) are chosen by `name`.
    """

    name: str
    label: int
    color: Color = BY_NAME
    terminology: str = ""

    def __post_init__(self) -> None:
        if self.color == BY_NAME:
            object.__setattr__(self, "color", default_color(self.name, self.label))
        if not self.terminology:
            object.__setattr__(self, "terminology", default_terminology(self.name))


def default_color(name: str, label: int) -> Color:
    """Colour of Slicer's general anatomy list where the name is known, else one of a series of well separated hues."""
    known = _find(name)
    if known:
        red, green, blue = known.concept.rgb
        return red / 255, green / 255, blue / 255
    golden_ratio = 0.618034
    return colorsys.hsv_to_rgb((0.55 + label * golden_ratio) % 1, 0.65, 0.95)


def default_terminology(name: str) -> str:
    """Slicer's TerminologyEntry of an organ by its name; the entry "Tissue" for a name that is not known.

    Format: context ~ category ~ type ~ type modifier ~ anatomic context ~ region ~ region modifier, each code being
    scheme^value^meaning (Slicer developer guide, Segmentations, "TerminologyEntry tag").
    """
    category, concept, side = _find(name) or _UNKNOWN
    kind = f"SCT^{concept.code}^{concept.meaning}"
    return f"{_CONTEXT}~{category}~{kind}~{_SIDES.get(side, '^^')}~Anatomic codes - DICOM master list~^^~^^"


class _Concept(NamedTuple):
    code: str
    meaning: str
    rgb: tuple[int, int, int]
    names: str


class _Known(NamedTuple):
    category: str
    concept: _Concept
    side: str = ""


_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_STRUCTURE = "SCT^123037004^Anatomical Structure"
_TISSUE = "SCT^85756007^Tissue"
_SIDES = {"left": "SCT^7771000^Left", "right": "SCT^24028007^Right"}

# SNOMED CT codes, meanings and colours as in Slicer's general anatomy list. Slicer's list has no vessels but the aorta, no
# atria, no myocardium and no prostate zones: these have the codes of DICOM PS3.16 and colours of our own.
_STRUCTURES = (
    _Concept("10200004", "Liver", (221, 130, 101), "liver"),
    _Concept("78961009", "Spleen", (157, 108, 162), "spleen"),
    _Concept("15776009", "Pancreas", (249, 180, 111), "pancreas"),
    _Concept("28231008", "Gallbladder", (139, 150, 98), "gallbladder|gall bladder"),
    _Concept("69695003", "Stomach", (216, 132, 105), "stomach"),
    _Concept("38848004", "Duodenum", (255, 253, 229), "duodenum"),
    _Concept("30315005", "Small Intestine", (205, 167, 142), "small bowel|small intestine"),
    _Concept("71854001", "Colon", (204, 168, 143), "colon"),
    _Concept("32849002", "Esophagus", (211, 171, 143), "esophagus|oesophagus"),
    _Concept("89837001", "Bladder", (222, 154, 132), "urinary bladder|bladder"),
    _Concept("41216001", "Prostate", (230, 158, 140), "prostate"),
    _Concept("279706003", "Peripheral zone of the prostate", (111, 184, 210), "peripheral zone|prostate peripheral zone"),
    _Concept("399384005", "Transition zone of the prostate", (244, 190, 90), "transition zone|prostate transition zone"),
    _Concept("35039007", "Uterus", (255, 181, 158), "uterus"),
    _Concept("80891009", "Heart", (206, 110, 84), "heart"),
    _Concept("87878005", "Left Ventricle", (152, 55, 13), "left ventricle|lv|lv cavity|lv blood pool"),
    _Concept("53085002", "Right Ventricle", (181, 85, 57), "right ventricle|rv|rv cavity|rv blood pool"),
    _Concept("82471001", "Left atrium", (214, 120, 150), "left atrium|la"),
    _Concept("73829009", "Right atrium", (120, 130, 200), "right atrium|ra"),
    _Concept("49848007", "Myocardium of left ventricle", (240, 190, 150), "lv myocardium|left ventricular myocardium|myocardium"),
    _Concept("15825003", "Aorta", (224, 97, 76), "aorta"),
    _Concept("81040000", "Pulmonary artery", (0, 122, 171), "pulmonary artery"),
    _Concept("64131007", "Inferior vena cava", (0, 151, 206), "inferior vena cava|ivc|postcava"),
    _Concept("48345005", "Superior vena cava", (60, 180, 225), "superior vena cava|svc"),
    _Concept("32764006", "Portal vein", (0, 106, 153), "portal vein"),
    _Concept("44567001", "Trachea", (182, 228, 255), "trachea"),
    _Concept("69748006", "Thyroid", (62, 162, 114), "thyroid|thyroid gland"),
    _Concept("12738006", "Brain", (250, 250, 225), "brain"),
    _Concept("2748008", "Spinal cord", (244, 214, 49), "spinal cord"),
    _Concept("421060004", "Spine", (226, 202, 134), "spine|vertebral column"),
)
_PAIRED_STRUCTURES = (
    _Concept("64033007", "Kidney", (185, 102, 83), "kidney"),
    _Concept("23451007", "Adrenal gland", (249, 186, 150), "adrenal gland|adrenal"),
    _Concept("39607008", "Lung", (197, 165, 145), "lung"),
    _Concept("15497006", "Ovary", (213, 141, 113), "ovary"),
)
_TISSUES = (
    _Concept("51114001", "Artery", (216, 101, 79), "artery"),
    _Concept("29092000", "Vein", (0, 130, 180), "vein|portal and splenic vein|portal vein and splenic vein"),
    _Concept("272673000", "Bone", (241, 214, 145), "bone"),
    _Concept("71616004", "Muscle", (192, 104, 88), "muscle"),
    _Concept("248300009", "Body fat", (230, 220, 70), "fat"),
)
_UNKNOWN = _Known(_TISSUE, _Concept("85756007", "Tissue", (128, 174, 128), "tissue"))


def _by_name(category: str, concepts: tuple[_Concept, ...]) -> dict[str, _Known]:
    return {name: _Known(category, concept) for concept in concepts for name in concept.names.split("|")}


_PAIRED = _by_name(_STRUCTURE, _PAIRED_STRUCTURES)
_KNOWN = _PAIRED | _by_name(_STRUCTURE, _STRUCTURES) | _by_name(_TISSUE, _TISSUES)


def _find(name: str) -> _Known | None:
    """What is known of a name, whatever its case, underscores, plural, and the place of "left" or "right" in it."""
    words = re.sub(r"[\W_]+", " ", name.casefold()).split()
    whole = " ".join(words)
    if whole in _KNOWN:
        return _KNOWN[whole]
    sides = [word for word in words if word in _SIDES]
    organ = " ".join(word for word in words if word not in _SIDES)
    if len(sides) == 1 and organ in _PAIRED:
        return _PAIRED[organ]._replace(side=sides[0])
    return _PAIRED.get(whole.removesuffix("s"))
