"""The stream servers of all markets: who subscribed to what, and the way of an event to them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bridge.simulator import wire
from bridge.simulator.connection import Client, Watched
from bridge.simulator.limits import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.asyncio.server import Server
    from websockets.http11 import Request, Response

    from bridge.model import Market
    from bridge.simulator.exchange import Emission, Exchange
    from bridge.simulator.limits import Limits

log = logging.getLogger("bridge.simulator")


class Doors:
    """Whether clients get in: the handshake limit of an address, and refusals that a fault asked for.

    Attributes:
        refuse: asked with the market; the HTTP status to refuse its next handshake with, or 0.
        reject: asked with the market; whether its next SUBSCRIBE is rejected.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._windows: dict[str, SlidingWindow] = {}
        self.refuse: Callable[[Market], int] = lambda _market: 0
        self.reject: Callable[[Market], bool] = lambda _market: False

    def refusal(self, market: Market, address: str, now: float) -> int:
        """Return the HTTP status to refuse a handshake with, or 0."""
        status = self.refuse(market)
        if status:
            return status
        window = self._windows.get(address)
        if window is None:
            window = self._windows[address] = SlidingWindow(
                self._limits.connects, self._limits.connects_seconds
            )
        return 0 if window.allow(now) else 429


class Hub:
    """Serves streams.

    Attributes:
        clients: the open connections by number.
        note: told of each connection that opens, subscribes or closes.
    """

    def __init__(
        self,
        exchange: Exchange,
        limits: Limits,
        error_form: wire.ErrorForm,
        doors: Doors,
        note: Callable[[dict[str, object]], None],
    ) -> None:
        self.exchange, self.limits, self.error_form, self.doors, self.note = (
            exchange,
            limits,
            error_form,
            doors,
            note,
        )
        self.clients: dict[int, Client] = {}
        self._subscribers: dict[tuple[Market, str], dict[int, Client]] = {}
        self._opened = 0

    async def listen(self, market: Market, host: str, port: int) -> Server:
        """Serve the streams of ``market``; port 0 finds a free one."""

        async def handle(socket: ServerConnection) -> None:
            await self._handle(market, socket)

        def admit(socket: ServerConnection, request: Request) -> Response | None:
            return self._admit(market, socket, request)

        return await serve(
            handle,
            host,
            port,
            process_request=admit,
            create_connection=Watched,
            compression=None,
            ping_interval=None,
            close_timeout=2,
            max_size=1 << 20,
            server_header=None,
        )

    def deliver(self, emission: Emission) -> None:
        """Queue an event for everyone who subscribed to its stream."""
        subscribers = self._subscribers.get((emission.market, emission.stream))
        if not subscribers:
            return
        frames: dict[tuple[bool, wire.TimeUnit], bytes] = {}
        for client in subscribers.values():
            form = (client.session.combined, client.target.unit)
            frame = frames.get(form)
            if frame is None:
                frame = frames[form] = wire.frame(wire.TEXT, message(emission, *form))
            client.queue(frame)

    def flush(self) -> None:
        """Write what is queued, to everyone."""
        for client in self.clients.values():
            client.flush()

    def backlog(self) -> int:
        """Return how many bytes wait for the slowest client that no fault holds."""
        return max((c.backlog for c in self.clients.values() if c.healthy), default=0)

    def _admit(self, market: Market, socket: ServerConnection, request: Request) -> Response | None:
        status = self.doors.refusal(market, str(socket.remote_address[0]), socket.loop.time())
        if status:
            return socket.respond(status, '{"code":-1003,"msg":"Too many requests"}' if status == 429 else "")
        target = wire.parse_target(market, request.path)
        return socket.respond(target.status, target.body) if isinstance(target, wire.Refusal) else None

    async def _handle(self, market: Market, socket: ServerConnection) -> None:
        assert isinstance(socket, Watched)
        client = self._open(market, socket)
        try:
            async for message in socket:
                text = message if isinstance(message, str) else message.decode(errors="replace")
                self._answer(client, text)
                client.answered()
        except ConnectionClosed:
            pass
        finally:
            self._closed(client)

    def _open(self, market: Market, socket: Watched) -> Client:
        assert socket.request is not None
        target = wire.parse_target(market, socket.request.path)
        assert isinstance(target, wire.Target)
        session = wire.Session(
            market=market,
            path=target.path,
            combined=target.combined,
            most_streams=self.limits.streams,
            error_form=self.error_form,
        )
        self._opened += 1
        client = self.clients[self._opened] = Client(self._opened, target, session, socket, self.limits)
        if target.listen_key is not None:
            client.listens = wire.listened(socket.request.path)
        # a private stream's URL may hold its key
        path = (
            urlsplit(socket.request.path).path if target.listen_key is None else f"/{target.path}/<listenKey>"
        )
        self.note({"connection": "opened", "id": client.number, "market": market, "path": path})
        session.accepts = lambda stream: self._track(client, stream)
        named = tuple(s for s in dict.fromkeys(target.streams) if wire.well_formed(s) and session.accepts(s))
        kept = named[: self.limits.streams]
        session.streams.update(dict.fromkeys(kept))
        self._subscribe(client, kept)
        return client

    def _track(self, client: Client, stream: str) -> bool:
        if not client.session.delivers(stream):
            return True
        return self.exchange.track(client.market, stream)

    def _answer(self, client: Client, text: str) -> None:
        rejected = '"SUBSCRIBE"' in text and self.doors.reject(client.market)
        self._carry_out(client, client.session.reject(text) if rejected else client.session.handle(text))

    def _carry_out(self, client: Client, outcome: wire.Outcome) -> None:
        self._subscribe(client, outcome.subscribed)
        for stream in outcome.unsubscribed:
            self._subscribers.get((client.market, stream), {}).pop(client.number, None)
        if outcome.reply is not None:
            client.send_text(outcome.reply)
            client.flush()
        if outcome.close is not None:
            client.close(*outcome.close)

    def _subscribe(self, client: Client, streams: tuple[str, ...]) -> None:
        for stream in streams:
            if client.session.delivers(stream):
                self._subscribers.setdefault((client.market, stream), {})[client.number] = client
        if streams:
            self.note({"connection": "subscribed", "id": client.number, "streams": list(streams)})

    def _closed(self, client: Client) -> None:
        self.clients.pop(client.number, None)
        for stream in client.session.streams:
            self._subscribers.get((client.market, stream), {}).pop(client.number, None)
        code = client.socket.close_code
        self.note({"connection": "closed", "id": client.number, "code": code, "messages": client.sent})


def message(emission: Emission, combined: bool, unit: wire.TimeUnit) -> bytes:
    """Return the message that carries ``emission`` on a combined or raw connection, in its time unit."""
    if unit == "MICROSECOND":
        data = wire.in_microseconds(emission.data)
        return wire.wrap(emission.stream, data) if combined else data
    if not combined:
        return emission.data
    return emission.text if emission.text is not None else wire.wrap(emission.stream, emission.data)
