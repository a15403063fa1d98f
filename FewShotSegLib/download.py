"""Files from the network: verified before they appear, kept in a cache, never asked for twice."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from FewShotSegLib.errors import FewShotSegError
from FewShotSegLib.files import atomic_path

CHUNK = 1 << 18
TIMEOUT_SECONDS = 30.0

DownloadProgress = Callable[[int, "int | None"], None]
"""Called with the bytes received so far and their total, None where the server does not tell it."""


class DownloadError(FewShotSegError):
    """A file that could not be fetched, or that is not the file it should be."""


def default_cache_dir() -> Path:
    """The folder in `FEWSHOTSEG_CACHE`, or else the platform's cache folder of the user. It may not exist yet."""
    chosen = os.environ.get("FEWSHOTSEG_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path  # only here: a machine that just trains may lack it

    return user_cache_path("fewshotseg", appauthor=False)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's content, as 64 lower-case hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def cached_path(url: str, sha256: str, cache_dir: str | Path) -> Path:
    """Where `fetch` keeps this file: files of one name and different content lie side by side."""
    name = Path(unquote(urlsplit(url).path)).name or "download"
    return Path(cache_dir) / sha256.lower()[:16] / name


def fetch(
    url: str,
    sha256: str,
    *,
    cache_dir: str | Path,
    progress: DownloadProgress | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> Path:
    """The file at `url` as a local path; downloaded only when the cache does not hold it already.

    The file appears in the cache complete and with the right SHA-256, or not at all. `timeout` (seconds) is for each
    wait on the network, not for the whole transfer.

    Raises:
        DownloadError: no network, the server refuses, the transfer breaks off, or the content has another SHA-256.
        OutputError: the cache folder cannot be written to.
    """
    target = cached_path(url, sha256, cache_dir)
    if target.is_file() and sha256_of(target) == sha256.lower():
        return target
    with atomic_path(target) as temporary:
        digest = hashlib.sha256()
        with temporary.open("wb") as file:
            for chunk in _received(url, target, timeout, progress):
                file.write(chunk)
                digest.update(chunk)
        _check_digest(url, digest.hexdigest(), sha256.lower())
    return target


def _received(url: str, target: Path, timeout: float, progress: DownloadProgress | None) -> Iterator[bytes]:
    """The content of `url`, piece by piece; whatever the network does wrong comes out as a DownloadError."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise DownloadError(f"The address {url}", "one that begins with https:// or http://", "correct the address")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            done = 0
            while chunk := response.read(CHUNK):
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
                yield chunk
    except urllib.error.HTTPError as error:
        raise _refused(url, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, target, str(getattr(error, "reason", error))) from error
    if total is not None and done != total:
        raise _broken_off(url, done, total)


def _check_digest(url: str, found: str, expected: str) -> None:
    if found != expected:
        raise DownloadError(
            f"The file at {url} has SHA-256 {found}",
            f"SHA-256 {expected}",
            "update this software, or tell its maintainers: the file was replaced or damaged; it was not kept",
        )


def _refused(url: str, error: urllib.error.HTTPError) -> DownloadError:
    return DownloadError(
        f"The server answered {error.code} ({error.reason}) for {url}",
        "the file",
        "update this software: its address may have changed; or try again later",
    )


def _unreachable(url: str, target: Path, reason: str) -> DownloadError:
    return DownloadError(
        f"Cannot download {url}: {reason}",
        "a connection to the network",
        f"connect and run again; or download the file on another computer and put it at {target}",
    )


def _broken_off(url: str, done: int, total: int) -> DownloadError:
    return DownloadError(f"The download of {url} broke off after {done} of {total} bytes", "all of them", "run again")
