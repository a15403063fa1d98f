"""Which packages the wheel holds; everything else is declared in pyproject.toml.

`Resources/` stands beside the library in the repository and inside it in a wheel (see FewShotSegLib/resources.py).
"""

from setuptools import find_namespace_packages, find_packages, setup

RESOURCES = [f"FewShotSegLib.{name}" for name in find_namespace_packages(include=["Resources", "Resources.*"])]

setup(
    packages=[*find_packages(include=["FewShotSegLib", "FewShotSegLib.*"]), *RESOURCES],
    package_dir={"FewShotSegLib.Resources": "Resources"},
    package_data={name: ["*"] for name in RESOURCES},
    include_package_data=False,
)
