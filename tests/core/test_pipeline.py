"""The pipeline: messages in, records queued, in order, with gaps and dead letters told."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.catalogue import ChosenStream, catalogue
from bridge.errors import UnexpectedMessage
from bridge.model import Leg, Market, StreamState
from tests.derived import KeepingPublisher, Kept, endpoint, pipeline

if TYPE_CHECKING:
    from bridge.pipeline import Pipeline

TESTS = Path(__file__).parents[1]
NOW = 1_795_305_700_000_000
SECOND = 1_000_000
WIRE = {"aggTrade": "agg-trade", "depth@100ms": "depth", "bookTicker": "book-ticker", "kline_1m": "kline"}
STRUCTURE = {"agg-trade": "trade", "depth": "order-book", "book-ticker": "bid-ask", "kline": "ohlcv"}


class Bench:
    """A pipeline with instruments and streams of one market, ready to receive."""

    def __init__(
        self,
        market: Market,
        channels: list[str],
        symbols: list[str] | None = None,
        hold_ms: int = 250,
        publisher: KeepingPublisher | None = None,
    ) -> None:
        self.market = market
        self.publisher = publisher or KeepingPublisher()
        self.pipe: Pipeline = pipeline(self.publisher, hold_ms=hold_ms)
        self.info(self.exchange_info())
        default = ["BTCUSD_PERP" if market == "coinm" else "BTCUSDT"]
        self.chosen: list[ChosenStream] = catalogue().choose(
            market, channels, default if symbols is None else symbols, None, self.pipe.instruments[market]
        )
        for one in self.chosen:
            self.pipe.add(one)
        self.publisher.kept.clear()
        self.numbers = 0

    def exchange_info(self) -> dict[str, Any]:
        """Return the answer the cases use."""
        text = (TESTS / "cases/exchange-info" / f"{self.market}.json").read_text(encoding="utf-8")
        answer = json.loads(text)
        assert isinstance(answer, dict)
        return answer

    def info(self, answer: dict[str, Any], at: int = NOW) -> None:
        """Receive an exchangeInfo answer."""
        body = json.dumps(answer).encode()
        number = self.pipe.api_answer(self.market, endpoint(self.market), at, body)
        self.pipe.exchange_info(self.market, at, body, number)

    def leg(self) -> Leg:
        """Open a connection that carries all streams."""
        self.numbers += 1
        streams = {c.stream.name.encode(): StreamState(c.stream) for c in self.chosen}
        return Leg(self.numbers, self.market, streams)

    def kept(self, *parts: str) -> list[Kept]:
        """Return what went to a topic."""
        return self.publisher.of(*parts)

    def records(self, *parts: str) -> list[dict[str, Any]]:
        """Return the records of a topic."""
        return [k.record for k in self.kept(*parts)]


def _trade(id_: int, **changes: object) -> bytes:
    data = {
        "e": "trade", "E": 1_795_305_600_000 + id_, "s": "BTCUSDT", "t": id_, "p": "84000.01", "q": "0.5",
        "T": 1_795_305_600_000 + id_, "m": True, "M": True,
    }  # fmt: skip
    return json.dumps({"stream": "btcusdt@trade", "data": data | changes}, separators=(",", ":")).encode()


def _mini(event_time: int, close: str = "1") -> bytes:
    data = {
        "e": "24hrMiniTicker", "E": event_time, "s": "BTCUSDT", "c": close, "o": "1", "h": "1", "l": "1", "v": "1",
        "q": "1",
    }  # fmt: skip
    return json.dumps({"stream": "btcusdt@miniTicker", "data": data}, separators=(",", ":")).encode()


def _kline(open_time: int, event_time: int, *, closed: bool) -> bytes:
    k = {
        "t": open_time, "T": open_time + 59_999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 2, "o": "1", "c": "1",
        "h": "1", "l": "1", "v": "1", "n": 1, "x": closed, "q": "1", "V": "1", "Q": "1", "B": "0",
    }  # fmt: skip
    data = {"e": "kline", "E": event_time, "s": "BTCUSDT", "k": k}
    return json.dumps({"stream": "btcusdt@kline_1m", "data": data}, separators=(",", ":")).encode()


# Recorded traffic


@pytest.mark.parametrize(
    ("market", "counts"),
    [
        ("spot", {"depth": 177, "book-ticker": 84, "agg-trade": 2, "kline": 2}),
        ("usdm", {"depth": 764, "book-ticker": 613, "agg-trade": 91, "kline": 67}),
        ("coinm", {"depth": 2047, "book-ticker": 2240, "agg-trade": 51, "kline": 33}),
    ],
)
def test_capture_comes_out_whole(market: Market, counts: dict[str, int]) -> None:
    """Each payload exact and in order, a unified record for each, no gap, no dead letter."""
    with gzip.open(TESTS / "captures" / f"{market}.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    bench = Bench(market, [])
    info = next(line for line in lines if line["kind"] == "rest" and "exchangeInfo" in line["url"])
    table = bench.pipe.exchange_info(market, NOW, info["body"].encode(), 0)
    url = next(line["url"] for line in lines if line["kind"] == "connect")
    names = url.partition("streams=")[2].split("/")
    symbols = sorted({name.partition("@")[0].upper() for name in names})
    channels = ["agg-trade", "depth", "book-ticker", "kline_1m"]
    bench.chosen = catalogue().choose(market, channels, symbols, None, table)
    assert {c.stream.name for c in bench.chosen} == set(names)
    for one in bench.chosen:
        bench.pipe.add(one)
    leg = bench.leg()
    bench.publisher.kept.clear()
    messages = [(int(line["at"] * SECOND), line["message"]) for line in lines if line["kind"] == "message"]

    for at, message in messages:
        bench.pipe.receive(leg, at, [message.encode()])

    sent: dict[str, list[tuple[int, int, str]]] = {channel: [] for channel in STRUCTURE}
    for number, (at, message) in enumerate(messages):
        sent[WIRE[json.loads(message)["stream"].partition("@")[2]]].append((number, at, message))
    assert {channel: len(rows) for channel, rows in sent.items()} == counts
    for channel, rows in sent.items():
        raw = bench.records("raw", market, channel)
        assert [(r["connectionSequence"], r["payload"].decode()) for r in raw] == [(n, m) for n, _, m in rows]
        unified = bench.kept("unified", STRUCTURE[channel])
        assert [k.record["connectionSequence"] for k in unified] == [n for n, _, _ in rows]
        assert [k.record["exchangeSymbol"] for k in unified] == [
            _symbol(json.loads(m)["data"]) for _, _, m in rows
        ]
        assert {table.get(k.record["exchangeSymbol"]).symbol.encode() == k.key for k in unified} == {True}
    assert not bench.kept("gaps")
    assert not bench.kept("dead-letter")
    assert len(bench.publisher.kept) == 2 * len(messages)
    assert bench.pipe.counts.messages == Counter({(market, c): n for c, n in counts.items()})
    assert sum(bench.pipe.counts.message_bytes.values()) == sum(len(m.encode()) for _, m in messages)


def _symbol(data: dict[str, Any]) -> str:
    return str(data["s"])


# What belongs to no stream


@pytest.mark.parametrize(
    "answer",
    [
        b'{"result":null,"id":1}',
        b'{"result":["btcusdt@trade"],"id":3}',
        b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":7}',
        b'{"code":2,"msg":"Invalid request: unknown method"}',
    ],
)
def test_answers_are_kept_beside_the_streams(answer: bytes) -> None:
    """They go to the market's api topic, channel control, and count in the connection's sequence."""
    bench = Bench("spot", ["trade"])
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [_trade(1), answer, _trade(2)])
    [kept] = bench.kept("raw", "spot", "api")
    wanted = {
        "channel": "control",
        "stream": "",
        "kind": "stream",
        "connectionSequence": 1,
        "payload": answer,
    }
    assert wanted.items() <= kept.record.items()
    assert kept.key.decode() == leg.shown_id
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [1, 2]
    assert not bench.kept("dead-letter")


@pytest.mark.parametrize(
    "notice",
    [
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
        b'{"e":"serverShutdown","E":1770123456789}',
    ],
)
def test_server_shutdown_is_no_dead_letter(notice: bytes) -> None:
    """The exchange's notice is kept with the answers."""
    bench = Bench("spot", ["trade"])
    bench.pipe.receive(bench.leg(), NOW, [notice])
    [kept] = bench.publisher.kept
    assert (kept.topic, kept.key) == ("binance.prod.raw.spot.api", b"!serverShutdown")
    assert kept.record["payload"] == notice


@pytest.mark.parametrize(
    ("frame", "key", "reason"),
    [
        (b'{"stream":"ethusdt@trade","data":{}}', "ethusdt@trade", "unknown"),
        (b'{"data":{"e":"trade"},"stream":"ethusdt@trade"}', "ethusdt@trade", "unknown"),
        (b'{"stream":"ethusdt@trade","data":', "ethusdt@trade", "unknown"),
        (b'{"e":"trade","s":"BTCUSDT"}', None, "parse"),
        (b"[1,2]", None, "parse"),
        (b"garbage", None, "parse"),
        (b"", None, "parse"),
        (b"\xff\xfe\x00", None, "parse"),
        (b"[" * 100_000, None, "parse"),
    ],
)
def test_unknown_messages_are_kept_and_told(frame: bytes, key: str | None, reason: str) -> None:
    """They are raw records of the channel unknown, and dead letters."""
    bench = Bench("spot", ["trade"])
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [frame])
    [raw] = bench.kept("raw", "spot", "unknown")
    [letter] = bench.kept("dead-letter")
    assert raw.record["payload"] == letter.record["payload"] == frame
    assert raw.key.decode() == letter.key.decode() == (key or leg.shown_id)
    wanted = {"reason": reason, "topic": raw.topic, "connectionId": 1, "connectionSequence": 0, "stream": key}
    assert wanted.items() <= letter.record.items()
    assert bench.pipe.counts.dead_letters == 1
    assert len(bench.publisher.kept) == 2


@pytest.mark.parametrize(
    "frame",
    [
        b'{ "stream" : "btcusdt@trade" , "data" : %s }',
        b'{"data":%s,"stream":"btcusdt@trade"}',
        b'{"new":1,"stream":"btcusdt@trade","data":%s}',
        b'\n{"stream":"btcusdt\\u0040trade","data":%s}',
        b'{"stream":"btcusdt@trade","data":%s,"new":{"a":[1]}}',
    ],
)
def test_unusually_written_wrappers_are_understood(frame: bytes) -> None:
    """Key order and white space are the exchange's to choose."""
    bench = Bench("spot", ["trade"])
    data = json.dumps(json.loads(_trade(7))["data"], indent=1).encode()
    bench.pipe.receive(bench.leg(), NOW, [frame % data])
    [raw] = bench.records("raw", "spot", "trade")
    assert raw["payload"] == frame % data
    assert [r["id"] for r in bench.records("unified", "trade")] == ["7"]
    assert not bench.kept("dead-letter")


@pytest.mark.parametrize(
    ("frame", "reason", "error"),
    [
        (_trade(1, p=84000.01), "parse", "Expected `str`, got `float`"),
        (_trade(1, p="84,000"), "unify", "'84,000' is not a decimal number"),
        (_trade(1, p="1" * 21), "unify", "does not fit decimal"),
        (_trade(1, s="ETHUSDT"), "unify", "symbol 'ETHUSDT' on the stream btcusdt@trade"),
        (_trade(1)[:-1], "parse", "truncated"),
        (b'{"stream":"btcusdt@trade","data":null}', "parse", "Expected `object`, got `null`"),
    ],
)
def test_messages_that_break_the_contract_are_dead_letters(frame: bytes, reason: str, error: str) -> None:
    """The reason says what and where; raw has the message all the same, and the next one is derived."""
    bench = Bench("spot", ["trade"])
    bench.pipe.receive(bench.leg(), NOW, [frame, _trade(2)])
    assert [r["payload"] for r in bench.records("raw", "spot", "trade")] == [frame, _trade(2)]
    [letter] = bench.records("dead-letter")
    assert (letter["reason"], letter["payload"]) == (reason, frame)
    assert letter["topic"] == "binance.prod.unified.trade"
    assert error in letter["error"]
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [2]


def test_one_odd_row_leaves_the_others_alone() -> None:
    """An array whose second row does not fit still gives the records of the others."""
    bench = Bench("spot", ["mini-ticker@arr"])
    rows = [json.loads(_mini(1_795_305_600_000, close))["data"] for close in ("1", "1e99", "2")]
    frame = json.dumps({"stream": "!miniTicker@arr", "data": rows}).encode()
    bench.pipe.receive(bench.leg(), NOW, [frame])
    assert [str(r["close"].normalize()) for r in bench.records("unified", "ticker")] == ["1", "2"]
    assert [r["reason"] for r in bench.records("dead-letter")] == ["unify"]


# Order, gaps, overlap


def test_missing_ids_make_one_gap_record() -> None:
    """After the hold time what lies between is missing, and what was held follows."""
    bench = Bench("spot", ["trade"])
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [_trade(1), _trade(2), _trade(6)])
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [1, 2]
    bench.pipe.tick(NOW + 250_000)
    assert not bench.kept("gaps")
    bench.pipe.tick(NOW + 250_001)
    [gap] = bench.kept("gaps")
    wanted = {
        "id": "spot:btcusdt@trade:3", "symbol": "BTC/USDT", "exchangeSymbol": "BTCUSDT", "channel": "trade",
        "stream": "btcusdt@trade", "firstSequence": 3, "lastSequence": 5, "startTime": None, "status": "open",
        "cause": "sequence", "recovered": 0, "connectionId": 1, "connectionSequence": 2,
    }  # fmt: skip
    assert wanted.items() <= gap.record.items()
    assert gap.key == b"BTC/USDT"
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [1, 2, 6]
    assert bench.pipe.counts.gaps_found == bench.pipe.gaps.open == 1


def test_late_message_within_the_hold_time_is_no_gap() -> None:
    """A swap is undone, silently."""
    bench = Bench("spot", ["trade"])
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [_trade(1), _trade(3)])
    bench.pipe.receive(leg, NOW + 200_000, [_trade(2)])
    bench.pipe.drain()
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [1, 2, 3]
    assert not bench.kept("gaps")


def test_draining_releases_what_is_held() -> None:
    """A stop loses nothing: what is held comes out, with its gap."""
    bench = Bench("spot", ["trade"])
    bench.pipe.receive(bench.leg(), NOW, [_trade(1), _trade(4)])
    bench.pipe.drain()
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [1, 4]
    assert [(g["firstSequence"], g["lastSequence"]) for g in bench.records("gaps")] == [(2, 3)]


def test_markers_without_a_trade_are_no_gap() -> None:
    """NA rows take an id and make no record."""
    bench = Bench("usdm", ["trade"])
    frames = [_trade(1, X="MARKET"), _trade(2, X="NA", p="0", q="0"), _trade(3, X="MARKET")]
    bench.pipe.receive(bench.leg(), NOW, frames)
    bench.pipe.drain()
    assert [r["sequence"] for r in bench.records("unified", "trade")] == [1, 3]
    assert not bench.kept("gaps")


def test_missing_candles_make_a_gap_of_time() -> None:
    """A candle that never came is missing by its open time."""
    bench = Bench("spot", ["kline_1m"])
    minute, start = 60_000, 1_795_305_600_000
    frames = [
        _kline(start, start + minute, closed=True),
        _kline(start + minute, start + minute + 5, closed=False),
        _kline(start + 4 * minute, start + 4 * minute + 5, closed=False),
    ]
    bench.pipe.receive(bench.leg(), NOW, frames)
    [gap] = bench.records("gaps")
    assert gap["firstSequence"] is None
    stretch = [int(gap[k].timestamp() * 1000) for k in ("startTime", "endTime")]
    assert stretch == [start + minute, start + 4 * minute - 1]
    assert len(bench.kept("unified", "ohlcv")) == 3


def _stretches(bench: Bench) -> list[tuple[float, float]]:
    """Return start and end of the gaps of time, in seconds after NOW."""
    gaps = bench.records("gaps")
    assert {g["firstSequence"] for g in gaps} <= {None}
    assert {g["cause"] for g in gaps} <= {"disconnected"}
    return [
        (g["startTime"].timestamp() - NOW / SECOND, g["endTime"].timestamp() - NOW / SECOND) for g in gaps
    ]


def test_stream_without_ids_tells_the_time_without_a_connection() -> None:
    """From the last sign of life of the connection that ended to the first message on the next."""
    bench = Bench("spot", ["mini-ticker"])
    first, second = bench.leg(), bench.leg()
    bench.pipe.receive(first, NOW, [_mini(1000)])
    bench.pipe.receive(first, NOW + 1 * SECOND, [_mini(2000)])
    bench.pipe.closed(first.connection_id, clean=True)
    assert not bench.kept("gaps")
    bench.pipe.receive(second, NOW + 9 * SECOND, [_mini(10_000)])
    bench.pipe.receive(second, NOW + 10 * SECOND, [_mini(11_000)])
    assert _stretches(bench) == [(1, 9)]
    assert bench.records("gaps")[0]["symbol"] == "BTC/USDT"


def test_acknowledged_stream_is_not_dark() -> None:
    """Nothing is missing while a connection is subscribed, though its first message comes later."""
    bench = Bench("spot", ["mini-ticker"])
    first, second = bench.leg(), bench.leg()
    bench.pipe.receive(first, NOW, [_mini(1000)])
    bench.pipe.receive(second, NOW, [b'{"result":null,"id":1}'])
    bench.pipe.subscribed(second.connection_id, ["btcusdt@miniTicker"], NOW + 1 * SECOND)
    first.alive_at = NOW + 2 * SECOND
    bench.pipe.closed(first.connection_id, clean=True)
    bench.pipe.receive(second, NOW + 600 * SECOND, [_mini(600_000)])
    assert _stretches(bench) == []


def test_acknowledgement_ends_the_dark() -> None:
    """Not the first message, which may be hours later."""
    bench = Bench("spot", ["mini-ticker"])
    first, second = bench.leg(), bench.leg()
    bench.pipe.receive(first, NOW, [_mini(1000)])
    first.alive_at = NOW + 2 * SECOND
    bench.pipe.closed(first.connection_id, clean=True)
    bench.pipe.receive(second, NOW + 3 * SECOND, [b'{"result":null,"id":1}'])
    bench.pipe.subscribed(second.connection_id, ["btcusdt@miniTicker"], NOW + 3 * SECOND)
    bench.pipe.receive(second, NOW + 600 * SECOND, [_mini(600_000)])
    assert _stretches(bench) == [(2, 3)]


def test_connection_found_dead_leaves_a_gap_before_the_other_came() -> None:
    """Nobody knows what it lost between its last sign of life and the other connection's start."""
    bench = Bench("spot", ["mini-ticker"])
    first, second = bench.leg(), bench.leg()
    bench.pipe.receive(first, NOW, [_mini(1000)])
    bench.pipe.receive(second, NOW + 30 * SECOND, [_mini(30_000)])
    bench.pipe.closed(first.connection_id, clean=False)
    assert _stretches(bench) == [(0, 30)]


def test_stream_with_ids_needs_no_time_without_a_connection() -> None:
    """Its ids tell what is missing, and here nothing is."""
    bench = Bench("spot", ["trade"])
    first, second = bench.leg(), bench.leg()
    bench.pipe.receive(first, NOW, [_trade(1)])
    bench.pipe.closed(first.connection_id, clean=False)
    bench.pipe.receive(second, NOW + 9 * SECOND, [_trade(2)])
    bench.pipe.drain()
    assert not bench.kept("gaps")


def test_stream_that_another_connection_carries_is_not_dark() -> None:
    """The old connection of a rotation goes when the new one has its first message."""
    bench = Bench("spot", ["mini-ticker"])
    first, second = bench.leg(), bench.leg()
    bench.pipe.receive(first, NOW, [_mini(1000)])
    bench.pipe.receive(second, NOW + 1, [_mini(1000), _mini(2000)])
    bench.pipe.closed(first.connection_id, clean=True)
    bench.pipe.closed(first.connection_id, clean=True)
    bench.pipe.receive(second, NOW + SECOND, [_mini(3000)])
    assert not bench.kept("gaps")
    assert len(bench.kept("unified", "ticker")) == 3


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 6)), min_size=1, max_size=20),
    st.integers(1, 12),
)
def test_overlapping_connections_repeat_nothing(steps: list[tuple[bool, int]], joins_at: int) -> None:
    """However two connections are ahead of one another, each trade is one record, in order, and raw has both."""
    bench = Bench("spot", ["trade", "depth"])
    old, new = bench.leg(), bench.leg()
    at = {1: 1, 2: joins_at}
    sent = 0
    for number, (first, count) in enumerate(steps):
        leg = old if first else new
        if leg is new and at[1] < joins_at:
            continue  # the new one subscribes when the old one is there
        ids = range(at[leg.connection_id], at[leg.connection_id] + count)
        at[leg.connection_id] += count
        bench.pipe.receive(leg, NOW + number, [_trade(i) for i in ids])
        sent += count
    bench.pipe.drain()
    seen = [r["sequence"] for r in bench.records("unified", "trade")]
    assert seen == sorted(set(seen))
    assert len(bench.kept("raw", "spot", "trade")) == sent
    missing = {i for g in bench.records("gaps") for i in range(g["firstSequence"], g["lastSequence"] + 1)}
    assert missing.isdisjoint(seen)
    if seen:
        assert sorted({*seen, *missing}) == list(range(seen[0], seen[-1] + 1))


# Newest values and instruments


def test_state_has_the_newest_value_of_each_key() -> None:
    """Once in an interval, and only of what is new."""
    bench = Bench("spot", ["mini-ticker", "trade"], ["BTCUSDT", "BNBUSDT"])
    leg = bench.leg()
    bench.pipe.tick(NOW)
    other = _mini(1500).replace(b"btcusdt@", b"bnbusdt@").replace(b"BTCUSDT", b"BNBUSDT")
    bench.pipe.receive(leg, NOW + 1, [_mini(1000), _trade(1), _mini(2000, "3"), other])
    bench.pipe.tick(NOW + SECOND - 1)
    assert not bench.kept("state", "ticker")
    bench.pipe.tick(NOW + SECOND)
    state = bench.kept("state", "ticker")
    assert [k.key for k in state] == [b"BTC/USDT", b"BNB/USDT"]
    assert state[0].value == bench.kept("unified", "ticker")[1].value
    assert state[0].timestamp_ms == 2000
    bench.pipe.tick(NOW + 3 * SECOND)
    assert len(bench.kept("state", "ticker")) == 2
    assert not bench.kept("state", "trade")
    bench.pipe.receive(leg, NOW + 4 * SECOND, [_mini(3000)])
    bench.pipe.drain()
    assert len(bench.kept("state", "ticker")) == 3


def test_state_is_of_one_window() -> None:
    """A ticker of the last four hours never stands for the day's, which has the same key."""
    bench = Bench("spot", ["mini-ticker", "rolling-ticker_4h"])
    rolling = json.loads(_mini(2000))["data"] | {
        "e": "4hTicker", "p": "0", "P": "0", "w": "1", "O": 0, "C": 2000, "F": 1, "L": 1, "n": 1,
    }  # fmt: skip
    frame = json.dumps({"stream": "btcusdt@ticker_4h", "data": rolling}, separators=(",", ":")).encode()
    bench.pipe.receive(bench.leg(), NOW, [_mini(1000), frame])
    bench.pipe.drain()
    assert [r["window"] for r in bench.records("unified", "ticker")] == ["24h", "4h"]
    assert [r["window"] for r in bench.records("state", "ticker")] == ["24h"]


def test_refresh_publishes_what_changed_and_is_used_at_once() -> None:
    """A renamed or new instrument counts from the next message on; an unchanged table publishes nothing."""
    bench = Bench("spot", ["mini-ticker@arr", "trade"])
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [_trade(1)])
    bench.info(bench.exchange_info())
    assert not bench.kept("unified", "market")
    assert len(bench.kept("raw", "spot", "api")) == 1

    answer = bench.exchange_info()
    listing = dict(answer["symbols"][2], symbol="NEWUSDT", baseAsset="NEW")
    answer["symbols"][2]["baseAsset"] = "XBTC"
    answer["symbols"].append(listing)
    bench.info(answer, NOW + SECOND)
    assert [r["id"] for r in bench.records("unified", "market")] == ["BTCUSDT", "NEWUSDT"]
    [_, raw] = bench.kept("raw", "spot", "api")
    way_back = (raw.record["connectionSequence"], raw.record["kind"], raw.record["stream"])
    assert way_back == (
        bench.records("unified", "market")[0]["connectionSequence"],
        "rest",
        "/api/v3/exchangeInfo",
    )
    assert raw.key == b"/api/v3/exchangeInfo"

    row = json.loads(_mini(1_795_305_600_000))["data"] | {"s": "NEWUSDT"}
    frame = json.dumps({"stream": "!miniTicker@arr", "data": [row]}).encode()
    bench.pipe.receive(leg, NOW + 2 * SECOND, [_trade(2), frame])
    assert [r["symbol"] for r in bench.records("unified", "trade")] == ["BTC/USDT", "XBTC/USDT"]
    assert [r["symbol"] for r in bench.records("unified", "ticker")] == ["NEW/USDT"]


def test_a_limit_that_changed_is_published_once() -> None:
    """Limits matter to no record of a stream, so nothing else is made anew; yet the next refresh knows them."""
    bench = Bench("spot", ["trade"])
    answer = bench.exchange_info()
    lot_size = next(f for f in answer["symbols"][0]["filters"] if f["filterType"] == "LOT_SIZE")
    lot_size["minQty"] = "0.12300000"
    bench.info(answer, NOW + SECOND)
    bench.info(answer, NOW + 2 * SECOND)
    assert [r["id"] for r in bench.records("unified", "market")] == [answer["symbols"][0]["symbol"]]


def test_refused_exchange_info_changes_nothing() -> None:
    """An error answer leaves the table as it was."""
    bench = Bench("spot", ["trade"])
    before = bench.pipe.instruments["spot"]
    with pytest.raises(UnexpectedMessage):
        bench.pipe.exchange_info("spot", NOW, b'{"code":-1003,"msg":"Too many requests"}', 1)
    assert bench.pipe.instruments["spot"] is before


def test_contract_information_asks_for_instruments() -> None:
    """The bridge learns of a listing from the stream."""
    bench = Bench("usdm", ["contract-info", "trade"])
    asked: list[str] = []
    bench.pipe.on_contract_info = asked.append
    data = b'{"stream":"!contractInfo","data":{"e":"contractInfo","E":1795305606000,"s":"IOTAUSDT","st":1}}'
    bench.pipe.receive(bench.leg(), NOW, [_trade(1), data])
    assert asked == ["usdm"]
    [raw] = bench.kept("raw", "usdm", "contract-info")
    assert (raw.key, raw.timestamp_ms) == (b"!contractInfo", 1795305606000)


def test_times_that_cannot_be_are_not_believed() -> None:
    """A record is stamped with the time of receipt where the message's own is absurd."""
    bench = Bench("spot", ["mini-ticker"])
    bench.pipe.receive(bench.leg(), NOW, [_mini(-5), _mini(1 << 60)])
    assert {k.timestamp_ms for k in bench.kept("raw", "spot", "mini-ticker")} == {NOW // 1000}
    assert {r["eventTime"] for r in bench.records("raw", "spot", "mini-ticker")} == {None}


def test_record_of_a_time_that_kafka_refuses_is_stamped_with_its_receipt() -> None:
    """Kafka takes no record an hour ahead of its clock: the event keeps its time, its records get the receipt's."""
    bench = Bench("spot", ["mini-ticker"])
    now = NOW // 1000
    soon, ahead = now + 1_800_000, now + 3_600_000
    bench.pipe.receive(bench.leg(), NOW, [_mini(soon), _mini(ahead)])
    for topic in (("raw", "spot", "mini-ticker"), ("unified", "ticker")):
        assert [k.timestamp_ms for k in bench.kept(*topic)] == [soon, now]
        times = [r["eventTime"].timestamp() * 1000 for r in bench.records(*topic)]
        assert times == [soon, ahead]


def test_instruments_of_an_exchange_whose_clock_is_ahead_are_published() -> None:
    """Their records, too, have the time of receipt where Kafka would refuse the exchange's."""
    bench = Bench("spot", ["trade"])
    answer = bench.exchange_info() | {"serverTime": NOW // 1000 + 3_600_000}
    answer["symbols"][0]["status"] = "HALT"
    bench.info(answer)
    [changed] = bench.kept("unified", "market")
    assert changed.timestamp_ms == NOW // 1000


def test_record_that_kafka_refused_is_a_dead_letter_once() -> None:
    """But a refused dead letter is not written again for ever."""
    bench = Bench("spot", ["trade"])
    bench.pipe.poisoned("binance.prod.unified.trade", b"BTC/USDT", b"\xc3\x01value", 1_000, "RecordTooLarge")
    bench.pipe.poisoned("binance.prod.dead-letter", b"BTC/USDT", b"\xc3\x01value", 1_000, "RecordTooLarge")
    [letter] = bench.records("dead-letter")
    wanted = {"reason": "publish", "topic": "binance.prod.unified.trade", "payload": b"\xc3\x01value"}
    assert wanted.items() <= letter.items()


def test_dead_letter_of_a_record_does_not_share_its_time() -> None:
    """What Kafka refused for its time would be refused again as a dead letter, and nothing would tell of it."""
    bench = Bench("spot", ["trade"])
    bench.pipe.tick(NOW)
    ahead = NOW // 1000 + 86_400_000
    bench.pipe.poisoned(
        "binance.prod.unified.trade", b"BTC/USDT", b"\xc3\x01value", ahead, "InvalidTimestamp"
    )
    bench.pipe.drain()
    bench.pipe.poisoned(
        "binance.prod.unified.trade", b"BTC/USDT", b"\xc3\x01value", ahead, "InvalidTimestamp"
    )
    assert [letter.timestamp_ms for letter in bench.kept("dead-letter")] == [NOW // 1000] * 2


def test_streams_know_how_many_frames_they_had() -> None:
    """Liveness reads it."""
    bench = Bench("spot", ["trade"])
    leg = bench.leg()
    bench.pipe.receive(leg, NOW, [_trade(1), b"garbage"])
    bench.pipe.receive(leg, NOW + 5, [_trade(2)[:-1]])
    [state] = leg.streams.values()
    assert (state.frames, state.first_received_at, state.last_received_at) == (2, NOW, NOW + 5)
    assert leg.next_sequence == 3
