"""Bridges that share the shards, die, stand still and come back: what Kafka holds then against the ground truth."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml

from bridge.sdk import connect
from tests.accounting import Evidence, Truth, account
from tests.integration.processes import BridgeProcess, command, simulator, until
from tests.integration.reading import read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bridge.local.kafka import LocalKafka
    from tests.accounting import Account
    from tests.integration.processes import SimulatorProcess
    from tests.kafka_fixture import OwnKafka

pytestmark = pytest.mark.kafka

SHARDS = 4
SESSION_SECONDS = 10
HELD_SECONDS = 1.0
"""More than a message that came early is held for."""

SUBSCRIPTIONS = [
    {"market": "spot", "symbols": "*", "channels": ["agg-trade", "trade", "kline_1s"]},
    {"market": "usdm", "symbols": "*", "channels": ["agg-trade"]},
]
"""All of them can be filled, so that nothing need be missing in the end."""


class Found(NamedTuple):
    """What a run left behind.

    Attributes:
        told: what the oracle says of the topics.
        evidence: what the topics hold.
        through_sdk: market, channel, symbol and id of every trade that the SDK gives.
        recount: exit status and output of ``coverage --recount``.
    """

    told: Account
    evidence: Evidence
    through_sdk: list[tuple[Any, ...]]
    recount: tuple[int, str]


class Fleet:
    """Bridges on one exchange and one Kafka."""

    def __init__(self, directory: Path, kafka: LocalKafka, exchange: SimulatorProcess) -> None:
        self.directory, self.kafka, self.exchange = directory, kafka, exchange
        self.running: list[BridgeProcess] = []
        self.crashed: set[str] = set()

    def start(self, name: str, **more: Any) -> BridgeProcess:
        """Start a bridge and wait until it is at work."""
        settings = {
            "environment": "prod",
            "kafka": {"bootstrap_servers": self.kafka.bootstrap_servers},
            "endpoints": self.exchange.endpoints,
            "subscriptions": SUBSCRIPTIONS,
            "shards": SHARDS,
            "session_timeout_seconds": SESSION_SECONDS,
            "stop_timeout_seconds": 90,
            **more,
        }
        one = BridgeProcess(self.directory, settings, name=name)
        self.running.append(one)
        until(one.ready, f"{name} is ready")
        return one

    def kill(self, one: BridgeProcess) -> None:
        """SIGKILL."""
        self.crashed.add(one.name)
        self.running.remove(one)
        one.end()

    def stop(self, one: BridgeProcess) -> None:
        """SIGTERM; it has to end well."""
        self.running.remove(one)
        one.terminate()
        assert one.wait(120) == 0, one.err[-3000:]

    def owned(self) -> list[int]:
        """Return the shards of all bridges, sorted."""
        return sorted(shard for one in self.running for shard in epochs(one))

    def after(self, seconds: float) -> None:
        """Wait until the exchange has gone on for so long."""
        began = self.exchange.state()["seconds"]
        until(lambda: self.exchange.state()["seconds"] > began + seconds, "the market goes on")

    def settled(self) -> bool:
        """Whether all bridges are ready and miss nothing."""
        return all(one.ready() and one.status()["gaps"]["open"] == 0 for one in self.running)

    def finish(self, truth: Path) -> Found:
        """End the market and all bridges, and read what is there."""
        self.after(2.0)
        until(self.settled, "no gap is open")
        self.exchange.stop_market()
        until(
            lambda: not any(c["backlog_bytes"] for c in self.exchange.state()["connections"]), "all is sent"
        )
        arrived = {one.name: one.status()["uptime_seconds"] + 2 * HELD_SECONDS for one in self.running}
        until(
            lambda: all(one.status()["uptime_seconds"] > arrived[one.name] for one in self.running),
            "nothing is held any more",
        )
        until(self.settled, "no gap is open in the end")
        until(lambda: all(one.drained() for one in self.running), "everything is published")
        servers = self.kafka.bootstrap_servers
        config = str(self.running[0].config)
        for one in list(self.running):
            self.stop(one)
        evidence = Evidence.of(read(servers, "prod"))
        told = account(Truth.read(truth), evidence, crashed=self.crashed)
        ran = command("coverage", "--recount", "--config", config, cwd=self.directory)
        return Found(told, evidence, asyncio.run(_trades(servers)), (ran.returncode, ran.stdout + ran.stderr))


async def _trades(bootstrap_servers: str) -> list[tuple[Any, ...]]:
    async with connect(bootstrap_servers, environment="prod") as client:
        reading = client.records("trade", start="earliest", end="now", late="all")
        async with reading as records:
            return [(r.market, r.channel, r.symbol, r.sequence) async for r in records]


def epochs(one: BridgeProcess) -> dict[int, int]:
    """Return the shards a bridge is at work on, with their epochs."""
    return {own["shard"]: own["epoch"] for own in one.status()["shards"]["owned"]}


def whole(found: Found) -> None:
    """Fail unless each event is there once, for whoever reads, and the bridge's own books say so too."""
    assert not found.told.problems, str(found.told)
    assert found.told.in_gaps == 0, [g for g in found.evidence.gaps if g["status"] != "filled"]
    assert found.told.published > 200
    repeated = [trade for trade, count in Counter(found.through_sdk).items() if count > 1]
    assert repeated == []
    assert found.recount[0] == 0, found.recount[1]


@pytest.fixture
def fleet(own_kafka: OwnKafka, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet without bridges so far; what still runs at the end is killed."""
    truth = str(tmp_path / "truth.jsonl")
    with simulator(tmp_path, "--symbols", "3", "--rate", "250", "--ground-truth", truth) as exchange:
        fleet = Fleet(tmp_path, own_kafka(), exchange)
        try:
            yield fleet
        finally:
            for one in fleet.running:
                one.end()


def test_what_a_killed_bridge_missed_is_backfilled(fleet: Fleet, tmp_path: Path) -> None:
    """After kill -9 and a pause the same events are there as if nothing had been: trades, aggregate trades, candles."""
    first = fleet.start("bridge")
    fleet.after(8.0)
    before = epochs(first)
    fleet.kill(first)
    fleet.after(4.0)
    again = fleet.start("bridge")
    assert again.status()["shards"]["owned"]
    assert all(epoch > max(before.values()) for epoch in epochs(again).values())
    found = fleet.finish(tmp_path / "truth.jsonl")
    whole(found)
    restarts = [gap for gap in found.evidence.gaps if gap["cause"] == "restart"]
    assert {(gap["market"], gap["channel"]) for gap in restarts if gap["status"] == "filled"} == {
        ("spot", "agg-trade"), ("spot", "trade"), ("spot", "kline"), ("usdm", "agg-trade"),
    }  # fmt: skip
    assert found.told.recovered > 50


@pytest.mark.faults
def test_the_others_take_over_what_a_killed_bridge_had(fleet: Fleet, tmp_path: Path) -> None:
    """Two bridges share the shards; when one is killed the other has all of them, and nothing is missing in the end."""
    first = fleet.start("first")
    assert sorted(epochs(first)) == [0, 1, 2, 3]
    second = fleet.start("second")
    until(lambda: len(epochs(second)) == SHARDS // 2 and fleet.owned() == [0, 1, 2, 3], "work has moved")
    fleet.after(3.0)
    had = epochs(first)
    kept = epochs(second)
    fleet.kill(first)
    until(lambda: fleet.owned() == [0, 1, 2, 3], "the shards are taken over")
    assert {shard: epochs(second)[shard] for shard in kept} == kept, "what it had it went on with"
    assert all(epochs(second)[shard] > epoch for shard, epoch in had.items())
    whole(fleet.finish(tmp_path / "truth.jsonl"))


@pytest.mark.faults
def test_a_frozen_bridge_that_wakes_publishes_nothing_more(fleet: Fleet, tmp_path: Path) -> None:
    """After SIGSTOP for longer than a session the other owns all; what wakes says that it lost them, then shares."""
    frozen, other = fleet.start("frozen"), fleet.start("other")
    until(lambda: len(epochs(other)) == SHARDS // 2 and fleet.owned() == [0, 1, 2, 3], "work is shared")
    fleet.after(3.0)
    had = epochs(frozen)
    fleet.crashed.add(frozen.name)
    frozen.popen.send_signal(signal.SIGSTOP)
    until(lambda: sorted(epochs(other)) == [0, 1, 2, 3], "the shards are taken over")
    fleet.after(2.0)
    frozen.popen.send_signal(signal.SIGCONT)
    until(lambda: epochs(frozen).keys() and fleet.owned() == [0, 1, 2, 3], "work is shared again")
    assert re.search(r"shards: lost [\d, ]+: nothing proved its membership", frozen.err)
    assert "has another owner" in frozen.err
    found = fleet.finish(tmp_path / "truth.jsonl")
    whole(found)
    assert found.told.late == 0
    told = [
        e for e in found.evidence.lifecycle if e["event"] == "shard.revoked" and e["instance"] == "frozen"
    ]
    assert {e["shard"] for e in told} >= had.keys()
    assert any("another owner" in e["reason"] for e in told)


def test_a_rolling_restart_moves_nothing(fleet: Fleet, tmp_path: Path) -> None:
    """A bridge with an instance name that is back within its session gets its own back; the other is not disturbed."""
    patient = {"session_timeout_seconds": 60}
    first, second = fleet.start("first", **patient), fleet.start("second", **patient)
    until(lambda: len(epochs(second)) == SHARDS // 2 and fleet.owned() == [0, 1, 2, 3], "work is shared")
    own, others = epochs(first), epochs(second)
    fleet.stop(first)
    again = fleet.start("first", **patient)
    assert epochs(again).keys() == own.keys()
    assert all(epoch > own[shard] for shard, epoch in epochs(again).items())
    assert epochs(second) == others, "the same epochs: nothing was taken from it"
    found = fleet.finish(tmp_path / "truth.jsonl")
    whole(found)
    revoked = [e["instance"] for e in found.evidence.lifecycle if e["event"] == "shard.revoked"]
    assert "second" not in revoked
    assert json.dumps(found.evidence.lifecycle, default=str).count("shard.assigned") >= SHARDS + len(own)


def test_a_second_process_of_one_instance_ends_the_first(fleet: Fleet, tmp_path: Path) -> None:
    """The one that was there ends with the reason; the other has its shards, and nothing is missing.

    Until its next heartbeat the first does not know, so an event may be published by both; see ADR 10.
    """
    first = fleet.start("twin")
    fleet.after(2.0)
    settings = yaml.safe_load(first.config.read_text())
    del settings["http"]
    second = BridgeProcess(tmp_path, settings, name="second")
    fleet.running.append(second)
    fleet.running.remove(first)
    fleet.crashed.add("twin")
    assert first.wait(60) == 2, "sooner than by the 90 s that a stop may take"
    assert "another process runs as instance twin" in first.err.splitlines()[-1]
    assert "Traceback" not in first.err
    until(second.ready, "the other is ready")
    assert sorted(epochs(second)) == [0, 1, 2, 3]
    found = fleet.finish(tmp_path / "truth.jsonl")
    assert found.told.convictions().keys() <= {"repeated"}, str(found.told)
    assert found.told.in_gaps == 0
