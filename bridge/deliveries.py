"""What is counted of every batch that Kafka acknowledged.

At a low rate nearly each record is a batch of its own, thousands of them a second. prometheus_client takes a lock for
each number and walks through a histogram's buckets (7 µs a batch, here 0.7); so numbers are plain ones, and become the
library's families when somebody asks for them. One thread counts; another may ask, so it looks at copies of what grows.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

LATENCY_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets of latencies."""

_LONGEST_LAG_SECONDS = 3600.0
_UNIFIED = "unified"
"""Stands in the place of the market for topics that hold several."""


class Distribution:
    """How many observations lie between two bounds of :data:`LATENCY_SECONDS`.

    Attributes:
        counts: by bucket; the last is of those beyond every bound.
        sum: of all observations, seconds.
    """

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_SECONDS) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one: in the bucket whose upper bound it does not exceed."""
        self.counts[bisect_left(LATENCY_SECONDS, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return each upper bound with the number of observations that do not exceed it."""
        return list(zip((*map(str, LATENCY_SECONDS), "+Inf"), accumulate(self.counts), strict=True))


class Delivered:
    """What Kafka has of one topic.

    Attributes:
        records: how many records were acknowledged.
        bytes: their size, before compression.
        lag: from the event time of a batch's newest record to its acknowledgement; topics of one market share it.
    """

    __slots__ = ("bytes", "lag", "records")

    def __init__(self, lag: Distribution) -> None:
        self.records = 0
        self.bytes = 0
        self.lag = lag


class Deliveries(Collector):
    """The metrics of acknowledged batches.

    Attributes:
        topics: by topic, those that had a batch.
        latency: from queueing a batch to its acknowledgement.
    """

    def __init__(self) -> None:
        self.topics: dict[str, Delivered] = {}
        self.latency = Distribution()
        self._lags: dict[str, Distribution] = {}

    def expect(self, market: str) -> None:
        """Show a market's lag before anything of it was delivered."""
        self._lags.setdefault(market, Distribution())

    def note(self, topic: str, records: int, size: int, waited: float, lag: float) -> bool:
        """Count a batch.

        Args:
            topic: where it is.
            records: how many records it has.
            size: their bytes, before compression.
            waited: seconds from queueing it to its acknowledgement.
            lag: seconds from its newest event to its acknowledgement.

        Returns:
            Whether the lag counts: that of history, or by a clock that is behind, says nothing.
        """
        delivered = self.topics.get(topic) or self._first(topic)
        delivered.records += records
        delivered.bytes += size
        self.latency.observe(waited)
        if not 0 <= lag < _LONGEST_LAG_SECONDS:
            return False
        delivered.lag.observe(lag)
        return True

    def _first(self, topic: str) -> Delivered:
        market = topic.split(".")[3] if ".raw." in topic else _UNIFIED
        lag = self._lags.setdefault(market, Distribution())
        return self.topics.setdefault(topic, Delivered(lag))

    def collect(self) -> Iterator[Metric]:
        """Yield them as prometheus_client's families."""
        records = CounterMetricFamily(
            "binance_bridge_records_published", "Records acknowledged by Kafka.", labels=["topic"]
        )
        size = CounterMetricFamily(
            "binance_bridge_record_bytes", "Bytes of record values acknowledged by Kafka.", labels=["topic"]
        )
        for topic, delivered in tuple(self.topics.items()):
            records.add_metric([topic], delivered.records)
            size.add_metric([topic], delivered.bytes)
        lag = HistogramMetricFamily(
            "binance_bridge_event_lag_seconds",
            "From the exchange's event time to the broker's acknowledgement.",
            labels=["market"],
        )
        for market, distribution in tuple(self._lags.items()):
            lag.add_metric([market], distribution.buckets(), distribution.sum)
        latency = HistogramMetricFamily(
            "binance_bridge_publish_latency_seconds",
            "From queueing a batch to its acknowledgement.",
            labels=[],
        )
        latency.add_metric([], self.latency.buckets(), self.latency.sum)
        yield from (records, size, lag, latency)
