"""One client's stream connection: what waits to be sent, how much it may send, and how it can be broken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from bridge.simulator import wire
from bridge.simulator.limits import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from websockets.http11 import Request

    from bridge.simulator.limits import Limits

_COUNTED = (Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG)


class Watched(ServerConnection):
    """A server connection that tells of every frame of the client: the exchange counts pings and pongs too.

    Attributes:
        watch: called with each frame; None until the connection is set up.
        deaf: what arrives is ignored (a half-open connection).
    """

    watch: Callable[[Frame], None] | None = None
    deaf: bool = False

    def data_received(self, data: bytes) -> None:
        """Take bytes off the socket; even a deaf connection does, so that it notices when the client leaves."""
        if not self.deaf:
            super().data_received(data)

    def process_event(self, event: Frame | Request) -> None:  # type: ignore[override]
        """Take one frame, or the handshake's request."""
        super().process_event(event)
        if self.watch is not None and isinstance(event, Frame):
            self.watch(event)


class Client:
    """A client's stream connection.

    Frames gather in an outbox and go out once per tick in one write; a client that lets more than
    ``buffer_bytes`` pile up is disconnected. The frames bypass ``websockets``' own sending: without
    compression a server's frame is its header and its payload, the same for every client.

    Attributes:
        number: counts the simulator's connections from 1.
        market: the market of the host.
        target: what the URL asked for.
        session: the protocol state.
        opened_at: loop time.
        sent: messages written so far, answers included.
        close_code: what this side closed with, None while it did not.
        listens: the listen keys of a private connection, with the events each wants (all where empty).
    """

    def __init__(
        self,
        number: int,
        target: wire.Target,
        session: wire.Session,
        socket: Watched,
        limits: Limits,
    ) -> None:
        self.number, self.target, self.session, self.socket = number, target, session, socket
        self.market = session.market
        self.sent = 0
        self._loop = asyncio.get_running_loop()
        self.opened_at = self._loop.time()
        self.close_code: int | None = None
        self.listens: Mapping[str, frozenset[str]] = {}
        self._limits = limits
        self._window = SlidingWindow(limits.messages(session.market), 1.0)
        self._outbox: list[bytes] = []
        self._waiting = 0
        self._stalled_until = 0.0
        self._closing: asyncio.Task[None] | None = None
        self._next_ping = self.opened_at + limits.ping_seconds
        self._ping: bytes | None = None
        self._asked = self._answered = 0
        self._granted: int | None = None
        self._pong_deadline = 0.0
        socket.watch = self._count

    @property
    def open(self) -> bool:
        """Whether anything can still be sent."""
        return (
            self._closing is None
            and self.socket.state is State.OPEN
            and not self.socket.transport.is_closing()
        )

    @property
    def healthy(self) -> bool:
        """Whether it is open and no fault holds it."""
        return self.open and not self.socket.deaf and self._stalled_until == 0

    @property
    def backlog(self) -> int:
        """Bytes that wait for this client to read."""
        return self._waiting + (self.socket.transport.get_write_buffer_size() if self.open else 0)

    def shown(self) -> dict[str, object]:
        """Return what ``GET /state`` shows of it; no listen key."""
        return {
            "id": self.number,
            "market": self.market,
            "path": self.target.path,
            "combined": self.session.combined,
            "streams": list(self.session.streams),
            "messages_sent": self.sent,
            "backlog_bytes": self.backlog,
            "healthy": self.healthy,
            "age_seconds": round(self._loop.time() - self.opened_at, 3),
        }

    def carries(self, stream: Callable[[str], bool]) -> bool:
        """Tell whether a subscribed stream satisfies ``stream``."""
        return any(stream(name) for name in self.session.streams)

    def queue(self, frame: bytes) -> None:
        """Send ``frame`` with the next :meth:`flush`."""
        self._outbox.append(frame)
        self._waiting += len(frame)

    def send_text(self, payload: bytes) -> None:
        """Send one text message with the next :meth:`flush`."""
        self.queue(wire.frame(wire.TEXT, payload))

    def answered(self) -> None:
        """Note that one control message was dealt with."""
        self._answered += 1
        self._close_flood()

    def flush(self) -> None:
        """Write what is queued."""
        if not self._outbox:
            return
        if self._stalled_until:
            if self._waiting > self._limits.buffer_bytes:
                self.abort()
            return
        if self.open and not self.socket.deaf:
            transport = self.socket.transport
            if transport.get_write_buffer_size() > self._limits.buffer_bytes:
                self.abort()
            else:
                transport.write(b"".join(self._outbox))
                self.sent += len(self._outbox)
        self._outbox.clear()
        self._waiting = 0

    def tend(self, now: float, now_ms: int) -> None:
        """Ping, and close what did not answer a ping or is too old. Called often; ``now`` is loop time."""
        if self._stalled_until and now >= self._stalled_until:
            self._stalled_until = 0.0
            self.flush()
        if not self.healthy:
            return
        if now >= self.opened_at + self._limits.lifetime_seconds:
            self.close(1001, "")
        elif self._ping is not None and now >= self._pong_deadline:
            self.close(1008, "Pong timeout")
        elif now >= self._next_ping:
            self._next_ping = now + self._limits.ping_seconds
            if self._ping is None:
                self._pong_deadline = now + self._limits.pong_seconds
            self._ping = str(now_ms).encode()
            self.socket.transport.write(wire.frame(wire.PING, self._ping))

    def close(self, code: int, reason: str) -> None:
        """Send what is queued and begin the closing handshake."""
        if self._closing is None:
            self.flush()
            self.close_code = code
            self._closing = self._loop.create_task(self.socket.close(code, reason))

    def abort(self) -> None:
        """Reset the TCP connection without a word."""
        self.socket.transport.abort()

    def stall(self, seconds: float) -> None:
        """Hold every frame for ``seconds``, then send them all."""
        self.flush()
        self._stalled_until = self._loop.time() + seconds

    def half_open(self) -> None:
        """Neither hear nor write any more, as when the network between died."""
        self.socket.deaf = True

    def cut(self, payload: bytes) -> None:
        """Write half a frame and end the TCP connection."""
        self.flush()
        header = wire.frame_header(wire.TEXT, len(payload))
        self.socket.transport.write(header + payload[: len(payload) // 2])
        self.socket.transport.close()

    def _count(self, frame: Frame) -> None:
        if frame.opcode is Opcode.PONG and bytes(frame.data) == self._ping:
            self._ping = None
        if frame.opcode in _COUNTED and not self._window.allow(self._loop.time()) and self._granted is None:
            self._granted = self._asked
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._asked += 1
        self._close_flood()

    def _close_flood(self) -> None:
        """Close for too many messages, once those within the limit were answered."""
        if self._granted is not None and self._answered >= self._granted:
            self.close(1008, "Too many requests")
