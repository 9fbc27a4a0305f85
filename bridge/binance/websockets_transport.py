"""The default transport: the ``websockets`` library."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Opcode

from bridge.binance.transport import ABNORMAL, USER_AGENT, hush, refused, unreachable, unusable
from bridge.binance.turns import BEHIND, turns
from bridge.errors import ConnectionLost

if TYPE_CHECKING:
    import ssl

    from websockets.protocol import Event

    from bridge.binance.transport import Inbox
    from bridge.core.connection_settings import ConnectionSettings


class _Connection(ClientConnection):
    """Tells of pings and pongs, which ``recv`` keeps to itself."""

    inbox: Inbox | None = None

    def process_event(self, event: Event) -> None:
        super().process_event(event)
        opcode = getattr(event, "opcode", None)  # the first event is the handshake's response
        if self.inbox is not None and opcode is Opcode.PING:
            self.inbox.pinged()
        elif self.inbox is not None and opcode is Opcode.PONG:
            self.inbox.ponged()


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow none: a redirect is no way to move a data feed."""
        return exc


class WebSocketsTransport:
    """One open WebSocket over ``websockets``."""

    def __init__(self, connection: _Connection, inbox: Inbox) -> None:
        self._connection = connection
        self._inbox = inbox
        self._loop = asyncio.get_running_loop()
        self._turns = turns()
        self._batch: list[bytes] = []
        self._closing = False
        connection.inbox = inbox
        self._reader = self._loop.create_task(self._read(), name="websockets reader")

    async def send(self, payload: bytes) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        try:
            await self._connection.send(payload, text=True)
        except ConnectionClosed as error:
            raise ConnectionLost("the connection is closed") from error

    async def ping(self) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        try:
            answer = await self._connection.ping()
        except ConnectionClosed as error:
            raise ConnectionLost("the connection is closed") from error
        # Nobody awaits the pong: the inbox is told. Its loss must not be logged as "never retrieved".
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def close(self, code: int, reason: str) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        self._closing = True
        await self._connection.close(code, reason)
        await asyncio.shield(self._reader)

    def abort(self) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        self._connection.transport.abort()

    async def _read(self) -> None:
        # recv() doesn't give way while messages are there, so this gathers them before the flush runs: all, or many.
        try:
            while True:
                payload = await self._connection.recv(decode=False)
                if not self._batch:
                    self._loop.call_soon(self._flush)
                self._batch.append(payload)
                if len(self._batch) >= BEHIND:
                    self._flush()
                    await self._turns.turn()
        except ConnectionClosed as closed:
            self._flush()
            # The code of a close that the peer never answered says nothing of how it ended.
            frame = closed.rcvd or (None if self._closing else closed.sent)
            code, reason = (frame.code, frame.reason) if frame else (ABNORMAL, "no closing handshake")
            self._inbox.ended(code, reason)

    def _flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self._inbox.frames(batch)


async def open_websockets(
    url: str, inbox: Inbox, settings: ConnectionSettings, tls: ssl.SSLContext | None
) -> WebSocketsTransport:
    """See :class:`~bridge.binance.transport.Open`."""
    hush("websockets", "websockets.client")
    options: dict[str, Any] = {"ssl": tls} if tls is not None and url.startswith("wss:") else {}
    connection: ClientConnection | None = None
    try:
        connection = await _Connect(
            url,
            compression=None,
            user_agent_header=USER_AGENT,
            proxy=None,
            open_timeout=settings.open_seconds,
            ping_interval=None,  # the session pings: its pace counts them
            close_timeout=settings.close_seconds,
            max_size=settings.max_message_bytes,
            max_queue=settings.queue_frames,
            create_connection=_Connection,
            **options,
        )
    except InvalidStatus as error:
        raise refused(error.response.status_code, error.response.headers.get("Retry-After")) from None
    except InvalidURI:
        pass  # raised out here, as it repeats the URL, which may hold a listen key, and a context is kept
    except (OSError, TimeoutError, InvalidHandshake, EOFError) as error:
        raise unreachable(error) from error
    if connection is None:
        raise unusable()
    if not isinstance(connection, _Connection):  # create_connection above makes it one
        raise TypeError(type(connection).__name__)
    return WebSocketsTransport(connection, inbox)
