"""The fast transport: ``picows``, an optional extra. It hands over raw frames; the rest is ours."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from picows import (
    WSCloseCode,
    WSError,
    WSHandshakeError,
    WSInvalidURL,
    WSListener,
    WSMsgType,
    WSProtocolError,
    ws_connect,
)

from bridge.binance.transport import ABNORMAL, USER_AGENT, hush, refused, unreachable, unusable
from bridge.binance.turns import BEHIND, turns
from bridge.errors import ConnectionLost

if TYPE_CHECKING:
    import ssl

    from picows import WSFrame, WSTransport

    from bridge.binance.transport import Inbox
    from bridge.core.connection_settings import ConnectionSettings

_MAX_FRAGMENTS = 4096
_CONTROL_MAX_BYTES = 125  # RFC 6455, 5.5; picows refuses longer ones
# Looked up for every frame, so not through the enum.
_TEXT, _PING, _PONG, _CLOSE = WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE


class PicowsTransport(WSListener):
    """One WebSocket over ``picows``: the listener of its frames and the handle to send."""

    def __init__(self, inbox: Inbox, settings: ConnectionSettings) -> None:
        super().__init__()
        #: Nobody waits for the handshake any more; picows itself would go on with it.
        self.abandoned = False
        self._inbox = inbox
        self._max_bytes = settings.max_message_bytes
        self._close_seconds = settings.close_seconds
        self._loop = asyncio.get_running_loop()
        self._turns = turns()
        self._waits = False  # for its turn to read
        self._batch: list[bytes] = []
        self._fragments: list[bytes] = []
        self._fragmented = False
        self._fragment_bytes = 0
        self._ended = False
        self._closing = False
        self._socket: WSTransport | None = None
        self._gone: asyncio.Task[None] | None = None

    # What the connection asks.

    async def send(self, payload: bytes) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        self._open_socket().send(WSMsgType.TEXT, payload)

    async def ping(self) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        self._open_socket().send_ping(b"")

    async def close(self, code: int, reason: str) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        if self._socket is None or self._gone is None:
            return
        if not self._gone.done():
            self._closing = True
            # Its stub asks for its enumeration; any number does, 4000 and above included.
            self._socket.send_close(cast("WSCloseCode", code), reason.encode()[:120])
        done, _ = await asyncio.wait([self._gone], timeout=self._close_seconds)
        if not done:
            self.abort()
            await asyncio.shield(self._gone)

    def abort(self) -> None:
        """See :class:`~bridge.binance.transport.Transport`."""
        if self._socket is not None:
            self._socket.disconnect(graceful=False)

    def _open_socket(self) -> WSTransport:
        socket = self._socket
        if socket is None or socket.is_disconnected or socket.is_close_frame_sent:
            raise ConnectionLost("the connection is closed")
        return socket

    # What picows calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Keep the socket: frames may follow in the same read."""
        if self.abandoned:
            self._ended = True
            transport.disconnect(graceful=False)
            return
        self._socket = transport
        self._gone = self._loop.create_task(self._wait(transport), name="picows end")

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take one frame, as it came."""
        if transport.is_close_frame_sent and not self._closing and frame.msg_type != _CLOSE:
            return  # picows closed for an error of the peer, and its parser goes on
        whole = frame.fin and not self._fragmented and not self._ended
        # Asking for the type costs more than all the rest; control frames are never longer than this.
        if whole and frame.payload_size > _CONTROL_MAX_BYTES and self._batch:
            self._batch.append(frame.get_payload_as_bytes())
            return
        kind = frame.msg_type
        if whole and kind == _TEXT:
            self._deliver(frame.get_payload_as_bytes())
        elif kind == _PING:
            transport.send_pong(frame.get_payload_as_bytes())
            self._inbox.pinged()
        elif kind == _PONG:
            self._inbox.ponged()
        elif kind == _CLOSE:
            self._ended = True
            if not transport.is_close_frame_sent:
                transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif not self._ended:
            self._fragment(frame, continues=kind == WSMsgType.CONTINUATION)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Deliver what is left, then say how it ended."""
        if self.abandoned:
            return
        self._flush()
        handshake = transport.close_handshake
        # The code of a close that the peer never answered says nothing of how it ended.
        sent = None if self._closing else getattr(handshake, "sent", None)
        last = getattr(handshake, "recv", None) or sent
        code, reason = (ABNORMAL, "no closing handshake") if last is None else (last.code, last.reason)
        self._inbox.ended(_number(code), reason or "")

    # Steps.

    def _deliver(self, payload: bytes) -> None:
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append(payload)

    def _flush(self) -> None:
        if self._batch:
            batch, self._batch = self._batch, []
            self._inbox.frames(batch)
            if len(batch) >= BEHIND and not self._waits and self._socket is not None:
                self._waits = True
                self._socket.underlying_transport.pause_reading()
                self._turns.wait(self._read_on)

    def _read_on(self) -> None:
        self._waits = False
        if self._socket is not None and not self._socket.is_disconnected:
            self._socket.underlying_transport.resume_reading()

    def _fragment(self, frame: WSFrame, *, continues: bool) -> None:
        if continues != self._fragmented:
            self._fail(WSCloseCode.PROTOCOL_ERROR, "a fragment out of place")
        payload = frame.get_payload_as_bytes()
        self._fragments.append(payload)
        self._fragment_bytes += len(payload)
        if self._fragment_bytes > self._max_bytes or len(self._fragments) > _MAX_FRAGMENTS:
            self._fail(WSCloseCode.MESSAGE_TOO_BIG, "a fragmented message is too big")
        self._fragmented = not frame.fin
        if frame.fin:
            self._deliver(b"".join(self._fragments))
            self._fragments, self._fragment_bytes = [], 0

    def _fail(self, code: WSCloseCode, reason: str) -> None:
        self._ended = True
        raise WSProtocolError(code, reason)

    async def _wait(self, socket: WSTransport) -> None:
        # picows keeps why it ended the socket in a future that must be asked; the close code says enough.
        with contextlib.suppress(Exception):
            await socket.wait_disconnected()


def _number(code: object) -> int:
    """Return a close code as a number: picows has an enumeration of the known ones."""
    return code if isinstance(code, int) else int(getattr(code, "value", ABNORMAL))


async def open_picows(
    url: str, inbox: Inbox, settings: ConnectionSettings, tls: ssl.SSLContext | None
) -> PicowsTransport:
    """See :class:`~bridge.binance.transport.Open`."""
    hush("picows", "picows.client")
    transport = PicowsTransport(inbox, settings)
    is_url = True
    try:
        async with asyncio.timeout(settings.open_seconds):
            await ws_connect(
                lambda: transport,
                url,
                ssl_context=tls,
                websocket_handshake_timeout=settings.open_seconds,
                enable_auto_ping=False,
                enable_auto_pong=False,
                max_frame_size=settings.max_message_bytes,
                extra_headers={"User-Agent": USER_AGENT},
                max_redirects=0,
                proxy=None,
            )
    except asyncio.CancelledError:
        transport.abandoned = True
        transport.abort()
        raise
    except WSHandshakeError as error:
        if error.response is not None and error.response.status != 101:
            raise refused(int(error.response.status), error.response.headers.get("Retry-After")) from None
        raise unreachable(error) from error
    except WSInvalidURL:
        is_url = False  # raised out here, as it repeats the URL, which may hold a listen key, and a context is kept
    except (OSError, TimeoutError, WSError, EOFError) as error:
        transport.abandoned = True
        raise unreachable(error) from error
    if not is_url:
        raise unusable()
    return transport
