"""With ``delivery: exactly_once`` any ``read_committed`` reader sees each event once, whatever dies or stands still."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.integration.processes import get, until
from tests.integration.test_shards import SHARDS, epochs, fleet, whole

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.test_shards import Fleet, Found

__all__ = ["fleet"]

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

TRANSACTIONS = {
    "delivery": "exactly_once",
    "kafka": {"request_timeout_ms": 3000},
    "transactions": {"timeout_ms": 20_000},
}


def start(fleet: Fleet, name: str):
    """Start a bridge that publishes in transactions."""
    kafka = {**TRANSACTIONS["kafka"], "bootstrap_servers": fleet.kafka.bootstrap_servers}
    return fleet.start(name, **{**TRANSACTIONS, "kafka": kafka})


def once(found: Found) -> None:
    """Fail unless a reader that knows nothing of epochs finds each event once, and nothing is missing."""
    whole(found)
    assert found.told.late == 0
    trades = Counter(
        (structure, record["market"], record["channel"], record["exchangeSymbol"], record["sequence"])
        for structure, record in found.evidence.unified
        if structure == "trade"
    )
    assert trades
    assert {key: count for key, count in trades.items() if count > 1} == {}


def test_a_killed_bridge_and_its_successor(fleet: Fleet, tmp_path: Path) -> None:
    """What a killed bridge had not committed is not seen; its successor goes on from the commit."""
    first = start(fleet, "bridge")
    fleet.after(6.0)
    before = epochs(first)
    fleet.kill(first)
    fleet.after(2.0)
    again = start(fleet, "bridge")
    assert all(epoch > max(before.values()) for epoch in epochs(again).values())
    metrics = get(f"{again.url}/metrics")[1]
    assert 'binance_bridge_transactions_total{event="committed"}' in metrics
    assert "binance_bridge_transaction_seconds_count" in metrics
    once(fleet.finish(tmp_path / "truth.jsonl"))


def test_a_frozen_bridge_is_fenced(fleet: Fleet, tmp_path: Path) -> None:
    """While one stands still the other takes its shards over; what wakes commits nothing of what it held."""
    frozen, other = start(fleet, "frozen"), start(fleet, "other")
    until(lambda: len(epochs(other)) == SHARDS // 2 and fleet.owned() == [0, 1, 2, 3], "work is shared")
    fleet.after(3.0)
    fleet.crashed.add(frozen.name)
    frozen.popen.send_signal(signal.SIGSTOP)
    until(lambda: sorted(epochs(other)) == [0, 1, 2, 3], "the shards are taken over")
    fleet.after(2.0)
    frozen.popen.send_signal(signal.SIGCONT)
    until(lambda: epochs(frozen).keys() and fleet.owned() == [0, 1, 2, 3], "work is shared again")
    once(fleet.finish(tmp_path / "truth.jsonl"))
