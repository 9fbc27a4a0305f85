"""Gaps of a running bridge are filled from REST: the simulator's ground truth against what Kafka holds."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from bridge.local.kafka import LocalKafka
from tests.accounting import Evidence, Truth, account
from tests.integration.processes import bridge, simulator, until
from tests.integration.reading import read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.integration.reading import Stored

pytestmark = pytest.mark.kafka

RUN_SECONDS = 14.0
QUIET_FROM = 10.0
"""After it nothing is lost any more, so that each stream has events that show what it lost."""

HELD_SECONDS = 1.0
"""More than a message that came early is held for."""

FAULTS: tuple[dict[str, Any], ...] = (
    {"every": 0.5, "until": QUIET_FROM, "fault": "skip", "stream": "*@trade", "count": 3},
    {"every": 0.4, "until": QUIET_FROM, "fault": "skip", "stream": "*@aggTrade", "count": 3},
    {"every": 1.1, "until": QUIET_FROM, "fault": "skip", "stream": "*@kline_1s", "count": 2},
    {"at": 3, "fault": "drop", "count": "all"},
    {"at": 7, "fault": "drop", "count": "all"},
)
SUBSCRIPTIONS = [
    {"market": "spot", "symbols": "*", "channels": ["agg-trade", "trade", "kline_1s", "depth"]},
    {"market": "usdm", "symbols": "*", "channels": ["agg-trade", "trade"]},
    {"market": "coinm", "symbols": "*", "channels": ["agg-trade"]},
]
FILLED = {
    ("spot", "agg-trade"),
    ("spot", "trade"),
    ("spot", "kline"),
    ("usdm", "agg-trade"),
    ("coinm", "agg-trade"),
}


def test_what_was_lost_is_in_the_topics_once(tmp_path: Path) -> None:
    """After skips and drops each event with an id came live, or is recovered once, or is named unrecoverable."""
    truth = tmp_path / "truth.jsonl"
    with LocalKafka() as kafka, simulator(
        tmp_path, "--symbols", "3", "--rate", "300", "--ground-truth", str(truth)
    ) as exchange:  # fmt: skip
        settings = {
            "environment": "prod",
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "endpoints": exchange.endpoints,
            "subscriptions": SUBSCRIPTIONS,
            "stop_timeout_seconds": 90,
        }
        with bridge(tmp_path, settings) as running:
            until(running.ready, "the bridge is ready")
            began = exchange.state()["seconds"]
            exchange.faults(*FAULTS)
            until(lambda: exchange.state()["seconds"] > RUN_SECONDS + began, "the run is over")
            until(lambda: running.status()["gaps"]["open"] == 0, "no gap is open")
            exchange.stop_market()
            until(lambda: running.has_all_of(exchange), "all that was sent has arrived")
            arrived = running.status()["uptime_seconds"]
            until(
                lambda: running.status()["uptime_seconds"] > arrived + HELD_SECONDS,
                "nothing is held any more",
            )
            until(lambda: running.status()["gaps"]["open"] == 0, "no gap is open in the end")
            status = running.status()["gaps"]
            until(running.drained, "everything is published")
            running.terminate()
            assert running.wait(120) == 0
        topics = read(kafka.bootstrap_servers, "prod")

    told = account(Truth.read(truth), Evidence.of(topics))
    assert not told.problems, str(told)
    ended = newest(topics["binance.prod.gaps"])
    fates = Counter((gap["market"], gap["channel"], gap["status"]) for gap in ended)
    assert {place[:2] for place in fates if place[2] == "filled"} == FILLED
    assert {(market, channel) for market, channel, status in fates if status == "unrecoverable"} <= {
        ("spot", "depth"),
        ("usdm", "trade"),
    }
    backfilled = [
        one for topic, stored in topics.items() if ".unified." in topic for one in stored if _filled(one)
    ]
    assert len(backfilled) == sum(gap["recovered"] for gap in ended) == status["recovered"] > 50
    assert told.recovered <= len(backfilled)  # rows that are no event of a stream (candles without a trade)
    ids = {gap["id"] for gap in ended}
    for one in backfilled:
        kind, _, gap = dict(one.headers)["run-id"].decode().partition(":")
        assert kind == "gap"
        assert gap in ids, one.record


def newest(stored: Sequence[Stored]) -> list[Mapping[str, Any]]:
    """Return the newest record of each gap."""
    return list({one.record["id"]: one.record for one in stored}.values())


def _filled(one: Stored) -> bool:
    return bool(one.record["origin"] == "backfill")
