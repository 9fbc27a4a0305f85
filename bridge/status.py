"""The shape of what a running bridge tells about itself at ``/status`` and ``/connections``."""

from __future__ import annotations

from typing import TypedDict


class MarketStatus(TypedDict):
    """One market: its connections and what comes in over them."""

    market: str
    connections: int
    streams: int
    streams_live: int
    messages: int
    messages_per_second: float
    reconnects: int


class TopicStatus(TypedDict):
    """One topic: records and bytes of values that Kafka acknowledged."""

    topic: str
    records: int
    bytes: int


class BufferStatus(TypedDict):
    """Bytes queued for Kafka and not yet acknowledged, and the most there may be."""

    bytes: int
    limit: int


class GapStatus(TypedDict):
    """Gaps that are open now, gaps found since the start, and events recovered of them."""

    open: int
    found: int
    recovered: int


class BookStatus(TypedDict):
    """Order books kept, those in sync, and those that wait for a snapshot with the seconds that will take."""

    kept: int
    synced: int
    waiting: int
    estimate_seconds: float


class LatencyStatus(TypedDict):
    """From the exchange's event time to the broker's acknowledgement, in milliseconds; None before any."""

    p50: float | None
    p99: float | None


class LifecycleStatus(TypedDict):
    """One lifecycle event; ``at`` is ISO 8601 in UTC, ``text`` its log line."""

    at: str
    event: str
    text: str


class OwnedShard(TypedDict):
    """A shard this process works on.

    Attributes:
        shard: its number.
        epoch: its epoch, ``writerEpoch`` of the records.
    """

    shard: int
    epoch: int


class ShardStatus(TypedDict):
    """How the work is shared.

    Attributes:
        count: how many shards there are.
        owned: those of this process.
    """

    count: int
    owned: list[OwnedShard]


class StatusReport(TypedDict):
    """The answer of ``/status``.

    ``started_at`` is ISO 8601 in UTC; ``lifecycle`` holds the last 50 events, newest first.
    """

    version: str
    instance: str
    environment: str
    started_at: str
    uptime_seconds: float
    ready: bool
    reason: str
    shards: ShardStatus
    markets: list[MarketStatus]
    topics: list[TopicStatus]
    buffer: BufferStatus
    gaps: GapStatus
    books: BookStatus
    dead_letters: int
    latency_ms: LatencyStatus
    request_weight: dict[str, int]
    lifecycle: list[LifecycleStatus]


class StreamReport(TypedDict):
    """One stream of a connection; ``silent_seconds`` since its newest frame, None before the first."""

    name: str
    channel: str
    frames: int
    silent_seconds: float | None


class ConnectionReport(TypedDict):
    """One open connection. ``id`` is 16 hexadecimal digits, ``opened_at`` ISO 8601 in UTC.

    ``url`` is without query; ``leg`` 1 or, with redundancy, 2: which of the two that carry each stream.
    """

    id: str
    market: str
    leg: int
    url: str
    state: str
    opened_at: str
    age_seconds: float
    messages: int
    streams: list[StreamReport]
