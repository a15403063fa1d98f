"""The parts of the Slicer module FewShotSeg: `widget` the panel, `logic` what it does, `parameters` what it remembers,
`install` the packages it needs.

Only the standard library, qt, ctk, vtk and slicer are imported when Slicer starts; FewShotSegLib on first use.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("FewShotSegLib") is None:  # in a checkout the library lies beside the module's folder
    sys.path.append(str(Path(__file__).resolve().parents[2]))
