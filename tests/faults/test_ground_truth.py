"""Everything that can go wrong in a minute, at once, and an oracle that asks for every event afterwards."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.accounting import Evidence, Truth, account
from tests.integration.processes import BridgeProcess, SimulatorProcess, bridge, simulator, until
from tests.integration.reading import read

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from tests.kafka_fixture import OwnKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

RUN_SECONDS = float(os.environ.get("BRIDGE_FAULT_SECONDS", "62"))
SEEDS = (20261130, 7) if "BRIDGE_FAULT_SECONDS" in os.environ else (20261130,)
QUIET_FROM = RUN_SECONDS - 12.0
"""After it nothing breaks any more, so that each stream has events that show what it lost."""

PLAN: list[dict[str, Any]] = [
    {"at": 4, "fault": "garbage", "kind": "text", "count": "all"},
    {"at": 5, "fault": "garbage", "kind": "truncated", "count": "all"},
    {"at": 5.5, "fault": "garbage", "kind": "unknown-event", "count": "all"},
    {"at": 6, "fault": "garbage", "kind": "binary", "count": "all"},
    {"every": 2, "until": QUIET_FROM, "fault": "skip", "stream": "*@aggTrade", "count": 3},
    {"every": 2, "until": QUIET_FROM, "fault": "skip", "stream": "*@trade", "count": 2},
    {"every": 3, "until": QUIET_FROM, "fault": "skip", "stream": "*@depth*", "count": 2},
    {"every": 4, "until": QUIET_FROM, "fault": "skip", "stream": "*@kline*", "count": 2},
    {"every": 1.5, "until": QUIET_FROM, "fault": "duplicate", "count": 5},
    {"every": 1.5, "until": QUIET_FROM, "fault": "reorder", "stream": "*@aggTrade", "count": 3, "seconds": 1},
    {"every": 2.5, "until": QUIET_FROM, "fault": "reorder", "stream": "*@depth*", "count": 2, "seconds": 1},
    {
        "every": 3.5,
        "until": QUIET_FROM,
        "fault": "reorder",
        "stream": "*@bookTicker",
        "count": 2,
        "seconds": 1,
    },
    {"every": 6, "until": QUIET_FROM, "fault": "drop"},
    {"every": 15, "until": QUIET_FROM, "fault": "disconnect-mid-frame"},
    {"every": 9, "until": QUIET_FROM, "fault": "stall", "seconds": 2},
    {"every": 11, "until": QUIET_FROM, "fault": "mute", "seconds": 2, "count": 2},
    {"at": 8, "fault": "half-open", "market": "coinm", "seconds": 300},
    {"at": 14, "fault": "refuse-connections", "market": "usdm", "seconds": 3},
    {"at": 14.5, "fault": "drop", "market": "usdm", "count": "all"},
    {"at": 20, "fault": "reject-subscriptions", "market": "spot", "seconds": 1},
    {"at": 30, "fault": "shutdown", "market": "spot", "seconds": 4},
    {"at": 33, "fault": "rotate", "market": "usdm", "count": "all"},
    {"at": 46, "fault": "drop", "count": "all"},
]
SUBSCRIPTIONS = [
    {
        "market": "spot", "symbols": "*",
        "channels": ["agg-trade", "trade", "depth", "book-ticker", "kline_1s", "kline_1m", "ticker", "partial-depth_5"],
    },
    {
        "market": "usdm", "symbols": "*",
        "channels": [
            "agg-trade", "trade", "depth", "book-ticker", "kline_1m", "mark-price", "ticker@arr", "liquidation",
        ],
    },
    {
        "market": "coinm", "symbols": "*",
        "channels": ["agg-trade", "trade", "depth", "book-ticker", "kline_1m", "mark-price", "mini-ticker"],
    },
]  # fmt: skip


def _settings(kafka: LocalKafka, exchange: SimulatorProcess, **more: Any) -> dict[str, Any]:
    return {
        "environment": "testnet",
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "request_timeout_ms": 3000},
        "endpoints": exchange.endpoints,
        "subscriptions": SUBSCRIPTIONS,
        "stop_timeout_seconds": 90,
        "connection": {"rotate_after_seconds": 13, "overlap_seconds": 2, "streams_per_connection": 20},
        **more,
    }


def _accounted(exchange: SimulatorProcess, running: BridgeProcess, kafka: LocalKafka, truth: Path) -> str:
    """End the market, then the bridge, and hold the topics against the ground truth."""
    exchange.stop_market()
    until(lambda: running.has_all_of(exchange), "all that was sent has arrived")
    until(running.drained, "everything is published")
    running.terminate()
    assert running.wait(120) == 0, running.err[-3000:]
    until(lambda: exchange.state()["connections"] == [], "the exchange sees no connection any more")
    evidence = Evidence.of(read(kafka.bootstrap_servers, "testnet"))
    told = account(Truth.read(truth), evidence)
    assert not told.problems, str(told)
    assert evidence.lifecycle[-1]["event"] == "bridge.stopped"
    assert told.events > 10_000
    assert told.published + told.in_gaps + told.outside == told.events
    return str(told)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_minute_of_faults_is_accounted_for(own_kafka: OwnKafka, tmp_path: Path, seed: int) -> None:
    """Under every fault of the simulator and a frozen broker, each event is published or named by one gap."""
    kafka = own_kafka()
    plan, truth = tmp_path / "plan.yaml", tmp_path / "truth.jsonl"
    plan.write_text(yaml.safe_dump(PLAN))
    with simulator(
        tmp_path, "--seed", str(seed), "--symbols", "3", "--rate", "400",
        "--faults", str(plan), "--ground-truth", str(truth),
    ) as exchange, bridge(tmp_path, _settings(kafka, exchange)) as running:  # fmt: skip
        began = time.monotonic()
        broker = threading.Thread(target=_freeze_the_broker, args=(kafka, began))
        broker.start()
        until(lambda: time.monotonic() - began > RUN_SECONDS, "the minute is over", RUN_SECONDS + 180)
        broker.join()
        print(_accounted(exchange, running, kafka, truth))


def _freeze_the_broker(kafka: LocalKafka, began: float) -> None:
    time.sleep(max(0.0, began + 24 - time.monotonic()))
    kafka.suspend(1)
    time.sleep(6)
    kafka.resume(1)
    time.sleep(max(0.0, began + 38 - time.monotonic()))
    kafka.kill(1)
    kafka.restart(1)
