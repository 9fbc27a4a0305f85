"""The default transport: the ``websockets`` library."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import CloseCode, Frame, Opcode

from bridge.binance.transport import ABNORMAL, USER_AGENT, hush, refused, unreachable, unusable
from bridge.binance.turns import BEHIND, turns
from bridge.errors import ConnectionLost

if TYPE_CHECKING:
    import ssl

    from websockets.protocol import Event

    from bridge.binance.transport import Inbox
    from bridge.core.connection_settings import ConnectionSettings

_MAX_FRAGMENTS = 4096
# Looked up for every frame, so not through the enum.
_TEXT, _BINARY, _CONTINUATION, _PING, _PONG = (
    Opcode.TEXT,
    Opcode.BINARY,
    Opcode.CONT,
    Opcode.PING,
    Opcode.PONG,
)


class _Connection(ClientConnection):
    """Hands over the messages of one read of the socket together.

    The library would queue each of them until ``recv`` asks for it, which costs as much as reading it did.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.closing = False
        self._inbox: Inbox | None = None  # as long as the handshake goes on
        self._batch: list[bytes] = []
        self._fragments: list[bytes] = []
        self._turns = turns()
        self._waits = False  # for its turn to read
        self._lost = False

    def deliver_to(self, inbox: Inbox) -> None:
        """Deliver what came already, and from now on what comes."""
        self._inbox = inbox
        self._flush()
        if self._lost:
            self._tell_end(inbox)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._batch:
            self._flush()

    def process_event(self, event: Event) -> None:
        if type(event) is not Frame:  # the handshake's response
            super().process_event(event)
            return
        opcode = event.opcode
        if (opcode is _TEXT or opcode is _BINARY) and event.fin:
            self._batch.append(bytes(event.data))
        elif opcode is _TEXT or opcode is _BINARY or opcode is _CONTINUATION:
            self._fragment(event)
        else:
            super().process_event(event)
            if self._inbox is not None and opcode is _PING:
                self._inbox.pinged()
            elif self._inbox is not None and opcode is _PONG:
                self._inbox.ponged()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._lost = True
        if self._inbox is not None:
            self._flush()
            self._tell_end(self._inbox)

    def _fragment(self, frame: Frame) -> None:
        """Take a part of a message; the library has seen to their order and to the size of the whole."""
        self._fragments.append(bytes(frame.data))
        if frame.fin:
            self._batch.append(b"".join(self._fragments))
            self._fragments = []
        elif len(self._fragments) > _MAX_FRAGMENTS:
            self._fragments = []
            self.protocol.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.send_data()

    def _flush(self) -> None:
        if self._inbox is None or not self._batch:
            return
        batch, self._batch = self._batch, []
        self._inbox.frames(batch)
        if len(batch) >= BEHIND and not self._waits and not self.transport.is_closing():
            self._waits = True
            self.transport.pause_reading()
            self._turns.wait(self._read_on)

    def _read_on(self) -> None:
        self._waits = False
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _tell_end(self, inbox: Inbox) -> None:
        closed = self.protocol.close_exc
        # The code of a close that the peer never answered says nothing of how it ended.
        frame = closed.rcvd or (None if self.closing else closed.sent)
        code, reason = (frame.code, frame.reason) if frame else (ABNORMAL, "no closing handshake")
        inbox.ended(code, reason)


class _Connect(connect):
    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow none: a redirect is no way to move a data feed."""
        return exc


class WebSocketsTransport:
    """One open WebSocket over ``websockets``."""

    def __init__(self, connection: _Connection, inbox: Inbox) -> None:
        self._connection = connection
        connection.deliver_to(inbox)

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
        self._connection.closing = True
        await self._connection.close(code, reason)

    def abort(self) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        self._connection.transport.abort()


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
            max_queue=None,  # nothing is queued there
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
