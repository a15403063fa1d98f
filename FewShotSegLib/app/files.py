"""Files between the browser and a session: uploads with a limit, downloads of results and of the drawing."""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import BodyPartReader, web

from FewShotSegLib.app.nodes import labels_of
from FewShotSegLib.app.results import write
from FewShotSegLib.app.uploads import CHUNK, Budget, safe_name, save, unpack
from FewShotSegLib.errors import FewShotSegError, VolumeError
from FewShotSegLib.mrml import support_from_nodes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from FewShotSegLib.app.session_page import SessionPage

ROLES = ("support", "query", "drawing")
logger = logging.getLogger(__name__)


def file_routes(page: SessionPage) -> list[web.RouteDef]:
    """`POST upload/<role>` with a multipart body, `GET download/<result or "drawing">/<kind>`."""

    async def upload(request: web.Request) -> web.Response:
        role = request.match_info["role"]
        if role not in ROLES:
            return web.Response(status=404)
        folder = page.folder / f"upload-{secrets.token_hex(4)}"
        try:
            await receive(request, folder, page.config.upload_mb)
        except FewShotSegError as error:
            shutil.rmtree(folder, ignore_errors=True)
            page.say(str(error), "error")
            return web.json_response({"error": str(error)}, status=413 if "MB" in error.expected else 400)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        await page.loading.load(role, folder)
        return web.json_response({})

    async def download(request: web.Request) -> web.StreamResponse:
        try:
            path = await written(page, request.match_info["what"], request.match_info["kind"])
        except FewShotSegError as error:
            page.say(str(error), "error")
            return web.Response(status=400, text=str(error))
        return web.FileResponse(path, headers={"Content-Disposition": f'attachment; filename="{path.name}"'})

    return [web.post("/upload/{role}", upload), web.get("/download/{what}/{kind}", download)]


async def receive(request: web.Request, folder: Path, megabytes: float) -> None:
    """Write the files of a request into a new folder, zips unpacked.

    Raises:
        VolumeError: too much, a bad zip, or no file.
    """
    budget = Budget(megabytes)
    if request.content_length is not None and request.content_length > megabytes * 10**6 + CHUNK:
        budget.take(request.content_length)
    folder.mkdir(parents=True)
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader) or not part.filename:
            continue
        path = _free(folder, safe_name(part.filename))
        await save(_chunks(part), path, budget)
        if zipfile.is_zipfile(path):
            await asyncio.get_running_loop().run_in_executor(None, unpack, path, folder / f"unzipped-{path.stem}", megabytes)
    if not any(folder.iterdir()):
        raise VolumeError("No file came", "the files of a scan", "choose them again")


async def written(page: SessionPage, what: str, kind: str) -> Path:
    """The file to download.

    Raises:
        FewShotSegError: no such result, nothing drawn, cannot be written.
    """
    if what == "drawing":
        if page.support is None:
            raise VolumeError("No scan is loaded", "a drawing")
        found, series = labels_of(support_from_nodes(page.support.node, page.support_drawing)), page.support.series
        name = f"{page.support.name} drawing"
    else:
        result = next((result for result in page.running.results if result.id == what), None)
        if result is None:
            raise VolumeError("This result is gone", "a result of the list")
        found, series, name = result.current(), result.scan.series, f"{result.scan.name} segmented"
    folder = page.folder / f"download-{secrets.token_hex(4)}"
    folder.mkdir()
    return await asyncio.get_running_loop().run_in_executor(None, write, found, kind, folder, name, series)


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(CHUNK):
        yield chunk


def _free(folder: Path, name: str) -> Path:
    """A path in the folder that no file has yet."""
    path, number = folder / name, 1
    while path.exists():
        path, number = folder / f"{number}_{name}", number + 1
    return path
