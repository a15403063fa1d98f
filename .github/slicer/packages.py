"""In Slicer, with the PyTorch extension: install what the first Apply would ask for."""

import traceback
from pathlib import Path

import slicer

REQUIREMENTS = Path(__file__).resolve().parents[2] / "FewShotSeg" / "Resources" / "requirements.txt"

status = slicer.util.EXIT_FAILURE
try:
    import PyTorchUtils

    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(forceComputationBackend="cpu", torchVersionRequirement=">=2.4")
    print("torch", torch.__version__)
    slicer.util.pip_install(f'-r "{REQUIREMENTS.as_posix()}"')
    status = slicer.util.EXIT_SUCCESS
except Exception:
    traceback.print_exc()
slicer.util.exit(status)
