"""The WebSocket port: what a connection asks of a WebSocket, whichever library speaks it.

A transport hands over whole messages, all of one wake-up together, as the bytes that came: text is not
decoded, so that invalid UTF-8 is the pipeline's business and not the end of the socket. It answers pings by
itself, never compresses, follows no redirect and uses no proxy.
"""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Protocol

from bridge import __version__
from bridge.core.backoff import Failure
from bridge.errors import ConnectionLost

if TYPE_CHECKING:
    from bridge.core.connection_settings import ConnectionSettings, TransportName

USER_AGENT = f"binance-kafka-bridge/{__version__}"

#: What a socket that ended without a closing handshake is said to have closed with (RFC 6455, 7.1.5).
ABNORMAL = 1006


class OpenFailed(ConnectionLost):
    """A connection could not be opened.

    Attributes:
        failure: what back-off needs to know of it.
    """

    def __init__(self, message: str, failure: Failure) -> None:
        self.failure = failure
        super().__init__(message)


class Inbox(Protocol):
    """Who a transport delivers to. All calls come from the event loop, none may block or raise."""

    def frames(self, payloads: list[bytes]) -> None:
        """Take the messages of one wake-up, in order; the list is the receiver's to keep."""

    def pinged(self) -> None:
        """A ping came and its pong went."""

    def ponged(self) -> None:
        """A pong came."""

    def ended(self, code: int, reason: str) -> None:
        """The socket is closed, every message delivered. The last call, and made exactly once."""


class Transport(Protocol):
    """One open WebSocket."""

    async def send(self, payload: bytes) -> None:
        """Send a text message.

        Raises:
            ConnectionLost: the socket is closed.
        """

    async def ping(self) -> None:
        """Send a ping.

        Raises:
            ConnectionLost: the socket is closed.
        """

    async def close(self, code: int, reason: str) -> None:
        """Close with a handshake of at most ``close_seconds``, then cut off; return when all is gone."""

    def abort(self) -> None:
        """Cut the socket off."""


class Open(Protocol):
    """Opens a WebSocket."""

    async def __call__(
        self, url: str, inbox: Inbox, settings: ConnectionSettings, tls: ssl.SSLContext | None
    ) -> Transport:
        """Connect to ``url`` within ``open_seconds``.

        Raises:
            OpenFailed: says why, without the URL's query.
        """


def opener(name: TransportName) -> Open:
    """Return the transport of that name. Imports its library only now: picows is optional."""
    if name == "picows":
        from bridge.binance.picows_transport import open_picows

        return open_picows
    from bridge.binance.websockets_transport import open_websockets

    return open_websockets


def hush(*names: str) -> None:
    """Keep loggers of a library at WARNING at least: below, they print URLs, headers and messages."""
    for name in names:
        logger = logging.getLogger(name)
        if logger.level < logging.WARNING:
            logger.setLevel(logging.WARNING)


def described(error: BaseException) -> str:
    """Return an error's words, its type where it has none."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def refused(status: int, retry_after: str | None) -> OpenFailed:
    """Return the error for a handshake that the host answered with an HTTP status."""
    seconds = float(retry_after) if retry_after is not None and retry_after.strip().isdecimal() else None
    return OpenFailed(f"the handshake was refused with HTTP {status}", Failure(status, seconds))


def unreachable(error: BaseException) -> OpenFailed:
    """Return the error for a socket, TLS or handshake that failed otherwise."""
    tls = isinstance(error, ssl.SSLError)
    return OpenFailed(f"{'TLS failed' if tls else 'connecting failed'}: {described(error)}", Failure(tls=tls))


def unusable() -> OpenFailed:
    """Return the error for a URL that is none. It is not repeated: it may hold a listen key."""
    return OpenFailed("connecting failed: the URL can't be used", Failure())
