"""Owners of a stream follow each other in its raw records, and what is derived follows them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from bridge.catalogue import TopicNames, catalogue
from bridge.core.instruments import Answer, InstrumentHistory, parse_exchange_info
from bridge.model import MARKETS
from bridge.replay.rederive import API, RawRecord, Rederiver
from bridge.schema import schemas
from tests.core.test_gap_filling import History
from tests.core.test_pipeline import NOW, SECOND, Bench, _mini, _trade
from tests.derived import KeepingPublisher

if TYPE_CHECKING:
    from collections.abc import Iterable

HOLD_MS = 250
HELD = SECOND // 10
"""Less than a message that came early is held for."""


def _depth(first: int, last: int) -> bytes:
    data = {
        "e": "depthUpdate", "E": 1_795_305_600_000 + last, "s": "BTCUSDT", "U": first, "u": last,
        "b": [["1", str(last)]], "a": [],
    }  # fmt: skip
    return json.dumps({"stream": "btcusdt@depth", "data": data}, separators=(",", ":")).encode()


def _snapshot(last: int) -> bytes:
    return json.dumps({"lastUpdateId": last, "bids": [["1", "7"]], "asks": [["2", "7"]]}).encode()


class Again:
    """A replay of raw records as owners left them, on the spot market."""

    def __init__(self, epochs: Iterable[int] = (1,)) -> None:
        self.publisher = KeepingPublisher()
        body = json.dumps(Bench("spot", ["trade"]).exchange_info()).encode()
        server_time, table = parse_exchange_info("spot", body)
        history = self.history = {market: InstrumentHistory() for market in MARKETS}
        for number, epoch in enumerate(epochs):
            history["spot"].add(Answer(NOW - SECOND + number, server_time, number, table, epoch))
        self.rederiver = Rederiver(
            catalogue=catalogue(), schemas=schemas(), names=TopicNames("prod"), publisher=self.publisher,
            structures=frozenset(schemas()), symbols=None, history=history, hold_ms=HOLD_MS, run_id="x",
        )  # fmt: skip
        self.now = NOW
        self.number = 0
        self.listed = len(table)

    def message(self, epoch: int, channel: str, payload: bytes, after: int = SECOND) -> None:
        """Take a message of BTCUSDT that its owner received so many microseconds after the one before."""
        stream = json.loads(payload)["stream"]
        self._take(epoch, channel, stream, "BTCUSDT", payload, after)

    def on(self, connection: int, *ids: int) -> None:
        """Take trades that the first owner received on one of its connections."""
        for one in ids:
            self._take(1, "trade", "btcusdt@trade", "BTCUSDT", _trade(one), SECOND, connection)

    def trades(self, epoch: int, *ids: int, after: int = SECOND) -> None:
        """Take trades."""
        for one in ids:
            self.message(epoch, "trade", _trade(one), after)

    def answer(self, epoch: int, path: str, body: bytes, **query: Any) -> None:
        """Take an answer about BTCUSDT."""
        self._take(epoch, API, f"{path}?{urlencode({'symbol': 'BTCUSDT', **query})}", None, body, SECOND)

    def _take(
        self,
        epoch: int,
        channel: str,
        stream: str,
        symbol: str | None,
        payload: bytes,
        after: int,
        connection: int | None = None,
    ) -> None:
        self.now += after
        self.number += 1
        if connection is None:
            connection = 0 if channel == API else epoch
        self.rederiver.take(
            RawRecord("spot", channel, stream, symbol, connection, self.number, self.now, epoch, payload)
        )

    def kept(self, structure: str) -> list[dict[str, Any]]:
        """Return the records of a structure."""
        return [k.record for k in self.publisher.of("unified", structure)]

    def ids(self) -> list[tuple[int, int]]:
        """Return epoch and id of the trades."""
        return [(r["writerEpoch"], r["sequence"]) for r in self.kept("trade")]

    def gaps(self) -> list[tuple[int, int, int, str, str]]:
        """Return epoch, first, last, cause and status of the gap records."""
        return [
            (r["writerEpoch"], r["firstSequence"], r["lastSequence"], r["cause"], r["status"])
            for r in (k.record for k in self.publisher.of("gaps"))
        ]


def test_a_new_owner_goes_on_behind_the_one_before() -> None:
    """It drops what its predecessor published, and what neither received is a gap of the restart."""
    again = Again()
    again.trades(1, 1, 2)
    again.trades(2, 2, 5)
    again.rederiver.drain()
    assert again.ids() == [(1, 1), (1, 2), (2, 5)]
    assert again.gaps() == [(2, 3, 4, "restart", "open")]


def test_every_connection_of_a_stream_goes_on_with_newer_instruments() -> None:
    """Not only the one whose message is the first after they changed."""
    again = Again()
    answer = Bench("spot", ["trade"]).exchange_info()
    for row in answer["symbols"]:
        if row["symbol"] == "BTCUSDT":
            row["baseAsset"] = "XYZ"
    server_time, table = parse_exchange_info("spot", json.dumps(answer).encode())
    again.history["spot"].add(Answer(again.now + 2 * SECOND + 1, server_time, 9, table, 1))
    again.on(1, 1)
    again.on(2, 2)
    again.on(1, 3)
    again.on(2, 4)
    assert [r["symbol"] for r in again.kept("trade")] == ["BTC/USDT", "BTC/USDT", "XYZ/USDT", "XYZ/USDT"]


def test_what_an_owner_held_at_its_end_is_derived_before_anything_of_the_next() -> None:
    """As at a stop: also what it held of a stream that the next owner has no message of yet."""
    again = Again()
    again.trades(1, 1)
    again.message(1, "mini-ticker", _mini(1), HELD)
    again.trades(1, 3, after=HELD)
    again.message(2, "mini-ticker", _mini(2), HELD)
    assert again.ids() == [(1, 1), (1, 3)]
    assert again.gaps() == [(1, 2, 2, "sequence", "open")]
    assert [k.topic.rpartition(".")[2] for k in again.publisher.kept] == [
        "trade",
        "ticker",
        "gaps",
        "trade",
        "ticker",
    ]
    again.trades(2, 6)
    again.rederiver.drain()
    assert again.ids() == [(1, 1), (1, 3), (2, 6)]
    assert again.gaps()[1:] == [(2, 4, 5, "restart", "open")]


def test_what_an_earlier_owner_sends_late_is_dropped() -> None:
    """Readers drop it too: the stream has another owner."""
    again = Again()
    again.trades(1, 1)
    again.trades(2, 2)
    again.trades(1, 3)
    again.trades(2, 4)
    again.rederiver.drain()
    assert again.ids() == [(1, 1), (2, 2), (2, 4)]
    assert again.gaps() == [(2, 3, 3, "sequence", "open")]


def test_another_shard_keeps_its_owner() -> None:
    """One stream has passed on, the other goes on where it is."""
    again = Again()
    again.trades(1, 1)
    again.message(5, "mini-ticker", _mini(1))
    again.message(6, "mini-ticker", _mini(2))
    again.trades(1, 2)
    assert again.ids() == [(1, 1), (1, 2)]
    assert again.gaps() == []


def test_a_value_that_a_new_owner_receives_again_is_there_again() -> None:
    """Streams without ids have nothing that would tell a new owner that it was published."""
    again = Again()
    for epoch in (1, 1, 2, 2):
        again.message(epoch, "mini-ticker", _mini(1))
    assert [r["writerEpoch"] for r in again.kept("ticker")] == [1, 2]


def test_a_new_owner_begins_without_a_book() -> None:
    """A snapshot of its own makes its book, whatever the book of the owner before still was."""
    again = Again()
    again.message(1, "depth", _depth(1, 5))
    again.answer(1, "/api/v3/depth", _snapshot(5), limit=1000)
    again.message(2, "depth", _depth(9, 12))
    again.answer(1, "/api/v3/depth", _snapshot(12), limit=1000)
    again.answer(2, "/api/v3/depth", _snapshot(12), limit=1000)
    again.message(2, "depth", _depth(13, 14))
    again.rederiver.drain()
    told = [(r["writerEpoch"], r["type"], r["sequence"]) for r in again.kept("order-book")]
    assert told == [
        (1, "delta", 5), (1, "snapshot", 5), (2, "delta", 12), (2, "snapshot", 12), (2, "delta", 14),
    ]  # fmt: skip
    assert again.gaps() == [(2, 6, 8, "restart", "unrecoverable")]


def test_a_new_owner_fills_what_the_one_before_left_open() -> None:
    """Its answer may come before any message of its own; the gap's record is the new owner's, of no message."""
    again, rows = Again(), History()
    again.trades(1, 1, 4)
    again.trades(1, 5)
    body = json.dumps([rows.row(id_) for id_ in (2, 3)]).encode()
    again.answer(2, "/api/v3/historicalTrades", body, fromId=2, limit=2)
    again.answer(1, "/api/v3/historicalTrades", body, fromId=2, limit=2)
    again.trades(2, 6)
    assert again.ids() == [(1, 1), (1, 4), (1, 5), (2, 2), (2, 3), (2, 6)]
    assert again.gaps() == [(1, 2, 3, "sequence", "open"), (2, 2, 3, "sequence", "filled")]
    found, filled = (k.record for k in again.publisher.of("gaps"))
    assert (filled["id"], filled["detectedAt"]) == (found["id"], found["detectedAt"])
    assert (filled["connectionId"], filled["connectionSequence"], filled["recovered"]) == (None, None, 2)


def test_each_owner_publishes_all_instruments_once() -> None:
    """A second answer of the same owner repeats none that is as it was."""
    again = Again(epochs=(1, 1, 4))
    again.rederiver.markets("spot", 0, 1 << 62)
    epochs = [record["writerEpoch"] for record in again.kept("market")]
    assert again.listed > 1
    assert epochs == [1] * again.listed + [4] * again.listed


def test_a_range_does_not_repeat_what_its_owner_published_before() -> None:
    """Answers before the range are known to have been there."""
    again = Again(epochs=(1, 1, 4))
    again.rederiver.markets("spot", NOW - SECOND + 1, 1 << 62)
    assert {record["writerEpoch"] for record in again.kept("market")} == {4}


def test_a_message_that_makes_no_record_is_a_gap() -> None:
    """As live: the dead letter has its bytes, and the stream lacks its event."""
    again = Again()
    again.trades(1, 1)
    again.message(1, "trade", _trade(2, s="ETHUSDT"))
    again.trades(1, 3)
    assert again.ids() == [(1, 1), (1, 3)]
    assert [k.record["reason"] for k in again.publisher.of("dead-letter")] == ["unify"]
    assert again.gaps() == [(1, 2, 2, "dead-letter", "unrecoverable")]
