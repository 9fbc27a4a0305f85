"""The sockets of the request side: REST over HTTP, the WebSocket API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bridge.simulator import wire
from bridge.simulator.accounts.desk import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.asyncio.server import Server
    from websockets.http11 import Request, Response

    from bridge.model import Market
    from bridge.simulator.desk import Desk
    from bridge.simulator.hub import Doors
    from bridge.simulator.limits import Limits


async def listen_http(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve ``app``; return its runner and the port (``port`` itself, or a free one for 0)."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, int(runner.addresses[0][1])


def rest_app(market: Market, desk: Desk, now_ms: Callable[[], int]) -> web.Application:
    """Return the REST host of ``market``."""

    async def answer(request: web.Request) -> web.Response:
        address = request.remote or "127.0.0.1"
        asked = HttpRequest(
            request.method,
            request.path,
            urlsplit(request.raw_path).query,
            await request.text() if request.body_exists else "",
            request.headers.get("X-MBX-APIKEY"),
            address,
        )
        reply = desk.private_rest(market, asked, now_ms=now_ms())
        if reply is None:
            params = dict(request.query)
            reply = desk.rest(market, address, request.method, request.path, params, now_ms=now_ms())
        return web.Response(
            status=reply.status,
            body=reply.body,
            headers=reply.headers | {"Content-Type": "application/json;charset=UTF-8"},
        )

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    return app


class WsApi:
    """The WebSocket API host of one market."""

    def __init__(
        self, market: Market, desk: Desk, doors: Doors, limits: Limits, now_ms: Callable[[], int]
    ) -> None:
        self.market, self.desk, self.doors, self.limits, self.now_ms = market, desk, doors, limits, now_ms
        self.sockets: set[ServerConnection] = set()

    async def listen(self, host: str, port: int) -> Server:
        """Serve; port 0 finds a free one. Any path is taken for the API's."""
        return await serve(
            self._handle,
            host,
            port,
            process_request=self._admit,
            compression=None,
            ping_interval=self.limits.ping_seconds,
            ping_timeout=self.limits.pong_seconds,
            close_timeout=2,
            server_header=None,
        )

    async def shut_down(self, now_ms: int, seconds: float) -> None:
        """Announce the shutdown on every connection, then close it after ``seconds``."""
        sockets = list(self.sockets)
        for socket in sockets:
            await self._say(socket, wire.server_shutdown("ws_api", now_ms))
        await asyncio.sleep(seconds)
        await asyncio.gather(*(socket.close(1001) for socket in sockets))

    def _admit(self, socket: ServerConnection, _request: Request) -> Response | None:
        address = str(socket.remote_address[0])
        status = self.doors.refusal(self.market, address, socket.loop.time())
        status = status or self.desk.connect(self.market, address, self.now_ms()).status
        return None if status in (0, 200) else socket.respond(status, "")

    async def _handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = dict(parse_qsl(urlsplit(socket.request.path).query))
        show_limits = query.get("returnRateLimits", "true") != "false"
        address = str(socket.remote_address[0])
        outbox: asyncio.Queue[bytes | _Close] = asyncio.Queue()
        abort = socket.transport.abort
        session = self.desk.open_session(
            self.market, address, self.now_ms(), outbox.put_nowait, abort, show_limits=show_limits
        )
        self.sockets.add(socket)
        writing = asyncio.create_task(_write(socket, outbox))
        try:
            async for message in socket:
                text = message if isinstance(message, str) else message.decode(errors="replace")
                reply, status = self.desk.ws_api(session, text, now_ms=self.now_ms())
                outbox.put_nowait(reply)
                if status == 418:
                    outbox.put_nowait(_Close(1008, "IP banned"))
        except ConnectionClosed:
            pass
        finally:
            self.sockets.discard(socket)
            self.desk.close_session(session)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def _say(self, socket: ServerConnection, text: bytes) -> None:
        try:
            await socket.send(text.decode())
        except ConnectionClosed:
            self.sockets.discard(socket)


class _Close(NamedTuple):
    """Ends a connection once what is before it is sent."""

    code: int
    reason: str


async def _write(socket: ServerConnection, outbox: asyncio.Queue[bytes | _Close]) -> None:
    """Send answers and user events in the order they came."""
    while True:
        item = await outbox.get()
        try:
            if isinstance(item, _Close):
                await socket.close(item.code, item.reason)
                return
            await socket.send(item.decode())
        except ConnectionClosed:
            return
