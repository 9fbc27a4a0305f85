"""One call per thing that happens: its log line, its metrics and, where the contract names one, its lifecycle record.

Metric names are the contract's (section 10). Labels are bounded: market, channel, structure, topic, event; a
symbol only with ``metrics.per_symbol``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bridge import __version__
from bridge.deliveries import LATENCY_SECONDS, Deliveries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bridge.model import Market

LifecycleEvent = Literal[
    "bridge.started", "bridge.stopping", "bridge.stopped",
    "shard.assigned", "shard.revoked",
    "connection.opening", "connection.started", "connection.subscribed", "connection.subscription-rejected",
    "connection.first-message", "connection.stale", "stream.silent", "connection.rotating", "connection.closed",
    "connection.retrying",
    "authentication.succeeded", "authentication.failed", "authentication.expired",
    "book.synced", "book.resync",
    "request.resolved", "request.rejected",
]  # fmt: skip

log = logging.getLogger("bridge")

_LOUD = frozenset(
    {
        "connection.subscription-rejected",
        "connection.stale",
        "stream.silent",
        "connection.retrying",
        "authentication.failed",
        "authentication.expired",
        "book.resync",
        "request.rejected",
    }
)
_QUIET = frozenset({"request.resolved", "connection.first-message"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifecycle:
    """Something that happened to the bridge, a shard, a connection or a request. One record of the topic.

    Attributes:
        event: what happened.
        connection_id: the connection, where one is concerned.
        market: its market.
        streams: the stream names concerned; of a private connection the names of its accounts.
        attempt: which attempt in a row, from 1.
        code: WebSocket close code or HTTP status.
        reason: why, in words; never holds a credential or a signed URL.
        retry_in: seconds until the next attempt.
        messages: messages received on the connection so far.
        last_sequence: number of the last message of the connection; of a book, its last update id.
        shard: the shard concerned.
        request_id: id of the request concerned (signals).
        account: the account concerned, by its name in the configuration.
    """

    event: LifecycleEvent
    connection_id: int | None = None
    market: Market | None = None
    streams: tuple[str, ...] = ()
    attempt: int | None = None
    code: int | None = None
    reason: str | None = None
    retry_in: float | None = None
    messages: int | None = None
    last_sequence: int | None = None
    shard: int | None = None
    request_id: str | None = None
    account: str | None = None

    def __str__(self) -> str:
        """Return the log line."""
        parts: list[str] = [self.event]
        if self.connection_id is not None:
            parts.append(f"connection={self.connection_id:016x}")
        for name in ("market", "account", "shard", "attempt", "code", "messages", "request_id"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={value}")
        if self.streams:
            shown = ",".join(self.streams[:3]) + (
                f",… ({len(self.streams)})" if len(self.streams) > 3 else ""
            )
            parts.append(f"streams={shown}")
        if self.reason:
            parts.append(f"reason={self.reason!r}")
        if self.retry_in is not None:
            parts.append(f"retry_in={self.retry_in:.1f}s")
        return " ".join(parts)


@dataclass(slots=True)
class Telemetry:
    """Where everything that happens is told.

    Attributes:
        registry: the Prometheus registry that ``/metrics`` serves.
        publish: set by the wiring: writes a lifecycle record to Kafka.
        listeners: called with each lifecycle event (``bridge.telemetry.attach``, the status page, tests).
    """

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    publish: Callable[[Lifecycle], None] | None = None
    listeners: dict[str, Callable[[Lifecycle], None]] = field(default_factory=dict)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.registry)

    def emit(self, event: Lifecycle) -> None:
        """Tell that ``event`` happened."""
        level = (
            logging.WARNING
            if event.event in _LOUD
            else logging.DEBUG
            if event.event in _QUIET
            else logging.INFO
        )
        log.log(level, "%s", event)
        self.metrics.count(event)
        if self.publish is not None:
            self.publish(event)
        for listener in tuple(self.listeners.values()):
            listener(event)


class Metrics:
    """The metrics of the contract, by their names without the prefix ``binance_bridge_``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"binance_bridge_{name}", text, labels, registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"binance_bridge_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"binance_bridge_{name}", text, labels, buckets=buckets, registry=registry)

        self.deliveries = Deliveries()
        registry.register(self.deliveries)
        self.connections_open = gauge("connections_open", "Open connections to the exchange.", "market")
        self.connection_first_update_seconds = histogram(
            "connection_first_update_seconds",
            "From opening a connection to its first message.",
            LATENCY_SECONDS,
            "market",
        )
        self.update_gap_max_seconds = gauge(
            "update_gap_max_seconds", "Longest current silence of a stream, by channel.", "market", "channel"
        )
        self.reconnects_total = counter("reconnects", "Connections that had to be opened again.", "market")
        self.requests_resolved_total = counter(
            "requests_resolved", "Requests the exchange answered.", "market"
        )
        self.requests_rejected_total = counter(
            "requests_rejected", "Requests the exchange refused.", "market"
        )
        self.waiters = gauge("waiters", "Requests waiting for an answer of the exchange.")
        self.cache_entries = gauge("cache_entries", "Entries of the decimal cache.")
        self.messages_received_total = counter("messages_received", "Messages received.", "market", "channel")
        self.message_bytes_total = counter(
            "message_bytes", "Bytes of messages received.", "market", "channel"
        )
        self.dead_letters_total = counter(
            "dead_letters", "Records sent to the dead-letter topic.", "market", "channel"
        )
        self.gaps_total = counter("gaps", "Gaps found.", "market", "channel")
        self.gap_events_recovered_total = counter(
            "gap_events_recovered", "Events of gaps recovered later.", "market", "channel"
        )
        self.book_resyncs_total = counter("book_resyncs", "Order books synchronised again.", "market")
        self.books_synced = gauge("books_synced", "Order books in sync.", "market")
        self.transactions_total = counter("transactions", "Kafka transactions, by outcome.", "event")
        self.transaction_seconds = histogram(
            "transaction_seconds", "Duration of Kafka transactions.", LATENCY_SECONDS
        )
        self.buffer_bytes = gauge("buffer_bytes", "Bytes queued for Kafka and not yet acknowledged.")
        self.shards_owned = gauge("shards_owned", "Shards this process owns.")
        self.request_weight_used = gauge(
            "request_weight_used",
            "Request weight used in the current minute, as the exchange says.",
            "market",
        )
        self.clock_offset_seconds = gauge(
            "clock_offset_seconds", "How far the exchange's clock is ahead of this machine's.", "market"
        )
        self.build_info = gauge("build_info", "Always 1; the labels tell the version.", "version")
        self.build_info.labels(__version__).set(1)

    def expect(self, channels: Iterable[tuple[Market, str]]) -> None:
        """Begin at 0 what counts the happenings of these channels and of their markets.

        A series that appears with its first happening hides that one from ``rate`` and ``increase``, and an alert
        can't tell nothing happened from nothing asked.
        """
        wanted = set(channels)
        for labels in wanted:
            for metric in (
                self.messages_received_total,
                self.message_bytes_total,
                self.dead_letters_total,
                self.gaps_total,
                self.gap_events_recovered_total,
            ):
                metric.labels(*labels)
        for market in {market for market, _ in wanted}:
            for one in (
                self.connections_open,
                self.connection_first_update_seconds,
                self.reconnects_total,
                self.requests_resolved_total,
                self.requests_rejected_total,
                self.book_resyncs_total,
                self.books_synced,
            ):
                one.labels(market)
            self.deliveries.expect(market)
        for outcome in ("committed", "aborted"):
            self.transactions_total.labels(outcome)

    def count(self, event: Lifecycle) -> None:
        """Count a lifecycle event where a metric of the contract counts it."""
        market: Mapping[str, str] = {"market": event.market or "none"}
        if event.event == "connection.started":
            self.connections_open.labels(**market).inc()
        elif event.event == "connection.closed":
            self.connections_open.labels(**market).dec()
        elif event.event == "connection.retrying":
            self.reconnects_total.labels(**market).inc()
        elif event.event == "request.resolved":
            self.requests_resolved_total.labels(**market).inc()
        elif event.event == "request.rejected":
            self.requests_rejected_total.labels(**market).inc()
