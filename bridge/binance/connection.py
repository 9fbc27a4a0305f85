"""One connection: drives a :class:`~bridge.core.session.Session` over a transport.

Frames go straight from the transport's callback to ``Receive``, all of a wake-up in one call with one time
stamp. Everything slow (sending, REST) happens in the connection's own tasks, so that no frame waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from bridge.binance.clock import Clock
from bridge.binance.driver import Driver
from bridge.binance.hosts import shown
from bridge.core.connection_life import Close, Ping, Rotate, Send, Tell
from bridge.core.session import AskMarket, Session
from bridge.errors import SourceError
from bridge.model import Leg, Receive, Stream, StreamState
from bridge.telemetry import Lifecycle

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from bridge.binance.transport import Open
    from bridge.core.connection_settings import ConnectionSettings
    from bridge.core.liveness import Marker
    from bridge.core.session import Effect
    from bridge.model import Market
    from bridge.telemetry import LifecycleEvent, Telemetry

log = logging.getLogger("bridge")

_DATA = b'{"stream":"'
_SHUTDOWN = b'{"stream":"!serverShutdown"'  # comes in the wrapper of data
_DATA_LENGTH = len(_DATA)
_HEAD = _DATA_LENGTH + 1


class ConnectionView(NamedTuple):
    """What may be shown of a connection.

    Attributes:
        connection_id: 16 hexadecimal digits.
        market: its market.
        url: host and path, without query.
        state: where it is in its life, in lower case.
        streams: names of the streams it carries.
        opened_at: microseconds since the epoch; 0 while it is opening.
        messages: messages received so far.
        last_received_at: microseconds since the epoch; 0 before the first message.
        leg: 1 or, with redundancy, 2: which of the two that carry each stream.
    """

    connection_id: str
    market: Market
    url: str
    state: str
    streams: tuple[str, ...]
    opened_at: int
    messages: int
    last_received_at: int
    leg: int = 1


class Connection:
    """One connection, from opening to its end; never used twice.

    Args:
        leg: who it is, and where the pipeline looks up its streams.
        url: the combined-stream URL.
        settings: times and sizes.
        open_transport: how to open a WebSocket.
        receive: takes the messages.
        telemetry: told of everything that happens.
        look: asks REST for the marker of a stream's market; may raise ``SourceError``.
        lifetime_seconds: age at which it asks to be rotated.
        patience: see :class:`~bridge.core.liveness.Liveness`,
        others: as well.
        number: 1 or, with redundancy, 2: which of the two that carry each stream.
        clock: the clocks.
        tls: TLS settings other than the system's.
    """

    def __init__(
        self,
        leg: Leg,
        url: str,
        settings: ConnectionSettings,
        *,
        open_transport: Open,
        receive: Receive,
        telemetry: Telemetry,
        look: Callable[[Stream], Awaitable[Marker | None]],
        lifetime_seconds: float,
        patience: Mapping[str, int] | None = None,
        others: Callable[[str], int] | None = None,
        number: int = 1,
        clock: Clock | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.leg = leg
        self.rotation = asyncio.Event()
        self.rotation_reason = ""
        self.deaf: str | None = None
        self.first_data_at: float | None = None
        self._url = url
        self._settings = settings
        self._open_transport = open_transport
        self._receive = receive
        self._telemetry = telemetry
        self._look = look
        self._clock = clock or Clock()
        self._tls = tls
        self._session = Session(
            settings,
            control_frames_per_second=settings.control_frames_per_second(leg.market),
            lifetime_seconds=lifetime_seconds,
            states=leg.streams,
            patience=patience,
            others=others,
        )
        self._number = number
        self._goes_to = shown(url) if others is None else f"{shown(url)}, leg {number}"
        self._driver = Driver(
            leg.shown_id,
            settings,
            tick=lambda: self._do(self._session.tick(self._clock.monotonic())),
            wake_in=lambda: self._session.wake_in(self._clock.monotonic()),
        )
        self.closed = self._driver.closed
        self._ended_early: tuple[int, str] | None = None
        self._data_heads: set[bytes] = set()
        self._opening_at = 0.0
        self._opened_at = 0
        self._messages = 0
        self._last_received_at = 0

    # What the pool asks.

    @property
    def carrying(self) -> bool:
        """Whether data may come on it."""
        return self._session.carrying

    @property
    def proven(self) -> bool:
        """Whether every stream is acknowledged and has had its first frame."""
        return self._session.subscribed and not self._session.unproven()

    @property
    def subscribed(self) -> bool:
        """Whether every stream so far is acknowledged."""
        return self._session.subscribed

    @property
    def failure(self) -> Exception | None:
        """What of ours went wrong on it, where anything did."""
        return self._driver.failure

    def view(self) -> ConnectionView:
        """Return what may be shown of it."""
        return ConnectionView(
            connection_id=self.leg.shown_id,
            market=self.leg.market,
            url=shown(self._url),
            state=self._session.state.name.lower(),
            streams=tuple(self._session.streams),
            opened_at=self._opened_at,
            messages=self._messages,
            last_received_at=self._last_received_at,
            leg=self._number,
        )

    async def open(self, streams: Iterable[Stream]) -> None:
        """Connect and begin to subscribe.

        Raises:
            OpenFailed: nothing was opened; ``connection.started`` was not told.
        """
        self.add(streams)
        names = tuple(self._session.streams)
        self._opening_at = self._clock.monotonic()
        self._tell("connection.opening", names, reason=self._goes_to)
        transport = await self._open_transport(self._url, self, self._settings, self._tls)
        self._opened_at = self._clock.micros()
        self._tell("connection.started", names, reason=self._goes_to)
        self._do(self._session.opened(self._clock.monotonic()))
        self._driver.begin(transport)
        if self._ended_early is not None:
            self.ended(*self._ended_early)

    def add(self, streams: Iterable[Stream]) -> None:
        """Carry more streams."""
        added = list(streams)
        for stream in added:
            # Before the SUBSCRIBE leaves: the pipeline must know the name when its first frame comes.
            self.leg.streams.setdefault(stream.name.encode(), StreamState(stream))
        self._do(self._session.add(self._clock.monotonic(), added))

    def remove(self, names: Iterable[str]) -> None:
        """Carry streams no longer. Frames under way still find their state in the leg."""
        self._do(self._session.remove(self._clock.monotonic(), names))

    def rotate(self, reason: str) -> None:
        """Ask for a successor, as age would."""
        self._do(self._session.rotate(reason))

    async def close(self, code: int, reason: str) -> None:
        """Close, waiting at most ``close_seconds`` for the peer; when it returns, nothing is left."""
        self._do(self._session.close(code, reason))
        await self._driver.close()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone and every task of the connection has ended."""
        await self._driver.wait_closed()

    def cut(self) -> None:
        """Cut the socket off, without a closing handshake."""
        self._driver.cut()

    # What the transport tells.

    def frames(self, payloads: list[bytes]) -> None:
        """Hand the messages of one wake-up on, then see to those that are for the session."""
        received_at = self._clock.micros()
        now = self._clock.monotonic()
        self._messages += len(payloads)
        self._last_received_at = self.leg.alive_at = received_at
        self._session.active(now)
        try:
            self._receive(self.leg, received_at, payloads)
        except Exception as error:
            # Receive promises not to raise. If it does, its messages are not accounted for: end this
            # connection loudly rather than go on with a hole.
            log.exception("connection %s: the pipeline failed", self.leg.shown_id)
            self._driver.failure = error
            self._do(self._session.close(1011, f"the pipeline failed: {type(error).__name__}"))
            return
        heads = self._data_heads
        for payload in payloads:
            if payload[:_HEAD] not in heads and not self._is_data(payload):
                self._do(self._session.control(now, payload))
        if self.first_data_at is None:  # after the answers: the one to the SUBSCRIBE may have come with it
            self._first_data(now, payloads)

    def pinged(self) -> None:
        """Count the pong into the pace."""
        self.leg.alive_at = self._clock.micros()
        self._session.pinged(self._clock.monotonic())

    def ponged(self) -> None:
        """Note the sign of life."""
        self.leg.alive_at = self._clock.micros()
        self._session.active(self._clock.monotonic())

    def ended(self, code: int, reason: str) -> None:
        """Note the end of the socket, after the last frame."""
        if not self._opened_at:
            self._ended_early = (code, reason)
            return
        self._do(self._session.lost(code, reason))
        self._driver.ended()

    # Steps.

    def _is_data(self, payload: bytes) -> bool:
        """Tell data from what the session reads; remember heads that settle it, for one look-up a frame."""
        if not payload.startswith(_DATA):
            return False
        if payload[_DATA_LENGTH:_HEAD] != b"!":
            self._data_heads.add(payload[:_HEAD])
            return True
        return not payload.startswith(_SHUTDOWN)

    def _first_data(self, now: float, payloads: Sequence[bytes]) -> None:
        first = next((payload for payload in payloads if payload.startswith(_DATA)), None)
        if first is None:
            return
        self.first_data_at = now
        name = first[_DATA_LENGTH : first.find(b'"', _DATA_LENGTH)].decode(errors="replace")
        seconds = now - self._opening_at
        self._telemetry.metrics.connection_first_update_seconds.labels(self.leg.market).observe(seconds)
        self._tell("connection.first-message", (name,), reason=f"{seconds:.3f} s after opening")

    def _do(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send() | Ping() | Close():
                    self._driver.put(effect)
                case Tell(event, streams, code, reason):
                    self._tell(event, streams, code=code, reason=reason)
                case AskMarket(stream):
                    self._driver.beside(self._ask(stream), f"look at {stream.name}")
                case Rotate(reason, deaf):
                    self.rotation_reason, self.deaf = reason, deaf
                    self.rotation.set()

    def _tell(
        self,
        event: LifecycleEvent,
        streams: tuple[str, ...],
        *,
        code: int | None = None,
        reason: str | None = None,
    ) -> None:
        self._telemetry.emit(
            Lifecycle(
                event=event,
                connection_id=self.leg.connection_id,
                market=self.leg.market,
                streams=streams,
                code=code,
                reason=reason,
                messages=self._messages,
                last_sequence=self.leg.next_sequence - 1 if self.leg.next_sequence else None,
            )
        )

    async def _ask(self, stream: Stream) -> None:
        marker: Marker | None = None
        try:
            marker = await self._look(stream)
        except SourceError as error:
            log.debug("no look at the market of %s: %s", stream.name, error)
        self._do(self._session.market_answered(self._clock.monotonic(), stream.name, marker))
