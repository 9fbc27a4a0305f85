"""Connections are replaced under load, and nobody downstream notices."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.accounting import Evidence, Truth, account
from tests.integration.processes import bridge, simulator, until
from tests.integration.reading import read

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kafka_fixture import OwnKafka

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("redundancy", [1, 2])
def test_rotation_under_load_leaves_no_gap_no_repeat_and_order(
    own_kafka: OwnKafka, tmp_path: Path, redundancy: int
) -> None:
    """Every connection is replaced; unified topics hold each event once and in order, gaps holds nothing."""
    truth, cluster = tmp_path / "truth.jsonl", own_kafka()
    with simulator(tmp_path, "--symbols", "4", "--rate", "400", "--ground-truth", str(truth)) as exchange:
        settings = {
            "environment": "testnet",
            "kafka": {"bootstrap_servers": cluster.bootstrap_servers},
            "endpoints": exchange.endpoints,
            "subscriptions": [
                {
                    "market": "spot", "symbols": "*",
                    "channels": ["agg-trade", "trade", "depth", "book-ticker", "kline_1s", "ticker"],
                },
                {"market": "usdm", "symbols": "*", "channels": ["agg-trade", "depth", "mark-price"]},
            ],
            "connection": {
                "rotate_after_seconds": 10, "overlap_seconds": 1, "streams_per_connection": 14,
                "redundancy": redundancy,
            },
            "stop_timeout_seconds": 90,
        }  # fmt: skip
        with bridge(tmp_path, settings) as running:
            until(running.ready, "the bridge is ready")
            first = {c["id"] for c in running.connections()}
            assert {c["leg"] for c in running.connections()} == set(range(1, redundancy + 1))
            until(lambda: not first & {c["id"] for c in running.connections()}, "all are replaced")
            exchange.stop_market()
            until(lambda: running.has_all_of(exchange), "all that was sent has arrived")
            running.terminate()
            assert running.wait(120) == 0
    evidence = Evidence.of(read(cluster.bootstrap_servers, "testnet"))
    found = account(Truth.read(truth), evidence)
    assert not found.problems, str(found)
    assert [g["stream"] for g in evidence.gaps] == []
    assert found.published + found.outside == found.events > 2_000
    events = Counter(e["event"] for e in evidence.lifecycle)
    assert events["connection.rotating"] >= len(first) > 3
    assert events["connection.retrying"] == 0
    for told in evidence.lifecycle:
        if told["event"] == "connection.rotating":
            assert "age of" in told["reason"]
            assert "successor" in told["reason"]
