"""SIGTERM in the middle of work: everything received is published, and nothing is left behind."""

from __future__ import annotations

import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.accounting import Evidence, Truth, account
from tests.integration.processes import bridge, simulator, until
from tests.integration.reading import ends, read

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from tests.integration.processes import BridgeProcess, SimulatorProcess
    from tests.kafka_fixture import OwnKafka

pytestmark = pytest.mark.kafka

STOP_SECONDS = 60
CHANNELS = {
    "spot": ["agg-trade", "trade", "depth", "book-ticker"],
    "usdm": ["agg-trade", "trade", "depth", "book-ticker"],
    "coinm": ["agg-trade", "trade", "depth", "book-ticker"],
}


def _settings(kafka: LocalKafka, exchange: SimulatorProcess, **more: Any) -> dict[str, Any]:
    return {
        "environment": "demo",
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        "endpoints": exchange.endpoints,
        "subscriptions": [{"market": m, "symbols": "*", "channels": c} for m, c in CHANNELS.items()],
        "stop_timeout_seconds": STOP_SECONDS,
        **more,
    }


def _children(process: BridgeProcess) -> list[str]:
    """Processes of its session, itself included."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(process.popen.pid)], check=False, capture_output=True
    )
    return found.stdout.decode().split()


def test_a_stop_under_load_publishes_all_that_was_received(cluster: LocalKafka, tmp_path: Path) -> None:
    """SIGTERM at thousands of events a second: status 0 in time, raw is what came, no connection, no process."""
    truth = tmp_path / "truth.jsonl"
    since = ends(cluster.bootstrap_servers, "demo")
    with (
        simulator(tmp_path, "--symbols", "8", "--rate", "2500", "--ground-truth", str(truth)) as exchange,
        bridge(tmp_path, _settings(cluster, exchange)) as running,
    ):
        until(running.ready, "the bridge is ready")
        until(lambda: running.messages() > 15_000, "it works")
        assert len(_children(running)) == 1
        running.terminate()
        assert running.wait(STOP_SECONDS + 60) == 0, running.err[-3000:]
        assert _children(running) == []
        until(lambda: exchange.state()["connections"] == [], "the exchange sees no connection any more")
        exchange.stop_market()
    topics = read(cluster.bootstrap_servers, "demo", since=since)
    evidence = Evidence.of(topics)
    found = account(Truth.read(truth), evidence)
    assert not found.problems, str(found)
    assert found.published > 5_000
    assert evidence.gaps == []
    events = [e["event"] for e in evidence.lifecycle]
    assert events[-1] == "bridge.stopped"
    assert "bridge.stopping" in events
    counts = Counter(e["event"] for e in evidence.lifecycle)
    assert counts["connection.started"] == counts["connection.closed"]
    told = sum(e["messages"] for e in evidence.lifecycle if e["event"] == "connection.closed")
    assert told == found.raw_messages, "what the connections say they received is what raw holds"
    closed = {e["reason"] for e in evidence.lifecycle if e["event"] == "connection.closed"}
    assert closed == {"the bridge stops"}


def test_a_stop_while_kafka_is_away_says_what_is_left(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """With a frozen broker SIGTERM ends the bridge in the time given, with status 1 and the undelivered by topic."""
    kafka = own_kafka()
    with (
        simulator(tmp_path, "--symbols", "3", "--rate", "200") as exchange,
        bridge(tmp_path, _settings(kafka, exchange, stop_timeout_seconds=4)) as running,
    ):
        until(running.ready, "the bridge is ready")
        until(lambda: running.messages() > 200, "it works")
        kafka.suspend(1)
        # One answer of REST may have as many bytes as a thousand messages: only these are of all topics.
        had = running.messages()
        until(lambda: running.messages() > had + 1_000, "messages of all streams came since")
        until(lambda: running.status()["buffer"]["bytes"] > 100_000, "records of all topics wait for Kafka")
        running.terminate()
        assert running.wait(25) == 1, "sooner than by the 30 s it has by default"
        kafka.resume(1)
        until(lambda: exchange.state()["connections"] == [], "the exchange sees no connection any more")
    message = running.err.splitlines()[-1]
    assert "Kafka did not take" in message
    assert "binance.demo.raw.spot.depth" in message
    assert "Traceback" not in running.err
