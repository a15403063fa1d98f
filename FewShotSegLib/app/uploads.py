"""Files that come from the browser: how much may come, what is in a zip, and which of them are scans."""

from __future__ import annotations

import re
import zipfile
from collections.abc import AsyncIterable
from pathlib import Path, PurePosixPath
from typing import IO

from FewShotSegLib.errors import VolumeError
from FewShotSegLib.files import split_suffix

SCANS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
KNOWN = "NIfTI (.nii, .nii.gz), NRRD (.nrrd), MetaImage (.mha), DICOM files, or a zip of these"
BESIDE = (".raw", ".zraw", ".gz", ".txt", ".json", ".seg.nrrd")
"""What may lie beside a scan without being one."""
DRAWN = re.compile(r"(?:^|[-_. ])(?:labels?|labelmap|seg|segmentation|masks?|drawing)(?:[-_. ]|$)", re.IGNORECASE)
"""Names of files that hold a drawing, where others lie beside them."""
MB = 10**6
MOST_FILES = 20_000
CHUNK = 2**20


class Budget:
    """How many bytes may still come."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes
        self.left = int(megabytes * MB)

    def take(self, count: int) -> None:
        """Count bytes that came. Raises VolumeError when the limit is passed."""
        self.left -= count
        if self.left < 0:
            raise VolumeError(
                f"More than {self.megabytes:.0f} MB",
                f"at most {self.megabytes:.0f} MB at once, a zip counted unpacked",
                "send fewer or smaller files, or start the server with a higher --upload-mb",
            )


def safe_name(name: str) -> str:
    """A file name without folders and without characters that file systems or shells mind."""
    plain = re.sub(r"[^\w.+ -]", "_", PurePosixPath(name.replace("\\", "/")).name).strip(". ")
    return plain[-120:] or "file"


async def save(chunks: AsyncIterable[bytes], path: Path, budget: Budget) -> None:
    """Write what comes to a file, within the budget; nothing is left of a file that is refused."""
    try:
        with path.open("wb") as file:
            async for chunk in chunks:
                budget.take(len(chunk))
                file.write(chunk)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def unpack(path: Path, folder: Path, megabytes: float) -> None:
    """Write the files of a zip below `folder`, which keeps its folders under names of our own (0, 1, ...), and delete the zip.

    Raises:
        VolumeError: damaged, encrypted, with paths that lead outside, or with more files or bytes than may be.
    """
    folders: dict[str, Path] = {}
    budget = Budget(megabytes)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check_members(path, members)
            for number, member in enumerate(members):
                parent = str(PurePosixPath(member.filename).parent)
                if _is_hidden(member.filename):
                    continue
                place = folders.setdefault(parent, folder / str(len(folders)))
                place.mkdir(parents=True, exist_ok=True)
                name = safe_name(member.filename)
                target = place / (f"{number}_{name}" if (place / name).exists() else name)
                with archive.open(member) as source, target.open("wb") as file:
                    _copy(source, file, budget)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise VolumeError(
            f"{path.name} cannot be unpacked: {error}", "a zip file without a password", "zip the files again"
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_FILES:
        raise VolumeError(f"{path.name} holds {len(members)} files", f"at most {MOST_FILES}", "zip one series at a time")
    for member in members:
        parts = PurePosixPath(member.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0]:
            raise VolumeError(
                f"{path.name} holds a path that leads outside: {member.filename!r}", "plain paths", "zip the files again"
            )


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def _copy(source: IO[bytes], target: IO[bytes], budget: Budget) -> None:
    """Counts what really comes: the sizes that a zip declares may lie."""
    while chunk := source.read(CHUNK):
        budget.take(len(chunk))
        target.write(chunk)


def find_scans(folder: Path) -> list[Path]:
    """The scans below a folder: image files, and folders that hold anything else, which must be DICOM.

    Files that `find_drawings` takes for drawings are none.

    Raises:
        VolumeError: there is none.
    """
    files, drawings = _files(folder), set(find_drawings(folder))
    images = [path for path in files if _suffix(path) in SCANS and path not in drawings]
    series = sorted({path.parent for path in files if _suffix(path) not in (*SCANS, *BESIDE)})
    if not images and not series:
        raise VolumeError(f"No scan among {', '.join(path.name for path in files[:3]) or 'nothing'}", KNOWN, "choose a scan")
    return [*images, *series]


def find_drawings(folder: Path) -> list[Path]:
    """The drawings below a folder: .seg.nrrd files, and images with a name such as `01_label.nii.gz` beside other images."""
    files = _files(folder)
    images = [path for path in files if _suffix(path) in SCANS]
    named = [path for path in images if DRAWN.search(split_suffix(path)[0])]
    return [*(path for path in files if _suffix(path) == ".seg.nrrd"), *(named if len(named) < len(images) else [])]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _suffix(path: Path) -> str:
    return split_suffix(path)[1].lower()
