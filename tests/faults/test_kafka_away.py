"""Kafka is slow, frozen, killed or loses a node, under load and with a small buffer."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pytest

from tests.accounting import Account, Evidence, Truth, account
from tests.integration.processes import BridgeProcess, SimulatorProcess, bridge, get, simulator, until
from tests.integration.reading import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from tests.kafka_fixture import OwnKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

BUFFER_BYTES = 1 << 20
MEMORY_SLACK = 96 << 20
SUBSCRIPTIONS = [
    {"market": "spot", "symbols": "*", "channels": ["agg-trade", "trade", "depth", "book-ticker", "ticker"]},
    {"market": "coinm", "symbols": "*", "channels": ["agg-trade", "depth", "book-ticker", "mark-price@1s"]},
]


class Watch:
    """Looks at a bridge ten times a second: its memory, its buffer, and what /readyz says."""

    def __init__(self, running: BridgeProcess) -> None:
        self.memory, self.buffer = 0, 0
        self.excuses: set[str] = set()
        self._running = running
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self.start_memory = self._running.memory_bytes
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.memory = max(self.memory, self._running.memory_bytes)
            self.buffer = max(self.buffer, self._running.status()["buffer"]["bytes"])
            status, text = get(f"{self._running.url}/readyz")
            if status == 503:
                self.excuses.add(text)


def _settings(kafka: LocalKafka, exchange: SimulatorProcess, **more: Any) -> dict[str, Any]:
    return {
        "environment": "prod",
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers, "request_timeout_ms": 2000},
        "endpoints": exchange.endpoints,
        "subscriptions": SUBSCRIPTIONS,
        "stop_timeout_seconds": 90,
        **more,
    }


def _finish(
    exchange: SimulatorProcess, running: BridgeProcess, kafka: LocalKafka, truth: Path
) -> tuple[Account, Evidence]:
    """End market and bridge, and hold the topics against the ground truth."""
    exchange.stop_market()
    until(lambda: running.has_all_of(exchange), "all that was sent has arrived")
    until(running.drained, "everything is published")
    running.terminate()
    assert running.wait(120) == 0, running.err[-3000:]
    evidence = Evidence.of(read(kafka.bootstrap_servers, "prod"))
    found = account(Truth.read(truth), evidence)
    assert not found.problems, str(found)
    print(found)
    return found, evidence


def _freeze(kafka: LocalKafka) -> None:
    kafka.suspend(1)
    time.sleep(6)
    kafka.resume(1)


def _kill(kafka: LocalKafka) -> None:
    kafka.kill(1)
    time.sleep(3)
    kafka.restart(1)


def _slow_down(kafka: LocalKafka) -> None:
    """Let the broker work for a hundredth of the time."""
    for _ in range(8):
        kafka.suspend(1)
        time.sleep(1.5)
        kafka.resume(1)
        time.sleep(0.015)


@pytest.mark.parametrize("outage", [_freeze, _kill, _slow_down], ids=lambda one: one.__name__.strip("_"))
def test_a_full_buffer_closes_connections_and_recovers(
    own_kafka: OwnKafka, tmp_path: Path, outage: Callable[[LocalKafka], None]
) -> None:
    """Memory stays bounded, connections close with the reason, come back, and every event is accounted for."""
    kafka, truth = own_kafka(), tmp_path / "truth.jsonl"
    with (
        simulator(tmp_path, "--symbols", "8", "--rate", "2000", "--ground-truth", str(truth)) as exchange,
        bridge(tmp_path, _settings(kafka, exchange, buffer_bytes=BUFFER_BYTES)) as running,
    ):
        until(running.ready, "the bridge is ready")
        until(lambda: running.messages() > 3_000, "it works")
        with Watch(running) as watch:
            outage(kafka)
            until(running.ready, "it is ready again")
            had = running.messages()
            until(lambda: running.messages() > had + 2_000, "it works again")
        found, evidence = _finish(exchange, running, kafka, truth)
    grown = watch.memory - watch.start_memory
    print(f"memory grew by {grown >> 20} MiB at most, the buffer held {watch.buffer >> 10} KiB at most")
    assert grown < MEMORY_SLACK
    assert watch.buffer < 3 * BUFFER_BYTES
    assert any(excuse.startswith("kafka") for excuse in watch.excuses), watch.excuses
    full = [e for e in evidence.lifecycle if "buffer full" in (e["reason"] or "")]
    assert {e["event"] for e in full} >= {"connection.closed"}
    assert found.in_gaps > 100
    assert evidence.lifecycle[-1]["event"] == "bridge.stopped"


def test_an_outage_that_the_buffer_holds_costs_nothing(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """With the buffer of the defaults a killed and restarted broker loses no event, and no connection is closed."""
    kafka, truth = own_kafka(), tmp_path / "truth.jsonl"
    with (
        simulator(tmp_path, "--symbols", "4", "--rate", "500", "--ground-truth", str(truth)) as exchange,
        bridge(tmp_path, _settings(kafka, exchange)) as running,
    ):
        until(running.ready, "the bridge is ready")
        until(lambda: running.messages() > 2_000, "it works")
        _kill(kafka)
        _freeze(kafka)
        until(running.ready, "it is ready again")
        found, evidence = _finish(exchange, running, kafka, truth)
    assert found.in_gaps == 0
    assert evidence.gaps == []
    closed = {e["reason"] for e in evidence.lifecycle if e["event"] == "connection.closed"}
    assert closed == {"the bridge stops"}


def test_a_node_that_dies_costs_nothing(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """Of three nodes one is killed and one frozen in turn: no event is lost, repeated or out of order."""
    kafka, truth = own_kafka(3), tmp_path / "truth.jsonl"
    with (
        simulator(tmp_path, "--symbols", "3", "--rate", "200", "--ground-truth", str(truth)) as exchange,
        bridge(tmp_path, _settings(kafka, exchange, replication_factor=3)) as running,
    ):
        until(running.ready, "the bridge is ready")
        until(lambda: running.messages() > 500, "it works")
        kafka.kill(2)
        had = running.messages()
        until(lambda: running.messages() > had + 500, "it works on")
        until(lambda: running.status()["buffer"]["bytes"] < 200_000, "the others have taken over")
        kafka.restart(2)
        kafka.suspend(3)
        had = running.messages()
        until(lambda: running.messages() > had + 500, "it works on")
        kafka.resume(3)
        until(running.ready, "it is ready again")
        found, evidence = _finish(exchange, running, kafka, truth)
    assert found.in_gaps == 0
    assert evidence.gaps == []
