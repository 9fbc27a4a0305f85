"""A replay of what two bridges wrote side by side, while a shard moved and one was killed in the midst of it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.integration.processes import BridgeProcess, command, simulator, until
from tests.integration.reading import Stored, read
from tests.integration.test_replay import unmasked
from tests.integration.test_replay_owners import FAULTS, after, shown

if TYPE_CHECKING:
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from tests.integration.processes import SimulatorProcess
    from tests.kafka_fixture import OwnKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

SHARDS = 4
SEAM_MICROS = 2_000_000
"""What an owner received so shortly before its end may not have been derived, or not have reached Kafka."""


class Derived(NamedTuple):
    """A unified record, without its origin, and what tells where a difference comes from."""

    head: bytes
    tail: bytes
    origin: str
    epoch: int
    sequence: int | None
    received_at: int

    @property
    def same(self) -> tuple[bytes, bytes]:
        """What live and replay have in common."""
        return self.head, self.tail


def derived(stored: list[Stored]) -> dict[tuple[str, str], list[Derived]]:
    """Return records by key and channel, as readers see them: without those of an owner that came too late."""
    found: dict[tuple[str, str], list[Derived]] = defaultdict(list)
    newest: dict[tuple[str, str], int] = {}
    for one in stored:
        record, (head, _, tail) = one.record, unmasked(one.value)
        place, epoch = (one.key, record["channel"]), record["writerEpoch"]
        if record["origin"] in {"live", "replay"}:
            # Backfilled records of a replay have its origin; none is late, for replay leaves late ones out.
            if record["origin"] == "live" and epoch < newest.get(place, 0):
                continue
            newest[place] = epoch
        found[place].append(
            Derived(head, tail, record["origin"], epoch, record["sequence"], record["receivedAt"])
        )
    return found


def run(directory: Path, kafka: LocalKafka, exchange: SimulatorProcess) -> BridgeProcess:
    """Let two bridges share the work, kill the first, start a third, and end well; return one for its settings."""
    settings: dict[str, Any] = {
        "environment": "prod",
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        "endpoints": exchange.endpoints,
        "shards": SHARDS,
        "snapshot_interval_seconds": 2,
        "session_timeout_seconds": 10,
        "stop_timeout_seconds": 90,
        "subscriptions": [
            {"market": "spot", "symbols": "*", "channels": ["agg-trade", "trade", "depth", "kline_1s", "ticker"]},
            {"market": "usdm", "symbols": "*", "channels": ["agg-trade", "depth", "ticker@arr"]},
            {"market": "coinm", "symbols": "*", "channels": ["agg-trade", "depth"]},
        ],
    }  # fmt: skip
    running: list[BridgeProcess] = []

    def start(name: str) -> BridgeProcess:
        one = BridgeProcess(directory, settings, name=name)
        running.append(one)
        until(one.ready, f"{name} is ready")
        return one

    exchange.faults(*FAULTS)
    try:
        first = start("first")
        after(exchange, 4.0)
        second = start("second")
        after(exchange, 6.0)
        first.end()
        running.remove(first)
        until(lambda: len(second.status()["shards"]["owned"]) == SHARDS, "the second has all shards")
        after(exchange, 6.0)
        start("third")
        after(exchange, 6.0)
        for one in running:
            one.terminate()
            assert one.wait(120) == 0, one.err[-3000:]
        return second
    finally:
        for one in running:
            one.end()


def test_only_the_last_moments_of_an_owner_may_differ(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """Elsewhere each channel of each key has the same records in the same order, and there are the same gaps."""
    kafka = own_kafka()
    with simulator(tmp_path, "--symbols", "6", "--rate", "200") as exchange:
        config = run(tmp_path, kafka, exchange).config
    replayed = command("replay", "--into", "again", "--json", "--config", str(config), cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stderr
    live, again = (read(kafka.bootstrap_servers, "prod", namespace=name) for name in ("binance", "again"))

    ends: dict[int, int] = {}
    for stored in (stored for topic, stored in live.items() if ".raw." in topic):
        for record in (one.record for one in stored):
            epoch = record["writerEpoch"]
            ends[epoch] = max(ends.get(epoch, 0), record["receivedAt"])

    def in_seam(epoch: int, received_at: int) -> bool:
        return received_at > ends[epoch] - SEAM_MICROS

    compared = 0
    for topic in (topic for topic in live if ".unified." in topic):
        before, now = derived(live[topic]), derived(again[f"again{topic.removeprefix('binance')}"])
        for place in before.keys() | now.keys():
            old, new = ({one.same for one in records[place]} for records in (before, now))
            both = [
                [one.same for one in records[place] if one.same in old and one.same in new]
                for records in (before, now)
            ]
            assert both[0] == both[1], (topic, place)
            compared += len(both[0])
            only_new = [one for one in now[place] if one.same not in old]
            only_old = [one for one in before[place] if one.same not in new]
            assert all(in_seam(one.epoch, one.received_at) for one in only_new), (topic, place, only_new)
            recovered = {one.sequence for one in only_new}
            assert all(
                one.sequence in recovered if one.origin == "backfill" else in_seam(one.epoch, one.received_at)
                for one in only_old
            ), (topic, place, only_old)
    assert compared > 5_000

    def gaps(stored: list[Stored]) -> list[tuple[Any, ...]]:
        """What is told of gaps that neither a change of owners nor the last moments of one made."""
        names = ("id", "lastSequence", "endTime", "cause", "status", "recovered", "detectedAt")
        return sorted(
            (
                tuple(gap[name] for name in names)
                for gap in shown(stored)
                if gap["cause"] != "restart"
                and not any(end - SEAM_MICROS < gap["detectedAt"] <= end for end in ends.values())
            ),
            key=repr,
        )

    told = gaps(live["binance.prod.gaps"])
    assert len(told) > 10
    assert gaps(again["again.prod.gaps"]) == told
