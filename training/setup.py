"""Builds the one compiled module of the training package; everything else is declared in pyproject.toml."""

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

CORE = Extension(
    "fewshotseg_training._felzenszwalb",
    ["fewshotseg_training/_felzenszwalb.pyx"],
    extra_compile_args=["-O3"],
)
HELP = (
    "The supervoxels of fewshotseg-training are compiled, and that failed: {}. Expected: a working C++ compiler. "
    "What to do: install one (Debian, Ubuntu: apt install g++; macOS: xcode-select --install; Windows: Visual Studio Build "
    "Tools) and install the package again."
)


class Build(build_ext):
    """Says what to do when there is no compiler."""

    def run(self) -> None:
        """Build, or stop with the help."""
        try:
            super().run()
        except (CCompilerError, ExecError, PlatformError) as error:
            raise SystemExit(HELP.format(error)) from error


setup(ext_modules=cythonize([CORE]), cmdclass={"build_ext": Build})
