"""The front door: the token, other sites, one session for each visit, and what is passed on. The sessions are pretended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the page needs the extra 'app'")

from aiohttp import ClientSession, CookieJar, WSMsgType, web
from aiohttp.test_utils import TestServer

from FewShotSegLib.app.config import AppConfig
from FewShotSegLib.app.gateway import Gateway, serve
from FewShotSegLib.app.proxy import SECRET_HEADER
from FewShotSegLib.app.sessions import SessionPool
from FewShotSegLib.errors import OutputError

TOKEN = "a-token-for-tests"
LARGE = 2**23


class Alive:
    """A process that never ends by itself."""

    def is_alive(self) -> bool:
        return True

    def join(self, timeout: float | None = None) -> None: ...

    def kill(self) -> None: ...


class House:
    """A gateway and behind it a worker that answers with what it was sent."""

    def __init__(self) -> None:
        self.config = AppConfig(token=TOKEN, sessions=2)
        self.pool = SessionPool(self.config, self._start)
        self.seen: list[tuple[str, str, str]] = []
        self.ends: list[Any] = []
        worker = web.Application(client_max_size=LARGE)
        worker.add_routes([web.get("/ws", self._socket), web.route("*", "/{path:.*}", self._answer)])
        self.worker, self.server = TestServer(worker), TestServer(Gateway(self.config, self.pool).application())

    def _start(self, config: AppConfig, folder: Path, secret: str) -> tuple[Any, Any]:
        ours, theirs = Pipe()  # each session is started in a thread of its own
        theirs.send(self.worker.port)
        self.ends.append(theirs)
        return Alive(), ours

    async def _answer(self, request: web.Request) -> web.Response:
        self.seen.append((request.headers[SECRET_HEADER], request.path_qs, request.headers.get("Cookie", "")))
        return web.Response(text=f"{request.method} {request.path_qs} {await request.text()}")

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=LARGE)
        await socket.prepare(request)
        async for message in socket:
            await (socket.send_str if message.type == WSMsgType.TEXT else socket.send_bytes)(message.data)
        return socket

    async def visit(self, client: ClientSession) -> str:
        """Open the page; the path of the session."""
        async with client.get(self.server.make_url("/"), params={"token": TOKEN}, allow_redirects=False) as answer:
            assert answer.status == 303
            return answer.headers["Location"]


def within(body: Callable[[House, ClientSession], Awaitable[None]]) -> None:
    """Run a test between a house's beginning and its end."""

    async def whole() -> None:
        house = House()
        await house.worker.start_server()
        await house.server.start_server()
        async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as client:
            await body(house, client)
        await house.server.close()
        await house.worker.close()
        assert len(house.pool) == 0, "the end closes all sessions"

    asyncio.run(whole())


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/s/x/", f"/s/x/?token={TOKEN}"])
def test_without_the_token_nothing_is_shown(path: str) -> None:
    async def body(house: House, client: ClientSession) -> None:
        async with client.get(house.server.make_url(path)) as answer:
            assert answer.status == 403 and "needs its token" in await answer.text()
        assert len(house.pool) == 0

    within(body)


def test_the_token_opens_a_session_and_is_not_needed_again() -> None:
    async def body(house: House, client: ClientSession) -> None:
        async with client.get(house.server.make_url("/"), params={"token": TOKEN}, allow_redirects=False) as answer:
            assert re.fullmatch(r"/s/[\w-]{16}/", answer.headers["Location"])
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and TOKEN not in answer.headers["Location"]
        first = await house.visit(client)
        async with client.get(house.server.make_url(first + "page?a=1")) as answer:
            assert await answer.text() == "GET /page?a=1 "

    within(body)


def test_each_visit_has_a_session_and_no_more_than_may_be() -> None:
    async def body(house: House, client: ClientSession) -> None:
        assert await house.visit(client) != await house.visit(client)
        async with client.get(house.server.make_url("/")) as answer:
            assert answer.status == 503 and "2 pages are open" in await answer.text()

    within(body)


def test_requests_are_passed_on_with_the_secret_and_without_the_cookie() -> None:
    async def body(house: House, client: ClientSession) -> None:
        path = await house.visit(client)
        content = b"x" * 3_000_000
        async with client.post(house.server.make_url(path + "upload/support"), data=content) as answer:
            assert await answer.text() == f"POST /upload/support {content.decode()}"
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["Referrer-Policy"] == "no-referrer"
        (secret, where, cookie) = house.seen[-1]
        session = house.pool.get(path.split("/")[2])
        assert session is not None and secret == session.secret and where == "/upload/support" and cookie == ""

    within(body)


def test_sockets_carry_text_and_bytes() -> None:
    async def body(house: House, client: ClientSession) -> None:
        path = await house.visit(client)
        session = house.pool.get(path.split("/")[2])
        async with client.get(house.server.make_url(path)):  # waits until the session is ready
            pass
        async with client.ws_connect(house.server.make_url(path + "ws"), max_msg_size=LARGE) as socket:
            await socket.send_str("hello")
            assert (await socket.receive()).data == "hello"
            await socket.send_bytes(b"x" * 5_000_000)
            assert (await socket.receive()).data == b"x" * 5_000_000
            assert session is not None and session.sockets == 1
        while session.sockets:
            await asyncio.sleep(0.01)

    within(body)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_other_sites_are_refused_even_with_the_cookie(origin: str) -> None:
    async def body(house: House, client: ClientSession) -> None:
        path = await house.visit(client)
        for url in (house.server.make_url(path), house.server.make_url(path + "ws")):
            async with client.get(url, headers={"Origin": origin}) as answer:
                assert answer.status == 403 and "another site" in await answer.text()
        assert house.seen == []

    within(body)


def test_a_session_that_is_gone_says_so() -> None:
    async def body(house: House, client: ClientSession) -> None:
        path = await house.visit(client)
        async with client.get(house.server.make_url(path + "alive")) as answer:
            assert answer.status == 200
        house.pool.close_all()
        for where in ("", "alive", "page"):
            async with client.get(house.server.make_url(path + where)) as answer:
                assert answer.status == 410 and "session is closed" in await answer.text()

    within(body)


def test_asking_whether_it_is_alive_does_not_keep_a_session_open() -> None:
    async def body(house: House, client: ClientSession) -> None:
        path = await house.visit(client)
        session = house.pool.get(path.split("/")[2])
        assert session is not None
        session.used = 0.0
        async with client.get(house.server.make_url(path + "alive")):
            assert session.used == 0.0
        async with client.get(house.server.make_url(path + "page")):
            assert session.used > 0.0

    within(body)


def test_a_port_that_is_taken_is_told() -> None:
    async def body(house: House, client: ClientSession) -> None:
        config = AppConfig(token=TOKEN, port=house.server.port or 0)
        with pytest.raises(OutputError, match=f"port {house.server.port}") as refused:
            await serve(config, lambda address: None, house.pool)
        assert "--port" in refused.value.action

    within(body)
