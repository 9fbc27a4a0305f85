"""Metrics of acknowledged batches say what prometheus_client's own would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from bridge.deliveries import LATENCY_SECONDS, Delivered, Deliveries, Distribution

if TYPE_CHECKING:
    from collections.abc import Sequence

    Batch = tuple[str, int, int, float, float]

RAW, UNIFIED = "binance.prod.raw.spot.trade", "binance.prod.unified.trade"
MARKETS = {RAW: "spot", UNIFIED: "unified", "binance.prod.raw.usdm.depth": "usdm"}
seconds = st.one_of(st.sampled_from(LATENCY_SECONDS), st.floats(0, 3599))
batches = st.lists(
    st.tuples(
        st.sampled_from(sorted(MARKETS)), st.integers(1, 500), st.integers(1, 1 << 20), seconds, seconds
    )
)


def theirs(seen: Sequence[Batch]) -> set[str]:
    """Return the lines of the library's metrics."""
    registry = CollectorRegistry()
    records = Counter(
        "binance_bridge_records_published", "Records acknowledged by Kafka.", ["topic"], registry=registry
    )
    size = Counter(
        "binance_bridge_record_bytes",
        "Bytes of record values acknowledged by Kafka.",
        ["topic"],
        registry=registry,
    )
    lag = Histogram(
        "binance_bridge_event_lag_seconds",
        "From the exchange's event time to the broker's acknowledgement.",
        ["market"],
        buckets=LATENCY_SECONDS,
        registry=registry,
    )
    latency = Histogram(
        "binance_bridge_publish_latency_seconds",
        "From queueing a batch to its acknowledgement.",
        buckets=LATENCY_SECONDS,
        registry=registry,
    )
    for topic, count, of_bytes, waited, late in seen:
        records.labels(topic).inc(count)
        size.labels(topic).inc(of_bytes)
        latency.observe(waited)
        lag.labels(MARKETS[topic]).observe(late)
    return {line for line in generate_latest(registry).decode().splitlines() if "_created" not in line}


def ours(deliveries: Deliveries) -> set[str]:
    """Return the lines of ours."""
    registry = CollectorRegistry()
    registry.register(deliveries)
    return set(generate_latest(registry).decode().splitlines())


@given(batches)
def test_they_are_those_of_the_library(seen: list[Batch]) -> None:
    """Line by line, but for the times at which the library's were made."""
    deliveries = Deliveries()
    for batch in seen:
        assert deliveries.note(*batch)
    assert ours(deliveries) == theirs(seen)


@pytest.mark.parametrize("lag", [-0.001, 3600.0, float("inf")])
def test_a_lag_that_says_nothing_is_left_out_and_the_batch_counted(lag: float) -> None:
    """History, or a clock that is behind."""
    deliveries = Deliveries()
    assert not deliveries.note(RAW, 3, 100, 0.01, lag)
    told = ours(deliveries)
    assert f'binance_bridge_records_published_total{{topic="{RAW}"}} 3.0' in told
    assert 'binance_bridge_event_lag_seconds_count{market="spot"} 0.0' in told


def test_a_market_shows_before_its_first_batch() -> None:
    """However often it is announced."""
    deliveries = Deliveries()
    deliveries.expect("coinm")
    deliveries.expect("coinm")
    assert 'binance_bridge_event_lag_seconds_count{market="coinm"} 0.0' in ours(deliveries)


def test_topics_and_markets_may_come_while_it_is_asked() -> None:
    """The answer is written in a thread of its own."""
    deliveries = Deliveries()

    class Meanwhile(Distribution):
        def buckets(self) -> list[tuple[str, float]]:
            deliveries.note("binance.prod.raw.coinm.depth", 1, 1, 0.0, 0.0)
            return super().buckets()

    class Growing(Delivered):
        @property
        def records(self) -> int:
            deliveries.note(UNIFIED, 1, 1, 0.0, 0.0)
            return 1

        @records.setter
        def records(self, count: int) -> None:
            """Take none."""

    deliveries.topics[RAW] = Growing(Distribution())
    deliveries._lags["spot"] = Meanwhile()
    assert f'binance_bridge_records_published_total{{topic="{RAW}"}} 1.0' in ours(deliveries)
    assert {UNIFIED, "binance.prod.raw.coinm.depth"} <= deliveries.topics.keys()
