"""In Slicer: every test of the module by itself, as ctest does, and the panel test; the exit code tells whether all passed."""

import sys
import unittest
from pathlib import Path

import slicer

sys.path.append(str(Path(__file__).resolve().parents[2] / "FewShotSeg" / "Testing" / "Python"))

suite = unittest.TestSuite(unittest.defaultTestLoader.loadTestsFromName(name) for name in ("FewShotSeg", "FewShotSegPanelTest"))
result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite)
passed = result.wasSuccessful() and result.testsRun > 0 and not result.skipped
slicer.util.exit(slicer.util.EXIT_SUCCESS if passed else slicer.util.EXIT_FAILURE)
