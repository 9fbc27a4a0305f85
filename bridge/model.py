"""The nouns every part shares. Immutable, but for the two live counters on :class:`StreamState`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

Environment = Literal["prod", "demo", "testnet"]
Market = Literal["spot", "usdm", "coinm"]
Origin = Literal["live", "backfill", "snapshot", "replay"]
RawKind = Literal["stream", "wsApi", "rest", "archive"]

ENVIRONMENTS: tuple[Environment, ...] = ("prod", "demo", "testnet")
MARKETS: tuple[Market, ...] = ("spot", "usdm", "coinm")


@dataclass(frozen=True, slots=True)
class Stream:
    """One Binance stream to subscribe to, as the catalogue derived it.

    Attributes:
        market: where it lives.
        channel: the catalogue's name of its kind (``agg-trade``).
        name: the name to subscribe with (``btcusdt@aggTrade``).
        symbol: the exchange symbol (``BTCUSDT``), or None where the stream has none (``!miniTicker@arr``).
        path: the futures host's path that serves it (``public``, ``market``), or "" where hosts have no paths.
        first_frame_seconds: how long after the acknowledgement the first frame may take before a look is due.
        cadence_seconds: how often the exchange promises a frame; None where frames come with events only.
    """

    market: Market
    channel: str
    name: str
    symbol: str | None
    path: str
    first_frame_seconds: float
    cadence_seconds: float | None


@dataclass(slots=True)
class StreamState:
    """What one connection saw of one stream. Written by the pipeline, read by liveness.

    Attributes:
        stream: the stream.
        frames: how many frames came.
        first_received_at: microseconds since the epoch of the first frame, 0 before it.
        last_received_at: microseconds since the epoch of the newest frame, 0 before the first.
        route: the pipeline's own handle for the stream; nobody else's business.
    """

    stream: Stream
    frames: int = 0
    first_received_at: int = 0
    last_received_at: int = 0
    route: object = None


@dataclass(slots=True)
class Leg:
    """One WebSocket connection, as the pipeline sees it.

    Attributes:
        connection_id: random, 63 bits; shown as 16 hexadecimal digits.
        market: the market of its host.
        streams: what it subscribed to, by the UTF-8 bytes of the stream name.
        next_sequence: number of the next message of this connection, counting every message from 0.
        alive_at: when the peer last gave a sign of life (a frame, a ping, a pong), microseconds; 0 before the first.
    """

    connection_id: int
    market: Market
    streams: dict[bytes, StreamState] = field(default_factory=dict)
    next_sequence: int = 0
    alive_at: int = 0

    @property
    def shown_id(self) -> str:
        """The connection id as people see it: 16 hexadecimal digits."""
        return f"{self.connection_id:016x}"


class Receive(Protocol):
    """What a connection does with the messages that arrived in one wake-up. Never blocks, never raises."""

    def __call__(self, leg: Leg, received_at: int, payloads: Sequence[bytes]) -> None:
        """Take ``payloads`` (exact bytes, in order) that arrived at ``received_at`` (microseconds)."""


class Header(NamedTuple):
    """A Kafka record header."""

    key: str
    value: bytes


class Lane(Protocol):
    """The way of one key into one topic: its partition is already known."""

    def append(self, timestamp_ms: int, key: bytes, value: bytes, headers: Sequence[Header] = ()) -> None:
        """Queue one record, in order. Never blocks; what is queued is counted against the buffer."""


class Publisher(Protocol):
    """The producer port: what the bridge asks of Kafka. See ``bridge/kafka/publisher.py``."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes queued and not yet acknowledged."""

    def lane(self, topic: str, key: bytes) -> Lane:
        """Return the lane of ``key`` in ``topic`` (cached; the partition follows Kafka's murmur2 partitioner)."""
