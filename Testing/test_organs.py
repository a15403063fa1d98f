"""Names, colours and terminology of organs."""

from __future__ import annotations

import slicerio
from pydicom.sr.codedict import codes

from FewShotSegLib import organs
from FewShotSegLib.organs import Organ

ABDOMEN = ("liver", "right kidney", "left kidney", "spleen", "gallbladder", "esophagus", "stomach", "pancreas")
VESSELS_AND_GLANDS = ("aorta", "inferior vena cava", "portal and splenic vein", "right adrenal gland", "left adrenal gland")
HEART = ("RV cavity", "LV myocardium", "LV cavity", "LV blood pool", "RV blood pool")
PROSTATE = ("peripheral zone", "transition zone")
CODE_OF_TISSUE = "85756007"


def parsed(name: str) -> dict:
    return slicerio.segmentation.terminology_entry_from_string(Organ(name, 1).terminology)


def test_liver_has_slicers_entry_and_colour() -> None:
    assert Organ("Liver", 5).terminology == (
        "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~SCT^10200004^Liver"
        "~^^~Anatomic codes - DICOM master list~^^~^^"
    )
    assert Organ("liver", 5).color == (221 / 255, 130 / 255, 101 / 255)


def test_side_is_the_type_modifier_wherever_it_stands_in_the_name() -> None:
    for name in ("left kidney", "Kidney, left", "kidney_left", "LEFT KIDNEY"):
        assert parsed(name)["type"] == ["SCT", "64033007", "Kidney"]
        assert parsed(name)["typeModifier"] == ["SCT", "7771000", "Left"]
    assert parsed("right kidney")["typeModifier"] == ["SCT", "24028007", "Right"]
    assert "typeModifier" not in parsed("kidneys")
    assert "typeModifier" not in parsed("left ventricle")


def test_unknown_name_is_tissue() -> None:
    for name in ("tumour 3", "", "left liver", "左腎"):
        assert parsed(name)["category"][1] == parsed(name)["type"][1] == CODE_OF_TISSUE


def test_every_organ_of_the_shared_data_sets_is_known() -> None:
    names = ABDOMEN + VESSELS_AND_GLANDS + HEART + PROSTATE
    assert [name for name in names if parsed(name)["type"][1] == CODE_OF_TISSUE] == []


def test_codes_are_those_of_the_dicom_standard() -> None:
    """Each code is in pydicom's SNOMED dictionary, under names that hold all words of ours."""
    meanings: dict[str, str] = {}
    for code in (getattr(codes.SCT, keyword) for keyword in codes.SCT.dir() if keyword.isidentifier()):
        meanings[code.value] = meanings.get(code.value, "") + " " + code.meaning.casefold()
    for known in {id(known.concept): known for known in organs._KNOWN.values()}.values():
        words = known.concept.meaning.casefold().split()
        assert all(word in meanings[known.concept.code] for word in words), known


def test_given_colour_and_terminology_are_kept() -> None:
    organ = Organ("liver", 1, (0.0, 0.0, 0.0), "a~b~c~d~e~f~g")
    assert (organ.color, organ.terminology) == ((0.0, 0.0, 0.0), "a~b~c~d~e~f~g")


def test_unknown_organs_have_colours_that_differ() -> None:
    colors = [Organ(f"label {label}", label).color for label in range(1, 13)]
    distances = [sum(abs(x - y) for x, y in zip(a, b, strict=True)) for i, a in enumerate(colors) for b in colors[:i]]
    assert min(distances) > 0.1
    assert all(0 <= value <= 1 for color in colors for value in color)
