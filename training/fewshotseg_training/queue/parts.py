"""Files as one stream in parts of a limited size, for machines that take or give only small files."""

from __future__ import annotations

import hashlib
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from FewShotSegLib.errors import ConfigError
from FewShotSegLib.files import atomic_path

MIB = 2**20
PART = re.compile(r"(?P<name>[\w.-]+)\.(?P<sum>[0-9a-f]{12})\.(?P<number>\d{3})-of-(?P<count>\d{3})")
AGAIN = "bring all parts of one pack, whole, and nothing else"


@contextmanager
def packed(members: Sequence[tuple[str, Path]]) -> Iterator[IO[bytes]]:
    """An anonymous tar file of (name in it, file) pairs, at its beginning. Times and owners are left out."""
    with tempfile.TemporaryFile() as whole:
        with tarfile.open(fileobj=whole, mode="w") as archive:
            for name, path in members:
                info = tarfile.TarInfo(name)
                info.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(info, file)
        whole.seek(0)
        yield whole


def write_parts(members: Sequence[tuple[str, Path]], folder: Path, name: str, limit: int) -> list[Path]:
    """Write (name in the pack, file) pairs as `NAME.SUM.000-of-003`, ..., each of at most `limit` bytes."""
    with packed(members) as whole:
        digest = hashlib.sha256()
        while chunk := whole.read(MIB):
            digest.update(chunk)
        count = -(-whole.tell() // limit)
        whole.seek(0)
        paths = [folder / f"{name}.{digest.hexdigest()[:12]}.{i:03}-of-{count:03}" for i in range(count)]
        for path in paths:
            with atomic_path(path) as part, part.open("wb") as file:
                for start in range(0, limit, MIB):
                    file.write(whole.read(min(MIB, limit - start)))
    return paths


def read_parts(files: Sequence[Path], folder: Path) -> list[Path]:
    """Unpack the parts of one pack, given in any order, below `folder`; returns the files written, each atomically.

    Raises:
        ConfigError: parts are missing or damaged, belong to several packs, or lead out of the folder.
    """
    found = sorted((m["name"], m["sum"], int(m["count"]), int(m["number"]), file) for m, file in _matched(files))
    if len({(name, checksum, count) for name, checksum, count, _, _ in found}) != 1:
        raise ConfigError(f"{len(found)} files that are not the parts of one pack", "NAME.SUM.000-of-003, ...", AGAIN)
    if [number for *_, number, _ in found] != list(range(found[0][2])):
        raise ConfigError(f"{len(found)} of the {found[0][2]} parts of {found[0][0]}", "all of them", AGAIN)
    with tempfile.TemporaryFile() as whole:
        digest = hashlib.sha256()
        for *_, file in found:
            with file.open("rb") as part:
                while chunk := part.read(MIB):
                    digest.update(chunk)
                    whole.write(chunk)
        if digest.hexdigest()[:12] != found[0][1]:
            raise ConfigError(f"The parts of {found[0][0]} are damaged", f"the checksum {found[0][1]}", AGAIN)
        whole.seek(0)
        return _unpacked(whole, folder)


def _matched(files: Sequence[Path]) -> Iterator[tuple[re.Match[str], Path]]:
    for file in files:
        match = PART.fullmatch(file.name)
        if match is not None:
            yield match, file


def _unpacked(whole: IO[bytes], folder: Path) -> list[Path]:
    written = []
    with tarfile.open(fileobj=whole, mode="r") as archive:
        for info in archive:
            source, name = archive.extractfile(info), PurePosixPath(info.name)
            if source is None or name.is_absolute() or ".." in name.parts:
                raise ConfigError(f"The pack holds {info.name}", "plain files inside its folder", AGAIN)
            with atomic_path(folder / name) as part, part.open("wb") as file:
                while chunk := source.read(MIB):
                    file.write(chunk)
            written.append(folder / name)
    return written
