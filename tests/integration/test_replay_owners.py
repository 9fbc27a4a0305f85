"""Raw topics that several owners wrote, one after another, give the same records again, through processes and Kafka."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.processes import BridgeProcess, SimulatorProcess, bridge, command, simulator, until
from tests.integration.reading import Stored, read
from tests.integration.test_replay import assert_the_same, by_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

SHARDS = 2
RUN_SECONDS = 6.0
QUIET_SECONDS = 1.5
FAULTS: tuple[dict[str, Any], ...] = (
    {"every": 0.7, "fault": "skip", "stream": "*@aggTrade", "count": 2},
    {"every": 0.9, "fault": "skip", "stream": "*@depth@100ms", "count": 2},
    {"every": 0.5, "fault": "reorder", "stream": "*@aggTrade", "count": 3, "seconds": 1},
    {"every": 0.6, "fault": "reorder", "stream": "*@depth@100ms", "count": 2, "seconds": 1},
    {"every": 0.4, "fault": "duplicate", "count": 5},
)
"""They go on for ever: some message is held back at any moment, also at the stop."""


def after(exchange: SimulatorProcess, seconds: float) -> None:
    """Wait until the exchange has gone on for so long."""
    began = exchange.state()["seconds"]
    until(lambda: exchange.state()["seconds"] > began + seconds, "the market goes on")


def still(running: BridgeProcess) -> bool:
    """Whether nothing comes any more, nothing is missing, and everything is published."""
    before = running.status()
    until(
        lambda: running.status()["uptime_seconds"] > before["uptime_seconds"] + QUIET_SECONDS, "time goes on"
    )
    same = sum(market["messages"] for market in before["markets"]) == running.messages()
    return same and running.status()["gaps"]["open"] == 0 and running.drained()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, list[Stored]]]]:
    """Three live runs, the first stopped and the second killed, and one replay: the topics of both namespaces."""
    from bridge.local.kafka import LocalKafka

    directory = tmp_path_factory.mktemp("owners")
    with LocalKafka() as kafka, simulator(directory, "--symbols", "3", "--rate", "200") as exchange:
        settings = {
            "environment": "prod",
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "endpoints": exchange.endpoints,
            "shards": SHARDS,
            "snapshot_interval_seconds": 2,
            "session_timeout_seconds": 10,
            "stop_timeout_seconds": 90,
            "subscriptions": [
                {
                    "market": "spot", "symbols": "*",
                    "channels": ["agg-trade", "trade", "depth", "kline_1s", "ticker", "mini-ticker@arr"],
                },
                {"market": "usdm", "symbols": "*", "channels": ["agg-trade", "depth", "ticker@arr"]},
                {"market": "coinm", "symbols": "*", "channels": ["agg-trade", "depth", "kline_1m"]},
            ],
        }  # fmt: skip
        exchange.faults(*FAULTS)
        with bridge(directory, settings) as first:
            until(first.ready, "the first bridge is ready")
            after(exchange, RUN_SECONDS)
            first.terminate()
            assert first.wait(120) == 0, first.err[-3000:]
        with bridge(directory, settings) as second:
            until(second.ready, "the second bridge is ready")
            after(exchange, RUN_SECONDS)
            # What a killed owner had not sent yet is in no topic; so that all can be compared there is nothing.
            exchange.faults({"fault": "stall", "count": "all", "seconds": 300})
            until(lambda: still(second), "the second bridge has published all it has")
            second.end()
        with bridge(directory, settings) as third:
            until(third.ready, "the third bridge is ready")
            after(exchange, RUN_SECONDS)
            third.terminate()
            assert third.wait(120) == 0, third.err[-3000:]
        replayed = command(
            "replay", "--into", "again", "--json", "--config", str(third.config), cwd=directory
        )
        assert replayed.returncode == 0, replayed.stderr
        live = read(kafka.bootstrap_servers, "prod")
        again = read(kafka.bootstrap_servers, "prod", namespace="again")
        records = sum(len(stored) for topic, stored in again.items() if ".unified." in topic)
        assert json.loads(replayed.stdout)["records"] == records
        yield {"live": live, "again": again}


def shown(stored: list[Stored]) -> list[dict[str, Any]]:
    """Return the gaps that messages and answers show; stretches without a connection the live bridge alone knows."""
    timed = {"ticker", "mini-ticker"}
    return [record for record in (one.record for one in stored) if record["channel"] not in timed]


def epochs(topics: Mapping[str, list[Stored]], structure: str, key: str) -> list[int]:
    """Return the epochs of a key's records, each once, in order."""
    return list(
        dict.fromkeys(
            one.record["writerEpoch"] for one in topics[f"binance.prod.unified.{structure}"] if one.key == key
        )
    )


def test_the_same_records_in_the_same_order(run: dict[str, dict[str, list[Stored]]]) -> None:
    """Every unified topic holds the same records by key, byte for byte but for origin, across a stop and a kill."""
    assert assert_the_same(run["live"], run["again"]) > 3_000
    keys = {one.key for one in run["live"]["binance.prod.unified.trade"]}
    written = [epochs(run["live"], "trade", key) for key in keys]
    assert all(len(of_key) == 3 and of_key == sorted(of_key) for of_key in written), written
    assert len({tuple(of_key) for of_key in written}) == SHARDS


def books(stored: list[Stored]) -> dict[str, set[int]]:
    """Return the epochs in which each book was published whole."""
    owners: dict[str, set[int]] = {}
    for one in stored:
        record = one.record
        if record["type"] == "snapshot":
            owners.setdefault(one.key, set()).add(record["writerEpoch"])
    return owners


def test_each_owner_has_a_book_of_its_own(run: dict[str, dict[str, list[Stored]]]) -> None:
    """Each book is published whole again in the time of each owner that published it."""
    owners = books(run["again"]["again.prod.unified.order-book"])
    assert owners == books(run["live"]["binance.prod.unified.order-book"])
    assert sum(len(found) == 3 for found in owners.values()) > len(owners) / 2


def test_the_same_gaps(run: dict[str, dict[str, list[Stored]]]) -> None:
    """What no owner received is named again, with the same cause, and filled from the same answers."""
    live, again = (
        by_key(run[which][f"{name}.prod.gaps"]) for which, name in (("live", "binance"), ("again", "again"))
    )
    wanted = {key: gaps for key, stored in live.items() if (gaps := shown(stored))}
    assert {key: shown(stored) for key, stored in again.items()} == wanted
    told = [gap for gaps in wanted.values() for gap in gaps]
    restarts = [gap for gap in told if gap["cause"] == "restart"]
    assert len({gap["writerEpoch"] for gap in restarts}) == 2 * SHARDS
    assert {gap["status"] for gap in restarts} == {"open", "filled", "unrecoverable"}


def test_the_same_dead_letters(run: dict[str, dict[str, list[Stored]]]) -> None:
    """Nothing that could be derived live can't be derived again."""
    live, again = (
        run[which][f"{name}.prod.dead-letter"] for which, name in (("live", "binance"), ("again", "again"))
    )
    assert [one.record for one in again] == [one.record for one in live] == []
