"""The front door: checks the token, opens a session for each visit, and passes everything on to the session's process."""

from __future__ import annotations

import asyncio
import html
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from aiohttp import ClientSession, ClientTimeout, web

from FewShotSegLib.app.access import address, same_origin, same_secret
from FewShotSegLib.app.config import AppConfig
from FewShotSegLib.app.proxy import forward
from FewShotSegLib.app.sessions import SessionPool, preload
from FewShotSegLib.errors import ConfigError, OutputError
from FewShotSegLib.resources import resource_dir

CHECK_IDLE_S = 10.0
POOL: web.AppKey[SessionPool] = web.AppKey("pool", SessionPool)
CLIENT: web.AppKey[ClientSession] = web.AppKey("client", ClientSession)
# The browser itself then refuses to load from, or to send to, any other machine. Vue compiles the page's templates: unsafe-eval.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; connect-src 'self' blob: data:; "
    "form-action 'self'; frame-ancestors 'none'"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """The routes: `/` opens a session, `/s/<session>/...` belongs to it."""

    def __init__(self, config: AppConfig, pool: SessionPool | None = None) -> None:
        self.config = config
        self.pool = SessionPool(config) if pool is None else pool  # an empty pool is falsy
        self.cookie = f"fewshotseg_{config.port}"  # the ports of one computer share their cookies

    def application(self) -> web.Application:
        """The server's application."""
        app = web.Application(middlewares=[self._guard], client_max_size=0)
        app[POOL] = self.pool
        app.cleanup_ctx.append(self._life)
        app.on_response_prepare.append(_secure)
        app.add_routes([web.get("/", self._enter), web.get("/s/{session}", self._slash)])
        app.add_routes([web.route("*", "/s/{session}/{path:.*}", self._pass)])
        return app

    async def _life(self, app: web.Application) -> AsyncIterator[None]:
        app[CLIENT] = ClientSession(timeout=ClientTimeout(total=None), auto_decompress=False)
        watch = asyncio.create_task(self._watch())
        yield
        watch.cancel()
        await app[CLIENT].close()
        await asyncio.get_running_loop().run_in_executor(None, self.pool.close_all)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_IDLE_S)
            await asyncio.get_running_loop().run_in_executor(None, self.pool.close_idle)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Nobody without the token; nothing asked for by another site."""
        if not self._is_known(request):
            return _message(403, "This page needs its token", "Open the whole address that `fewshotseg app` printed.")
        if not same_origin(request.headers.get("Origin"), request.headers.get("Host")):
            return _message(403, "Refused", "This request came from another site.")
        return await handler(request)

    def _is_known(self, request: web.Request) -> bool:
        if request.path == "/" and same_secret(request.query.get("token"), self.config.token):
            return True
        return same_secret(request.cookies.get(self.cookie), self.config.token)

    async def _enter(self, request: web.Request) -> web.StreamResponse:
        """Every visit gets a session of its own."""
        try:
            session = self.pool.open()
        except ConfigError as error:
            return _message(503, error.found, error.action)
        response = web.Response(status=303, headers={"Location": f"/s/{session.id}/"})
        response.set_cookie(self.cookie, self.config.token, httponly=True, samesite="Lax", secure=self.config.https)
        return response

    async def _slash(self, request: web.Request) -> web.StreamResponse:
        raise web.HTTPSeeOther(f"/s/{request.match_info['session']}/")

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        session = self.pool.get(request.match_info["session"])
        if session is None:
            return _message(410, "This session is closed", "It was idle for long, or ended.", link="/")
        path = request.match_info["path"]
        if path == "alive":
            return web.Response(text="yes")
        session.touch()
        if path == "" and session.port is None and await session.ready(0.5) is None:
            return _message(200, "Opening…", "Loading the viewer takes a few seconds.", refresh=True)
        if await session.ready() is None:
            return _message(502, "The session did not start", "The terminal of the server says why.", link="/")
        return await forward(request, session, request.app[CLIENT], path)


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    """Headers on every answer."""
    response.headers.setdefault("Content-Security-Policy", POLICY)
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")


def _message(status: int, title: str, text: str, *, link: str = "", refresh: bool = False) -> web.Response:
    """A small page that says one thing."""
    page = (resource_dir("app") / "message.html").read_text(encoding="utf-8")
    action = f'<p><a href="{html.escape(link)}">Open a new one</a></p>' if link else ""
    again = '<meta http-equiv="refresh" content="1">' if refresh else ""
    for mark, content in (("TITLE", html.escape(title)), ("TEXT", html.escape(text)), ("LINK", action), ("REFRESH", again)):
        page = page.replace(f"<!--{mark}-->", content)
    return web.Response(status=status, text=page, content_type="text/html")


async def serve(config: AppConfig, ready: Callable[[str], None], pool: SessionPool | None = None) -> None:
    """Serve until cancelled; `ready` is told the address to open.

    Raises:
        OutputError: the port is taken or may not be used.
    """
    runner = web.AppRunner(Gateway(config, pool).application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.host, config.port, ssl_context=_encryption(config))
        try:
            await site.start()
        except OSError as error:
            raise OutputError(
                f"Cannot listen on {config.host}, port {config.port}: {error.strerror or error}",
                "a free port",
                "choose another --port",
            ) from error
        ready(address(config.host, runner.addresses[0][1], config.token, config.https))
        preload()
        await _stopped()
    finally:
        await runner.cleanup()


async def _stopped() -> None:
    """Wait for Ctrl-C or a request to end; the sessions are then closed in good order."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _encryption(config: AppConfig) -> ssl.SSLContext | None:
    if config.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.certificate, config.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{config.certificate}: {error}", "a PEM certificate and its key", "correct the files") from error
    return context
