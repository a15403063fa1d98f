"""Rules that the repository as a whole keeps."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
MIB = 1 << 20
OWN = {"FewShotSegLib", "fewshotseg_training"}
BROUGHT = {"vtkmodules": "slicer-core"}  # import -> the dependency that pins the version of what provides it
TEXT = {".py", ".toml", ".md", ".txt", ".json", ".yaml", ".yml", ".cfg", ".ini", ".sh", ".cmake", ".pyx", ".html", ".lock", ""}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every file in version control, relative to the root; what is ignored or not yet added does not count."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    files = [Path(name) for name in listing.stdout.split("\0") if name]
    return [file for file in files if (ROOT / file).is_file()]


def toml(path: str) -> dict:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def distribution(requirement: str) -> str:
    """The normalised name in a requirement such as `Scikit_Image>=0.22`."""
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower().replace("_", "-")


def cmake_value(name: str) -> str:
    found = re.search(rf'^set\({name} "([^"]*)"\)', (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"CMakeLists.txt does not set {name}"
    return found.group(1)


def test_workspace_has_the_two_distributions() -> None:
    root, training = toml("pyproject.toml"), toml("training/pyproject.toml")
    assert root["project"]["name"] == "fewshotseg"
    assert root["project"]["scripts"] == {"fewshotseg": "FewShotSegLib.cli:main"}
    assert root["tool"]["uv"]["workspace"]["members"] == ["training"]
    assert training["project"]["name"] == "fewshotseg-training"
    assert training["project"]["scripts"] == {"fewshotseg-train": "fewshotseg_training.cli:main"}
    assert "fewshotseg" in training["project"]["dependencies"]
    assert root["project"]["version"] == training["project"]["version"]
    assert root["project"]["requires-python"] == training["project"]["requires-python"] == ">=3.10"


def test_lock_is_for_this_project_and_for_any_machine() -> None:
    lock = toml("uv.lock")
    packages = {package["name"]: package for package in lock["package"]}
    local = {name: package["source"] for name, package in packages.items() if "registry" not in package["source"]}
    assert local == {"fewshotseg": {"editable": "."}, "fewshotseg-training": {"editable": "training"}}
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert "file:" not in text
    assert not re.search(r'"(torch|torchvision)".*\n.*\+cpu', text)
    for path in ("pyproject.toml", "training/pyproject.toml"):
        project = toml(path)["project"]
        wanted = {distribution(requirement) for requirement in project["dependencies"]}
        assert wanted == {entry["name"] for entry in packages[project["name"]]["dependencies"]}, f"run `make lock` for {path}"


def imports_of(file: Path) -> set[str]:
    """First parts of every absolute import, at file scope or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize(("folder", "metadata"), [("FewShotSegLib", "pyproject.toml"), ("training", "training/pyproject.toml")])
def test_every_import_is_a_declared_dependency(tracked: list[Path], folder: str, metadata: str) -> None:
    project = toml(metadata)["project"]
    requirements = [*project["dependencies"], *sum(project.get("optional-dependencies", {}).values(), [])]
    declared = {distribution(requirement) for requirement in requirements} | {project["name"]}
    if folder == "training":
        declared |= {distribution(requirement) for requirement in toml(metadata)["build-system"]["requires"]}
    providers = {**packages_distributions(), **{name: [brought] for name, brought in BROUGHT.items()}}
    undeclared: dict[str, list[str]] = {}
    for file in (file for file in tracked if file.suffix == ".py" and file.parts[0] == folder):
        for name in imports_of(file) - set(sys.stdlib_module_names) - OWN:
            if not declared & {distribution(provider) for provider in providers.get(name, [name])}:
                undeclared.setdefault(name, []).append(str(file))
    assert undeclared == {}


def test_licence_is_apache_2_everywhere() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    for path in ("pyproject.toml", "training/pyproject.toml"):
        assert toml(path)["project"]["license"] == "Apache-2.0"


def test_changelog_names_this_version() -> None:
    version = toml("pyproject.toml")["project"]["version"]
    assert re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_makefile_has_the_promised_targets() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert targets >= {"setup", "demo", "test", "test-slow", "parity", "bench", "lint", "lock", "clean"}


def test_every_library_file_is_listed_for_slicer(tracked: list[Path]) -> None:
    listing = (ROOT / "FewShotSegLib" / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = re.findall(r"^\s+(\S+\.py)$", listing, re.MULTILINE)
    files = {
        file.relative_to("FewShotSegLib").as_posix()
        for file in tracked
        if file.match("*.py") and file.parts[0] == "FewShotSegLib"
    }
    missing = "\n".join(f"  {name}" for name in sorted(files - set(listed)))
    assert not missing, f"add to FewShotSegLib/CMakeLists.txt, or the installed extension lacks them:\n{missing}"
    gone = [name for name in listed if not (ROOT / "FewShotSegLib" / name).is_file()]
    assert not gone, f"remove from FewShotSegLib/CMakeLists.txt: {gone}"
    assert len(listed) == len(set(listed))


def test_extension_index_says_what_cmake_says() -> None:
    index = json.loads((ROOT / "FewShotSeg" / "FewShotSeg.json").read_text(encoding="utf-8"))
    assert index["category"] == cmake_value("EXTENSION_CATEGORY")
    assert index["build_dependencies"] == cmake_value("EXTENSION_DEPENDS").split()
    assert index["scm_revision"] == "main"
    assert index["scm_url"] == cmake_value("EXTENSION_HOMEPAGE")


def test_no_file_is_large(tracked: list[Path]) -> None:
    sizes = {file: (ROOT / file).stat().st_size for file in tracked}
    assert {file: size for file, size in sizes.items() if size > 20 * MIB} == {}
    assert sum(sizes.values()) < 100 * MIB


def test_no_patient_data_and_no_foreign_weights(tracked: list[Path]) -> None:
    forbidden = re.compile(r"_(image|label)\.nii(\.gz)?$|(resnet50v2|mobilenetv2)_imagenet|\.(dcm|pth|pt|pkl|pickle)$|\.venv/")
    assert [file for file in tracked if forbidden.search(file.as_posix())] == []


def test_no_path_of_a_machine(tracked: list[Path]) -> None:
    machine = re.compile(r"(?<![\w.])/(work|farm|root|home|Users|tmp)/\w|[A-Z]:\\\\?Users")
    here = Path(__file__).relative_to(ROOT)
    found = [
        f"{file}:{number}: {line.strip()[:100]}"
        for file in tracked
        if file.suffix in TEXT and file != here and "golden" not in file.parts
        for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), start=1)
        if machine.search(line)
    ]
    assert found == []


def test_library_never_unpickles(tracked: list[Path]) -> None:
    unsafe = re.compile(r"\bimport (pickle|dill|joblib)\b|\btorch\.(load|save)\(|allow_pickle\s*=\s*True|\byaml\.load\(")
    sources = [file for file in tracked if file.suffix == ".py" and file.parts[0] == "FewShotSegLib"]
    assert sources
    assert [file for file in sources if unsafe.search((ROOT / file).read_text(encoding="utf-8"))] == []


def test_library_stands_without_training_and_without_slicer(tracked: list[Path]) -> None:
    outside = re.compile(r"^\s*(?:from|import) (fewshotseg_training|slicer|qt|vtk|ctk)\b", re.MULTILINE)
    library = [file for file in tracked if file.suffix == ".py" and file.parts[0] == "FewShotSegLib" and "mrml" not in file.parts]
    found = {str(file): outside.findall((ROOT / file).read_text(encoding="utf-8")) for file in library}
    assert {file: names for file, names in found.items() if names} == {}
