"""The nouns every part shares. Immutable, but for the two live counters on :class:`StreamState`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


class UserMessage(NamedTuple):
    """One private event as a connection received it.

    Attributes:
        account: whose, by its name in the configuration.
        market: of the connection's host; never inferred from the event's name.
        connection_id: the connection's, as :class:`Leg` has it.
        sequence: number of the message on its connection, counting every message from 0. Answers to the bridge's own
            requests are counted and not delivered, as they hold API keys.
        received_at: microseconds since the epoch.
        payload: the bytes as received, on spot with their wrapper. Of a ``listenKeyExpired`` alone the key's characters
            are replaced by as many ``*``.
    """

    account: str
    market: Market
    connection_id: int
    sequence: int
    received_at: int
    payload: bytes


class PrivateAnswer(NamedTuple):
    """REST's answer to a question about an account.

    Attributes:
        account: whose.
        market: of the host that was asked.
        connection_id: the connection that was opened before it was asked.
        endpoint: the path, such as ``/api/v3/openOrders``.
        params: what was asked, without time and signature.
        asked_at: when the question left, by the exchange's clock; microseconds since the epoch.
        received_at: when the answer came, by ours.
        payload: the bytes of the answer, exactly.
    """

    account: str
    market: Market
    connection_id: int
    endpoint: str
    params: Mapping[str, str | int]
    asked_at: int
    received_at: int
    payload: bytes


class PrivateInbox(Protocol):
    """Who takes what is known of accounts. Never blocks, never raises.

    The stream comes first, REST second: ``reconciling`` is called when the account's events flow on a new connection,
    then ``answered`` for each answer with live events between them, then ``reconciled``. What happened meanwhile is in
    both, so the receiver merges by ids and times. While two connections overlap at a rotation, both deliver.
    """

    def received(self, message: UserMessage) -> None:
        """Take a private event."""

    def reconciling(self, account: str, market: Market, connection_id: int, at: int) -> None:
        """Note that REST is about to be asked, at ``at`` (microseconds since the epoch)."""

    def answered(self, answer: PrivateAnswer) -> None:
        """Take an answer of REST."""

    def reconciled(
        self, account: str, market: Market, connection_id: int, at: int, *, complete: bool
    ) -> None:
        """Note that all answers are there or, where not ``complete``, that they will be asked for once more."""


class Header(NamedTuple):
    """A Kafka record header."""

    key: str
    value: bytes


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """One record read from Kafka.

    No tuple: of those that wait to be decoded the garbage collector would look at each, over and over.

    Attributes:
        topic: its topic.
        partition: its partition.
        offset: its place there.
        timestamp: milliseconds: the event's time at the exchange where it has one, else of receipt.
        key: its key.
        value: its value; None deletes the key in a compacted topic.
        headers: its headers.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


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
