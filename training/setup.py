"""Builds the one compiled module of the training package; everything else is declared in pyproject.toml."""

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Extension(
    "fewshotseg_training._felzenszwalb",
    ["fewshotseg_training/_felzenszwalb.pyx"],
    include_dirs=[numpy.get_include()],
    define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
    extra_compile_args=["-O3"],
)

setup(ext_modules=cythonize([CORE]))
