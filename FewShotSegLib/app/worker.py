"""The process of one session: a trame server on a port of its own, which only the gateway can use."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from aiohttp import web
from trame_server import Server

from FewShotSegLib.app import page
from FewShotSegLib.app.access import same_secret
from FewShotSegLib.app.config import AppConfig
from FewShotSegLib.app.files import file_routes
from FewShotSegLib.app.proxy import SECRET_HEADER
from FewShotSegLib.app.session_page import SessionPage
from FewShotSegLib.resources import resource_dir


def run_session(config: AppConfig, folder: Path, secret: str, pipe: Connection) -> None:
    """Serve one session until the gateway closes its end of the pipe; tells it the port first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's
    sys.argv = ["fewshotseg"]  # trame reads the command line
    os.environ["WSLINK_READY_MSG"] = ""
    os.environ["WSLINK_MAX_MSG_SIZE"] = str(2**24)
    asyncio.set_event_loop(asyncio.new_event_loop())
    server = make_server(config, folder, secret)
    server.controller.on_server_ready.add(lambda **_: pipe.send(server.port))
    threading.Thread(target=_end_with_gateway, args=(pipe, server.session.close), daemon=True).start()
    server.start(
        port=0, host="127.0.0.1", open_browser=False, show_connection_info=False, disable_logging=True, timeout=0, thread=True
    )


def make_server(config: AppConfig, folder: Path, secret: str) -> Any:
    """A trame server with one session's page, which answers only requests that carry the secret. Attribute: `session`."""
    server = Server(name=folder.name)
    server.client_type = "vue3"
    server.enable_module(
        {
            "serve": {"__fewshotseg": str(resource_dir("app"))},
            "scripts": ["__fewshotseg/page.js"],
            "styles": ["__fewshotseg/page.css"],
        }
    )
    session = server.session = SessionPage(server, config, folder)
    page.build(session)

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        if not same_secret(request.headers.get(SECRET_HEADER), secret):
            return web.Response(status=403)
        return await handler(request)

    def prepare(wslink_server: Any) -> None:
        wslink_server.app.middlewares.append(guard)
        wslink_server.app.add_routes(file_routes(session))

    server.controller.on_server_bind.add(prepare)
    return server


def _end_with_gateway(pipe: Connection, close: Any) -> None:
    try:
        pipe.recv()
    except (EOFError, OSError):
        close()
        os._exit(0)
