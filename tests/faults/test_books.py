"""Order books end to end: what a consumer rebuilds from Kafka is the exchange's own book at every update."""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.processes import BridgeProcess, SimulatorProcess, bridge, get, simulator, until
from tests.integration.reading import Stored, read
from tests.rebuilt import Rebuilt, Side, apply

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kafka_fixture import OwnKafka

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

SEED = 20261201
RUN_SECONDS = 30.0
QUIET_FROM = 24.0
#: Of fewer levels than a snapshot has, so that the whole book can be compared.
SYMBOLS = {
    "spot": ["BTCUSDT", "SOLUSDT"],
    "usdm": ["SOLUSDT", "BTCUSDT_261225"],
    "coinm": ["BNBUSD_PERP", "BTCUSD_270326"],
}
DEPTH = {"spot": "/api/v3/depth", "usdm": "/fapi/v1/depth", "coinm": "/dapi/v1/depth"}
PLAN: list[dict[str, Any]] = [
    {"every": 1.5, "until": QUIET_FROM, "fault": "skip", "stream": "*@depth*", "count": 1},
    {"every": 0.7, "until": QUIET_FROM, "fault": "duplicate", "stream": "*@depth*", "count": 4},
    {"every": 1.1, "until": QUIET_FROM, "fault": "reorder", "stream": "*@depth*", "count": 2, "seconds": 1},
    {"every": 5, "until": QUIET_FROM, "fault": "drop"},
    {"every": 7, "until": QUIET_FROM, "fault": "stall", "seconds": 1},
    {"at": 6, "fault": "garbage", "kind": "truncated", "count": "all"},
    {"at": 9, "fault": "ban", "status": 429, "seconds": 3},
    {"at": 15, "fault": "rotate", "market": "usdm"},
    {"at": 18, "fault": "shutdown", "market": "spot", "seconds": 2},
]
Key = tuple[str, str]


class Exchange:
    """The exchange's own books: one answer of REST and every change the exchange says it made."""

    def __init__(self, exchange: SimulatorProcess) -> None:
        self._exchange = exchange
        self._begin = {(m, s): self.answer(m, s) for m, symbols in SYMBOLS.items() for s in symbols}
        self.books: dict[Key, dict[int, tuple[Side, Side]]] = defaultdict(dict)

    def answer(self, market: str, symbol: str) -> dict[str, Any]:
        """Return the book as REST tells it now."""
        limit = 5000 if market == "spot" else 1000
        base = self._exchange.endpoints[market]["rest"]
        status, body = get(f"{base}{DEPTH[market]}?symbol={symbol}&limit={limit}")
        assert status == 200, body
        answer: dict[str, Any] = json.loads(body)
        assert max(len(answer["bids"]), len(answer["asks"])) < limit
        return answer

    def read(self, truth: Path) -> None:
        """Apply every change of the ground truth; the last book must be what REST tells."""
        newest = {key: _sides(answer) for key, answer in self._begin.items()}
        with truth.open(encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                if "n" not in line or "@depth" not in line["stream"]:
                    continue
                key = line["market"], line["stream"].partition("@")[0].upper()
                change = json.loads(line["data"])
                if change["u"] > self._begin[key]["lastUpdateId"]:
                    for side, rows in zip(newest[key], (change["b"], change["a"]), strict=True):
                        apply(side, [(Decimal(price), Decimal(amount)) for price, amount in rows])
                    self.books[key][change["u"]] = (dict(newest[key][0]), dict(newest[key][1]))


def _sides(answer: dict[str, Any]) -> tuple[Side, Side]:
    bids, asks = ({Decimal(p): Decimal(a) for p, a in answer[side]} for side in ("bids", "asks"))
    return bids, asks


def test_books_from_kafka_are_the_exchanges(own_kafka: OwnKafka, tmp_path: Path) -> None:
    """With drops, skips, repeats, swaps, rotation and refused requests, a consumer's books are true or known broken."""
    kafka = own_kafka()
    log = tmp_path / "truth.jsonl"
    arguments = ("--seed", str(SEED), "--symbols", "6", "--rate", "300", "--ground-truth", str(log))
    with simulator(tmp_path, *arguments) as exchange:
        settings = {
            "environment": "testnet",
            "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
            "endpoints": exchange.endpoints,
            "snapshot_interval_seconds": 4,
            "books": {"depth": 5000},
            "stop_timeout_seconds": 90,
            "connection": {"rotate_after_seconds": 12, "overlap_seconds": 2, "streams_per_connection": 20},
            "subscriptions": [{"market": m, "symbols": s, "channels": ["depth"]} for m, s in SYMBOLS.items()],
        }
        with bridge(tmp_path, settings) as running:
            until(running.ready, "the bridge is ready")
            until(lambda: running.status()["books"]["synced"] == 6, "the books are in sync")
            true = Exchange(exchange)
            began = exchange.state()["seconds"]
            exchange.faults(*PLAN)
            until(lambda: exchange.state()["seconds"] > RUN_SECONDS + began, "the run is over")
            until(lambda: running.status()["books"]["synced"] == 6, "the books are in sync again")
            until(lambda: _metrics_tell(running), "the metrics, once a second, tell it")
            exchange.stop_market()
            until(lambda: running.has_all_of(exchange), "all that was sent has arrived")
            until(running.drained, "everything is published")
            running.terminate()
            assert running.wait(120) == 0, running.err[-3000:]
    true.read(log)
    topics = read(
        kafka.bootstrap_servers, "testnet", only=lambda t: t.endswith((".order-book", ".lifecycle"))
    )
    books, compared, unknown = _rebuilt(topics["binance.testnet.unified.order-book"], true)
    events = [stored.record["event"] for stored in topics["binance.testnet.lifecycle"]]
    print(
        f"{compared} books compared, {unknown} changes out of sync, {sum(b.breaks for b in books.values())} breaks, "
        f"{sum(b.snapshots for b in books.values())} snapshots, {events.count('book.resync')} resyncs"
    )
    assert set(books) == {(m, s) for m, symbols in SYMBOLS.items() for s in symbols}
    assert all(book.sequence is not None for book in books.values()), "every book is in sync in the end"
    assert compared > 500
    assert sum(book.breaks for book in books.values()) >= 5
    assert events.count("book.resync") >= 5
    assert events.count("book.synced") == events.count("book.resync") + 6


def _metrics_tell(running: BridgeProcess) -> bool:
    metrics = get(f"{running.url}/metrics")[1]
    return all(
        f'binance_bridge_books_synced{{market="{market}"}} 2.0' in metrics
        and f'binance_bridge_book_resyncs_total{{market="{market}"}}' in metrics
        for market in SYMBOLS
    )


def _rebuilt(records: list[Stored], true: Exchange) -> tuple[dict[Key, Rebuilt], int, int]:
    """Rebuild each book from its records; hold it against the exchange's after each that leaves it in sync."""
    books: dict[Key, Rebuilt] = defaultdict(Rebuilt)
    compared = unknown = 0
    for stored in records:
        record = stored.record
        key = record["market"], record["exchangeSymbol"]
        book = books[key]
        book.take(record)
        if book.sequence is None:
            unknown += 1
        elif book.sequence >= min(true.books[key]):
            assert (book.bids, book.asks) == true.books[key][book.sequence], (key, book.sequence)
            compared += 1
    return books, compared, unknown
