"""Passing a browser's requests and WebSocket on to the process of its session, and the answers back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

from FewShotSegLib.app.sessions import Session

if TYPE_CHECKING:
    Socket: TypeAlias = web.WebSocketResponse[Any] | ClientWebSocketResponse[Any]

SECRET_HEADER = "X-FewShotSeg-Session"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "host"}
LARGEST_MESSAGE = 64 * 2**20
CHUNK = 2**18


async def forward(request: web.Request, session: Session, client: ClientSession, path: str) -> web.StreamResponse:
    """Answer a request with what the session's process answers."""
    url = f"http://127.0.0.1:{session.port}/{path}"
    if request.headers.get("Upgrade", "").lower() == "websocket":
        return await _forward_socket(request, session, client, url)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP | {"cookie"}}
    headers[SECRET_HEADER] = session.secret
    body = request.content.iter_chunked(CHUNK) if request.can_read_body else None
    asked = client.request(request.method, url, params=request.query, headers=headers, data=body, allow_redirects=False)
    async with asked as answer:
        kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP}
        response = web.StreamResponse(status=answer.status, headers=kept)
        await response.prepare(request)
        async for chunk in answer.content.iter_chunked(CHUNK):
            session.touch()
            await response.write(chunk)
        await response.write_eof()
        return response


async def _forward_socket(request: web.Request, session: Session, client: ClientSession, url: str) -> web.StreamResponse:
    browser = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, heartbeat=30)
    await browser.prepare(request)
    session.sockets += 1
    try:
        headers = {SECRET_HEADER: session.secret}
        async with client.ws_connect(url, headers=headers, max_msg_size=LARGEST_MESSAGE) as worker:
            ways = [asyncio.create_task(_pump(browser, worker, session)), asyncio.create_task(_pump(worker, browser, session))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
    finally:
        session.sockets -= 1
        await browser.close()
    return browser


async def _pump(source: Socket, target: Socket, session: Session) -> None:
    """Carry messages until either side closes."""
    async for message in source:
        session.touch()
        if message.type == WSMsgType.TEXT:
            await target.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await target.send_bytes(message.data)
