"""What a live run wrote to raw gives the same records again, through processes and Kafka."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.processes import bridge, command, simulator, until
from tests.integration.reading import Stored, decode, read

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


pytestmark = pytest.mark.kafka

RUN_SECONDS = 10.0
FAULTS: tuple[dict[str, Any], ...] = (
    {"every": 0.7, "until": 8.5, "fault": "skip", "stream": "*@aggTrade", "count": 2},
    {"every": 0.9, "until": 8.5, "fault": "skip", "stream": "*@depth@100ms", "count": 2},
    {"every": 0.5, "until": 8.5, "fault": "reorder", "stream": "*@aggTrade", "count": 3, "seconds": 1},
    {"every": 0.6, "until": 8.5, "fault": "reorder", "stream": "*@depth@100ms", "count": 2, "seconds": 1},
    {"every": 0.4, "until": 8.5, "fault": "duplicate", "count": 5},
    {"every": 2.0, "until": 8.5, "fault": "garbage", "market": "spot", "kind": "truncated", "count": "all"},
    {"at": 3, "fault": "stall", "count": "all", "seconds": 1},
    {"at": 5.5, "fault": "drop", "count": "all"},
)


def unmasked(value: bytes) -> tuple[bytes, int, bytes]:
    """Split a unified record around its origin: what stands before, the origin, what comes after."""
    at = 10
    for kind in ("text", "enum", "text", "text"):  # symbol, market, exchangeSymbol, channel
        number, shift = 0, 0
        while True:
            byte = value[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at += number >> 1 if kind == "text" else 0
    return value[:at], value[at] >> 1, value[at + 1 :]


def by_key(stored: list[Stored]) -> dict[str, list[Stored]]:
    """Group records by key, in order."""
    found: dict[str, list[Stored]] = defaultdict(list)
    for one in stored:
        found[one.key].append(one)
    return found


def assert_the_same(live: Mapping[str, list[Stored]], again: Mapping[str, list[Stored]]) -> int:
    """Compare unified topics by key and in order, byte for byte but for origin; return how many records there are."""
    compared = 0
    for topic, stored in live.items():
        namespace, _, rest = topic.partition(".")
        assert namespace == "binance"
        if ".unified." not in topic:
            continue
        before, after = by_key(stored), by_key(again[f"again.{rest}"])
        assert {k: len(v) for k, v in after.items()} == {k: len(v) for k, v in before.items()}, topic
        for key, records in before.items():
            for one, other in zip(records, after[key], strict=True):
                head, origin, tail = unmasked(one.value)
                assert unmasked(other.value) == (head, 3, tail), (
                    topic,
                    key,
                    decode(one.value),
                    decode(other.value),
                )
                assert origin != 3
                assert other.timestamp == one.timestamp
                assert dict(other.headers).keys() == {"version", "run-id"}
                assert dict(other.headers)["version"] == dict(one.headers)["version"]
                compared += 1
    return compared


def told(stored: list[Stored]) -> list[dict[str, Any]]:
    """Return gaps or dead letters that messages of a stream show, without the namespace of the topic they name."""
    found = [one.record for one in stored]
    for record in found:
        if "topic" in record:
            record["topic"] = record["topic"].partition(".")[2]
    # What no message shows, the connections told: replay reads messages only.
    return [r for r in found if r.get("cause") != "disconnected" and r.get("reason") != "unknown"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, list[Stored]]]]:
    """A live run full of faults and its replay: the topics of both namespaces."""
    from bridge.local.kafka import LocalKafka

    directory = tmp_path_factory.mktemp("replay")
    with LocalKafka() as kafka, simulator(directory, "--symbols", "3", "--rate", "300") as exchange:
        settings = {
            "environment": "prod",
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "endpoints": exchange.endpoints,
            "snapshot_interval_seconds": 3,
            "stop_timeout_seconds": 90,
            "subscriptions": [
                {
                    "market": "spot", "symbols": "*",
                    "channels": [
                        "agg-trade", "trade", "depth", "book-ticker", "kline_1s", "ticker", "mini-ticker@arr",
                        "partial-depth_5",
                    ],
                },
                {
                    "market": "usdm", "symbols": "*",
                    "channels": ["agg-trade", "depth", "mark-price", "ticker@arr", "book-ticker"],
                },
                {"market": "coinm", "symbols": "*", "channels": ["agg-trade", "depth", "mark-price@1s", "kline_1m"]},
            ],
        }  # fmt: skip
        with bridge(directory, settings) as running:
            until(running.ready, "the bridge is ready")
            began = exchange.state()["seconds"]
            exchange.faults(*FAULTS)
            until(lambda: exchange.state()["seconds"] > RUN_SECONDS + began, "the run is over")
            running.terminate()
            assert running.wait(120) == 0
        replayed = command(
            "replay", "--into", "again", "--json", "--config", str(running.config), cwd=directory
        )
        assert replayed.returncode == 0, replayed.stderr
        told = json.loads(replayed.stdout)
        live = read(kafka.bootstrap_servers, "prod")
        again = read(kafka.bootstrap_servers, "prod", namespace="again")
        assert told["records"] == sum(len(v) for topic, v in again.items() if ".unified." in topic)
        yield {"live": live, "again": again}


def test_the_same_records_byte_for_byte_but_for_origin(run: dict[str, dict[str, list[Stored]]]) -> None:
    """Every unified topic holds the same records in the same order by key, in a run with every kind of disorder."""
    assert assert_the_same(run["live"], run["again"]) > 3_000


def test_the_same_gaps(run: dict[str, dict[str, list[Stored]]]) -> None:
    """The gaps that ids show are found again, each with the message that showed it."""
    live, again = (
        by_key(run[which][f"{name}.prod.gaps"]) for which, name in (("live", "binance"), ("again", "again"))
    )
    wanted = {key: gaps for key, stored in live.items() if (gaps := told(stored))}
    assert sum(map(len, wanted.values())) > 10
    assert {key: told(stored) for key, stored in again.items()} == wanted


def test_the_same_dead_letters(run: dict[str, dict[str, list[Stored]]]) -> None:
    """A message that could not be derived cannot be derived again, for the same reason."""
    live, again = (
        run[which][f"{name}.prod.dead-letter"] for which, name in (("live", "binance"), ("again", "again"))
    )
    assert told(live)
    assert told(again) == told(live)
