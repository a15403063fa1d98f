"""The Python packages that segmenting needs: asked for on the first Apply, never earlier."""

import importlib
import importlib.metadata
import importlib.util
import re
import subprocess
import sys

import slicer
from slicer.i18n import tr as _

from FewShotSegLib.errors import Cancelled, FewShotSegError

REQUESTER = "FewShotSeg"
TORCH = ">=2.4"
OLDEST_PYTHON = (3, 10)


class InstallError(FewShotSegError):
    """A package that is missing and could not be installed."""


def ensure_packages(requirements_file):
    """Make sure that everything can be imported; asks before anything is downloaded.

    Args:
        requirements_file: requirements.txt, without torch.

    Raises:
        Cancelled: the user declined.
        InstallError: no network, the PyTorch extension is missing, or Slicer is too old.
    """
    _check_python(sys.version_info[:2])
    if not torch_is_installed():
        _install_torch()
    missing = missing_packages(requirements_file)
    if missing:
        _install(missing)
    importlib.invalidate_caches()
    still = missing_packages(requirements_file) + ([] if torch_is_installed() else ["torch"])
    if still:
        raise InstallError(
            _("Missing after the installation: {names}").format(names=", ".join(still)),
            _("all packages installed"),
            _("restart Slicer and press Apply again"),
        )


def torch_is_installed():
    """Whether torch and torchvision can be imported; does not import them, because that takes seconds."""
    return all(importlib.util.find_spec(name) for name in ("torch", "torchvision"))


def missing_packages(requirements_file):
    """The lines of a requirements file that no installed distribution satisfies."""
    with open(requirements_file, encoding="utf-8") as file:
        lines = [line.split("#")[0].strip() for line in file]
    return [line for line in lines if line and not _is_satisfied(line)]


def _is_satisfied(requirement):
    name, _sign, least = requirement.partition(">=")
    try:
        return _numbers(importlib.metadata.version(name)) >= _numbers(least)
    except importlib.metadata.PackageNotFoundError:
        return False


def _numbers(version):
    """(1, 26) of "1.26.0rc1": trailing zeros and what follows the release number do not count."""
    release = [int(part) for part in re.match(r"[\d.]*", version).group().split(".") if part]
    while release and release[-1] == 0:
        release.pop()
    return tuple(release)


def _check_python(found):
    if found < OLDEST_PYTHON:
        raise InstallError(
            _("This Slicer has Python {version}").format(version="{}.{}".format(*found)),
            _("Python 3.10 or newer"),
            _("install Slicer 5.10 or newer"),
        )


def _install_torch():
    """Install torch through the PyTorch extension, which chooses the build that fits the GPU."""
    try:
        import PyTorchUtils
    except ImportError as error:
        raise InstallError(
            _("The PyTorch extension is not installed"),
            _("it, because only it finds the PyTorch that fits this computer's GPU"),
            _("open the Extensions Manager, install PyTorch, restart Slicer and press Apply again"),
        ) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    installed = _online(_("PyTorch"), lambda: logic.installTorch(askConfirmation=True, torchVersionRequirement=TORCH))
    if installed is None:
        raise Cancelled(_("PyTorch was not installed"), "", _("press Apply again when you want to install it"))


def _install(missing):
    """Install the other packages: with `slicer.packaging` where this Slicer has it."""
    names = ", ".join(missing)
    try:
        from slicer.packaging import pip_ensure
    except ImportError:
        question = _("FewShotSeg needs these Python packages: {names}. Download and install them now?").format(names=names)
        if not slicer.util.confirmOkCancelDisplay(question):
            raise _declined(names) from None
        _online(names, lambda: slicer.util.pip_install(missing))
        return
    try:
        _online(names, lambda: pip_ensure(missing, requester=REQUESTER))
    except RuntimeError as error:
        if "declined" not in str(error):  # what pip_ensure says when the user says no
            raise
        raise _declined(names) from error


def _declined(names):
    return Cancelled(
        _("These packages were not installed: {names}").format(names=names),
        "",
        _("press Apply again when you want to install them"),
    )


def _online(names, install):
    """What `install()` returns; a failed download as an InstallError that says how to go on without a network."""
    try:
        return install()
    except (OSError, subprocess.SubprocessError) as error:
        raise InstallError(
            _("{names} could not be installed: {error}").format(names=names, error=error),
            _("a connection to the internet, once"),
            _(
                "check network and proxy and press Apply again; after that FewShotSeg works offline. On a computer without"
                " network, copy the packages from another one and install them with: PythonSlicer -m pip install --no-index"
                " --find-links FOLDER torch torchvision {packages}"
            ).format(packages=names),
        ) from error
