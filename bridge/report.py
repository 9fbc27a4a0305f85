"""What a running bridge tells about itself: the status report, readiness, and metrics taken from counters."""

from __future__ import annotations

import time
from collections import Counter, deque
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

from bridge import __version__
from bridge.core.decimals import remembered
from bridge.core.weight import family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bridge.app import Bridge
    from bridge.model import Market, Stream, StreamState
    from bridge.status import BookStatus, ConnectionReport, MarketStatus, StatusReport

_LATENCIES_KEPT = 10_000
_RATE_OVER_SECONDS = 10.0
_LOOP_STUCK_SECONDS = 30.0


class Reporter:
    """Keeps the counts that the wiring's parts hand in, and shows them."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._started_at = datetime.now(UTC)
        self._started = time.monotonic()
        self._ticked = time.monotonic()
        self._deliveries = bridge.telemetry.metrics.deliveries
        self._latencies: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._seen: Counter[tuple[Market, str]] = Counter()
        self._seen_bytes: Counter[tuple[Market, str]] = Counter()
        self._rates: deque[tuple[float, Counter[Market]]] = deque()
        self._reconnects: Counter[str] = Counter()
        bridge.telemetry.listeners["report"] = lambda event: self._reconnects.update(
            [event.market] if event.event == "connection.retrying" and event.market else []
        )

    # What the parts hand in

    def delivered(self, topic: str, records: int, size: int, queued_at: float, newest_event_ms: int) -> None:
        """Take note of an acknowledged batch (:data:`bridge.kafka.publisher.OnDelivered`)."""
        waited, lag = time.monotonic() - queued_at, time.time() - newest_event_ms / 1000
        if self._deliveries.note(topic, records, size, waited, lag):
            self._latencies.append(lag * 1000)

    def tick(self) -> None:
        """Bring the metrics that are kept as plain counts up to date."""
        self._ticked = time.monotonic()
        metrics, counts = self._bridge.telemetry.metrics, self._bridge.counts
        messages, message_bytes = counts.messages, counts.message_bytes
        for labels in messages:
            metrics.messages_received_total.labels(*labels).inc(messages[labels] - self._seen[labels])
            metrics.message_bytes_total.labels(*labels).inc(message_bytes[labels] - self._seen_bytes[labels])
        self._seen, self._seen_bytes = messages, message_bytes
        metrics.buffer_bytes.set(self._bridge.publishers.buffered_bytes)
        self._count_books()
        metrics.shards_owned.set(len(self._bridge.workers))
        metrics.cache_entries.set(remembered())
        self._rates.append((self._ticked, self._by_market()))
        while self._ticked - self._rates[0][0] > _RATE_OVER_SECONDS:
            self._rates.popleft()

    # What it shows

    def live(self) -> tuple[bool, str]:
        """Whether the process is worth keeping: its event loop turns. Says nothing of Binance or Kafka."""
        silent = time.monotonic() - self._ticked
        if self._bridge.started and silent > _LOOP_STUCK_SECONDS:
            return False, f"the event loop has not turned for {silent:.0f} s"
        return True, "alive"

    def ready(self) -> tuple[bool, str]:
        """Whether it does its work: started, not stopping, every connection open, Kafka taking records."""
        hindrance = next(self._hindrances(), None)
        return (True, "ready") if hindrance is None else (False, hindrance)

    def _hindrances(self) -> Iterator[str]:
        bridge, shards = self._bridge, self._bridge.shards
        if bridge.stopping:
            yield "stopping"
        for (part, what), text in bridge.trouble.items():
            yield f"{part}{f' {what}' if what else ''}: {text}"
        if not bridge.started:
            yield "starting"
        if shards.suspended is not None:
            yield f"shards: {shards.suspended}"
        if not shards.assigned_once:
            yield "waiting for the group to share out the shards"
        missing = bridge.membership.owned - shards.workers.keys()
        if missing:
            yield f"shards: taking over {', '.join(map(str, sorted(missing)))}"
        for market in bridge.markets:
            yield from self._hindrances_on(market)

    def _hindrances_on(self, market: Market) -> Iterator[str]:
        workers = self._bridge.workers
        if any(market not in worker.pools for worker in workers):
            yield f"{market}: waiting for its instruments"
        waiting = len(self._streams(market) - self._live(market))
        if waiting:
            yield f"{market}: {waiting} streams are not on an open connection"
        for worker in workers:
            desk = worker.desks.get(market)
            for account in desk.absent() if desk is not None else ():
                yield f"{market}: account {account} is not listened to"

    def _streams(self, market: Market) -> set[str]:
        return {name for worker in self._bridge.workers for name in worker.streams.get(market, ())}

    def _live(self, market: Market) -> set[str]:
        views = [view for pool in self._bridge.pools(market) for view in pool.connections()]
        return {name for view in views if view.state == "live" for name in view.streams}

    def status(self) -> StatusReport:
        """Return the answer of ``/status``."""
        bridge, counts = self._bridge, self._bridge.counts
        ready, reason = self.ready()
        latencies = sorted(self._latencies)
        return {
            "version": __version__,
            "instance": bridge.settings.instance,
            "environment": bridge.settings.environment,
            "started_at": _iso(self._started_at),
            "uptime_seconds": round(time.monotonic() - self._started, 1),
            "ready": ready,
            "reason": reason,
            "shards": {
                "count": bridge.settings.shards,
                "owned": [
                    {"shard": worker.shard, "epoch": worker.epoch}
                    for _, worker in sorted(bridge.shards.workers.items())
                ],
            },
            "markets": [self._market(market) for market in bridge.markets if market in bridge.tables],
            "topics": [
                {"topic": topic, "records": delivered.records, "bytes": delivered.bytes}
                for topic, delivered in sorted(self._deliveries.topics.items())
            ],
            "buffer": {"bytes": bridge.publishers.buffered_bytes, "limit": bridge.publishers.limit_bytes},
            "gaps": {
                "open": sum(worker.pipeline.gaps.open for worker in bridge.workers),
                "found": counts.gaps_found,
                "recovered": counts.gap_events_recovered,
            },
            "books": self._books(),
            "dead_letters": counts.dead_letters,
            "latency_ms": {"p50": _quantile(latencies, 0.5), "p99": _quantile(latencies, 0.99)},
            "request_weight": self._weights(),
            "lifecycle": list(bridge.lifecycle.newest),
        }

    def connections(self) -> list[ConnectionReport]:
        """Return the answer of ``/connections``."""
        now = time.time_ns() // 1000
        return [
            {
                "id": view.connection_id,
                "market": view.market,
                "leg": view.leg,
                "url": view.url,
                "state": view.state,
                "opened_at": _iso(datetime.fromtimestamp(view.opened_at / 1e6, UTC)),
                "age_seconds": round((now - view.opened_at) / 1e6, 1) if view.opened_at else 0.0,
                "messages": view.messages,
                "streams": [
                    {
                        "name": state.stream.name,
                        "channel": state.stream.channel,
                        "frames": state.frames,
                        "silent_seconds": round((now - state.last_received_at) / 1e6, 3)
                        if state.last_received_at
                        else None,
                    }
                    for state in self._states(view.connection_id)
                ],
            }
            for pool in self._bridge.pools()
            for view in pool.connections()
        ]

    def _states(self, connection_id: str) -> Iterable[StreamState]:
        for worker in self._bridge.workers:
            leg = worker.pipeline.legs.get(int(connection_id, 16))
            if leg is not None:
                return leg.streams.values()
        return ()

    def _market(self, market: Market) -> MarketStatus:
        connections = sum(len(pool.connections()) for pool in self._bridge.pools(market))
        messages = self._by_market()[market]
        first_at, first = self._rates[0] if self._rates else (self._started, Counter[str]())
        span = max(0.001, time.monotonic() - first_at)
        return {
            "market": market,
            "connections": connections,
            "streams": len(self._streams(market)),
            "streams_live": len(self._live(market)),
            "messages": messages,
            "messages_per_second": round((messages - first[market]) / span, 1),
            "reconnects": self._reconnects[market],
        }

    def _count_books(self) -> None:
        synced: Counter[Market] = Counter()
        for stream, in_sync in self._books_kept():
            synced[stream.market] += in_sync
        for market, count in synced.items():
            self._bridge.telemetry.metrics.books_synced.labels(market).set(count)

    def _books_kept(self) -> Iterable[tuple[Stream, bool]]:
        return chain.from_iterable(worker.pipeline.books() for worker in self._bridge.workers)

    def _books(self) -> BookStatus:
        states = [in_sync for _, in_sync in self._books_kept()]
        books = self._bridge.books
        return {
            "kept": len(states),
            "synced": sum(states),
            "waiting": 0 if books is None else books.waiting,
            "estimate_seconds": 0.0 if books is None else round(books.estimate_seconds(), 1),
        }

    def _by_market(self) -> Counter[Market]:
        totals: Counter[Market] = Counter()
        for (market, _), count in self._bridge.counts.messages.items():
            totals[market] += count
        return totals

    def _weights(self) -> dict[str, int]:
        rest = self._bridge.rest
        if rest is None:
            return {}
        return {market: rest.budgets[family(market)].used for market in self._bridge.tables}


def _iso(time_: datetime) -> str:
    return time_.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quantile(values: list[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(len(values) * share))], 2) if values else None
