"""Filling gaps: what an answer recovers, what it proves to be nowhere, what stays open."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.catalogue import catalogue
from bridge.core.declaration import Backfill
from bridge.core.gap_filling import MOST_FRUITLESS, MOST_OPEN
from bridge.core.gap_queue import Ask, GapKey, GapQueue
from bridge.core.history import Page, StreamHistory, asked, stream_history
from bridge.core.instruments import Answer, InstrumentHistory, parse_exchange_info
from bridge.errors import ContractError
from bridge.model import MARKETS, Stream
from bridge.replay.rederive import RawRecord, Rederiver
from bridge.schema import schemas
from tests.core.test_pipeline import NOW, SECOND, Bench
from tests.derived import KeepingPublisher, endpoint, read

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.model import Market

TRADED = 1_795_305_600_000


class Style(NamedTuple):
    """How a stream and its history write an event."""

    market: Market
    channel: str
    stream: str
    path: str
    id: str


TRADE = Style("spot", "trade", "btcusdt@trade", "/api/v3/historicalTrades", "id")
STYLES = [
    TRADE,
    Style("spot", "agg-trade", "btcusdt@aggTrade", "/api/v3/aggTrades", "a"),
    Style("usdm", "agg-trade", "btcusdt@aggTrade", "/fapi/v1/aggTrades", "a"),
    Style("coinm", "agg-trade", "btcusd_perp@aggTrade", "/dapi/v1/aggTrades", "a"),
    Style("spot", "block-trade", "btcusdt@blockTrade", "/api/v3/historicalBlockTrades", "id"),
]


class History(Bench):
    """A pipeline of one stream with ids, fed messages and answers; its raw records can be replayed."""

    def __init__(self, style: Style = TRADE) -> None:
        super().__init__(style.market, [style.channel])
        self.style = style
        self.symbol = style.stream.partition("@")[0].upper()
        self.line = self.leg()
        self.now = NOW

    def event(self, id_: int) -> dict[str, Any]:
        """Return an event as the stream sends it."""
        data = {
            "e": self.style.stream.partition("@")[2], "E": TRADED + id_, "s": self.symbol, "p": f"{id_}.5", "q": "2",
            "T": TRADED + id_, "m": bool(id_ % 2),
        }  # fmt: skip
        if self.market == "usdm":
            data["nq"] = "1"
        return data | ({"a": id_, "f": id_, "l": id_} if self.style.id == "a" else {"t": id_})

    def row(self, id_: int) -> dict[str, Any]:
        """Return the same event as its history has it."""
        if self.style.id == "a":
            return {k: v for k, v in self.event(id_).items() if k not in {"e", "E", "s"}}
        return {
            "id": id_, "price": f"{id_}.5", "qty": "2", "quoteQty": "1", "time": TRADED + id_,
            "isBuyerMaker": bool(id_ % 2),
        }  # fmt: skip

    def come(self, *ids: int) -> None:
        """Receive messages of the stream, long enough apart that nothing is held back."""
        for id_ in ids:
            self.now += SECOND
            message = json.dumps({"stream": self.style.stream, "data": self.event(id_)}).encode()
            self.pipe.receive(self.line, self.now, [message])
        self.now += SECOND
        self.pipe.tick(self.now)

    def page(self, first: int, ids: Iterable[int], limit: int = 1000, **changes: Any) -> None:
        """Receive an answer with the rows of ``ids``."""
        self.answer(first, json.dumps([self.row(id_) | changes for id_ in ids]).encode(), limit)

    def answer(self, first: int, body: bytes, limit: int = 1000) -> None:
        """Receive an answer."""
        self.now += SECOND
        query = urlencode({"symbol": self.symbol, "fromId": first, "limit": limit})
        self.pipe.api_answer(self.market, f"{self.style.path}?{query}", self.now, body)

    def ids(self, origin: str) -> list[int]:
        """Return the ids published with an origin."""
        return [r["sequence"] for r in self.records("unified", "trade") if r["origin"] == origin]

    def gaps(self) -> list[tuple[int, int, str, int]]:
        """Return the newest record of each gap: first, last, status, recovered."""
        newest = {r["id"]: r for r in self.records("gaps")}
        return sorted(
            (r["firstSequence"], r["lastSequence"], r["status"], r["recovered"]) for r in newest.values()
        )


@pytest.mark.parametrize("style", STYLES, ids=lambda style: f"{style.market}-{style.channel}")
def test_a_gap_is_filled_with_the_streams_own_records(style: Style) -> None:
    """What REST has becomes the record the message would have made, but for its event time and where it came from."""
    lossy, whole = History(style), History(style)
    lossy.come(1, 4)
    lossy.page(2, [2, 3], 2)
    whole.come(1, 2, 3, 4)

    assert lossy.ids("live") == [1, 4]
    assert lossy.gaps() == [(2, 3, "filled", 2)]
    backfilled = [k for k in lossy.kept("unified", "trade") if k.record["origin"] == "backfill"]
    wanted = {k.record["sequence"]: k for k in whole.kept("unified", "trade")}
    for kept in backfilled:
        live = wanted[kept.record["sequence"]]
        given = {"origin", "connectionId", "connectionSequence", "receivedAt", "eventTime"}
        assert {k: v for k, v in kept.record.items() if k not in given} == {
            k: v for k, v in live.record.items() if k not in given
        }
        assert (kept.key, kept.timestamp_ms) == (live.key, live.timestamp_ms)
        assert dict(kept.headers)["run-id"] == f"gap:{style.market}:{style.stream}:2".encode()
        (raw,) = [
            r
            for r in lossy.records("raw", style.market, "api")
            if r["kind"] == "rest" and "Id=" in r["stream"]
        ]
        assert (
            kept.record["connectionId"],
            kept.record["connectionSequence"],
            kept.record["receivedAt"],
        ) == (
            0,
            raw["connectionSequence"],
            raw["receivedAt"],
        )
    assert lossy.pipe.counts.gap_events_recovered == 2
    assert lossy.pipe.gaps.open == 0


@pytest.mark.parametrize(
    ("rows", "limit", "recovered", "gaps"),
    [
        pytest.param([3, 4, 5, 6], 4, [3, 4, 5, 6], [(3, 6, "filled", 4)], id="whole"),
        pytest.param(
            [3, 4], 2, [3, 4], [(3, 4, "filled", 2), (5, 6, "open", 0)], id="the page ends within the gap"
        ),
        pytest.param(
            [3, 5, 6], 4, [3, 5, 6], [(3, 3, "filled", 1), (4, 4, "unrecoverable", 0), (5, 6, "filled", 2)],
            id="an id that never was",
        ),
        pytest.param([7, 8], 4, [], [(3, 6, "unrecoverable", 0)], id="later ones only"),
        pytest.param([1, 2, 3, 4, 5, 6, 7, 8], 1000, [3, 4, 5, 6], [(3, 6, "filled", 4)], id="more than is missing"),
        pytest.param([6, 5, 4, 3, 3], 4, [3, 4, 5, 6], [(3, 6, "filled", 4)], id="repeated and out of order"),
        pytest.param([], 4, [], [(3, 6, "open", 0)], id="nothing yet"),
        pytest.param([1, 2], 4, [], [(3, 6, "open", 0)], id="history lags"),
    ],
)  # fmt: skip
def test_an_answer_decides_what_it_covers(
    rows: list[int], limit: int, recovered: list[int], gaps: list[tuple[int, int, str, int]]
) -> None:
    """What is there is recovered, what is left out before a later row does not exist, what lies beyond stays open."""
    bench = History()
    bench.come(1, 2, 7)
    bench.page(3, rows, limit)
    assert bench.ids("backfill") == recovered
    assert bench.gaps() == gaps
    assert bench.pipe.gaps.open == sum(status == "open" for _, _, status, _ in gaps)


def test_a_row_may_lack_what_a_message_may_lack() -> None:
    """Older rows of USDⓈ-M have no amount without RPI orders."""
    bench = History(STYLES[2])
    bench.come(1, 3)
    row = bench.row(2)
    del row["nq"]
    bench.answer(2, json.dumps([row]).encode())
    (record,) = [r for r in bench.records("unified", "trade") if r["origin"] == "backfill"]
    assert (record["sequence"], record["amountExcludingRpi"]) == (2, None)


def test_what_is_decided_says_why() -> None:
    """A filled gap names the endpoint, an unrecoverable one the reason."""
    bench = History()
    bench.come(1, 4)
    bench.page(2, [3, 4])
    filled, lost = sorted(bench.records("gaps")[1:], key=lambda r: str(r["status"]))
    assert (filled["source"], filled["reason"]) == (TRADE.path, None)
    assert (lost["source"], lost["reason"]) == (None, f"not among the rows of {TRADE.path}")
    assert filled["detectedAt"] == lost["detectedAt"] == bench.records("gaps")[0]["detectedAt"]


def test_history_that_never_catches_up_is_given_up() -> None:
    """After several answers that end before the gap it is unrecoverable, and asked for no more."""
    bench = History()
    bench.come(1, 4)
    for _ in range(MOST_FRUITLESS):
        assert bench.gaps() == [(2, 3, "open", 0)]
        bench.page(2, [])
    assert bench.gaps() == [(2, 3, "unrecoverable", 0)]
    assert bench.pipe.gaps.open == 0


@pytest.mark.parametrize("body", [b'{"code":-1121,"msg":"x"}', b"[", b"\xff", b"17"])
def test_an_answer_that_is_none_fills_nothing(body: bytes) -> None:
    """It counts as one that had nothing."""
    bench = History()
    bench.come(1, 4)
    bench.answer(2, body)
    assert bench.gaps() == [(2, 3, "open", 0)]
    assert not bench.kept("dead-letter")


def test_a_row_that_can_not_be_read_is_a_dead_letter() -> None:
    """Its bytes are kept with the reason; its id is unrecoverable, the others are recovered."""
    bench = History()
    bench.come(1, 4)
    bench.answer(2, json.dumps([bench.row(2) | {"price": 7}, bench.row(3)]).encode())
    bench.come(6)
    bench.page(5, [5], price="1e99")
    letters = bench.records("dead-letter")
    assert [(r["reason"], json.loads(r["payload"])["id"]) for r in letters] == [("parse", 2), ("unify", 5)]
    assert bench.ids("backfill") == [3]
    assert bench.gaps() == [
        (2, 2, "unrecoverable", 0), (3, 3, "filled", 1), (5, 5, "unrecoverable", 0),
    ]  # fmt: skip


def test_neighbours_share_a_page() -> None:
    """One page is asked for from the oldest gap to the last one it can hold, and fills them all."""
    bench = History()
    bench.come(1, 4, 6, 2000, 2002)
    gaps = bench.pipe.gaps.of("spot", TRADE.stream)
    assert gaps is not None
    assert gaps.next_page() == Page(2, 5, 4)
    bench.page(2, [2, 3, 4, 5], 4)
    assert bench.ids("backfill") == [2, 3, 5]
    assert gaps.next_page() == Page(7, 1006, 1000)


def test_an_answer_fills_no_more_than_its_page_asked_for() -> None:
    """Rows of a later gap, which the page does not reach, are left to that gap's own page."""
    bench = History()
    bench.come(1, 4, 6)
    bench.page(2, [2, 3, 4, 5], 2)
    assert bench.gaps() == [(2, 3, "filled", 2), (5, 5, "open", 0)]


def test_a_gap_given_up_stays_so() -> None:
    """After errors a gap is unrecoverable for the reason given, and later pages don't reach over it."""
    bench = History()
    bench.come(1, 3, 5, 7)
    gaps = bench.pipe.gaps.of("spot", TRADE.stream)
    assert gaps is not None
    bench.pipe.gaps.give_up("spot", TRADE.stream, Page(2, 6, 5), "HTTP 500", NOW)
    assert gaps.next_page() == Page(4, 4, 1)
    bench.page(4, [4, 5], 1)
    assert bench.gaps() == [(2, 2, "unrecoverable", 0), (4, 4, "filled", 1), (6, 6, "open", 0)]
    assert bench.records("gaps")[3]["reason"] == "HTTP 500"


def test_more_gaps_than_can_be_kept_open_are_unrecoverable() -> None:
    """Beyond the bound a gap says so at once."""
    bench = History()
    bench.come(*range(1, 2 * MOST_OPEN + 4, 2))
    fates = Counter(status for _, _, status, _ in bench.gaps())
    assert fates == {"open": MOST_OPEN, "unrecoverable": 1}
    assert bench.pipe.gaps.open == MOST_OPEN


@pytest.mark.parametrize(
    ("market", "channel", "reason"),
    [("usdm", "trade", "API key"), ("coinm", "trade", "API key"), ("spot", "depth", "no history")],
)
def test_what_has_no_history_is_unrecoverable_at_once(market: Market, channel: str, reason: str) -> None:
    """One record names the gap and why nothing will fill it."""
    bench = Bench(market, [channel])
    (stream,) = [c.stream for c in bench.chosen]
    leg = bench.leg()
    for n in (1, 4, 5):
        ids: dict[str, Any] = {"t": n}
        if channel == "depth":
            ids = {"U": n, "u": n, "pu": n - 1, "b": [], "a": []}
        data = {"E": TRADED, "s": stream.symbol, "T": TRADED, "p": "1", "q": "1", "m": True, **ids}
        message = json.dumps({"stream": stream.name, "data": data}).encode()
        bench.pipe.receive(leg, NOW + n * SECOND, [message])
    bench.pipe.drain()
    (gap,) = bench.records("gaps")
    assert (gap["firstSequence"], gap["lastSequence"], gap["status"]) == (2, 3, "unrecoverable")
    assert reason in gap["reason"]
    assert bench.pipe.gaps.open == 0


# Candles


def _candle(market: Market, minute: int) -> dict[str, Any]:
    volumes = {"v": "7", "q": "0.07", "V": "3", "Q": "0.03"}
    return {
        "t": TRADED + minute * 60_000, "T": TRADED + minute * 60_000 + 59_999, "s": _symbol(market), "i": "1m",
        "o": "1", "c": "2", "h": "3", "l": "0.5", "n": minute, "x": True, "f": -1, "L": -1, **volumes,
    }  # fmt: skip


def _columns(market: Market, minute: int) -> list[Any]:
    k = _candle(market, minute)
    return [*(k[key] for key in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q")), "0"]


def _symbol(market: Market) -> str:
    return "BTCUSD_PERP" if market == "coinm" else "BTCUSDT"


@pytest.mark.parametrize("market", MARKETS)
def test_candles_are_filled(market: Market) -> None:
    """Closed candles come back with the very fields of the stream's, and their Kafka time is their close."""
    bench, whole = Bench(market, ["kline_1m"]), Bench(market, ["kline_1m"])
    for one, minutes in ((bench, (0, 4)), (whole, (0, 1, 2, 3, 4))):
        leg = one.leg()
        for minute in minutes:
            k = _candle(market, minute)
            data = {"e": "kline", "E": k["T"] + 5, "s": k["s"], "k": k}
            message = json.dumps({"stream": f"{k['s'].lower()}@kline_1m", "data": data}).encode()
            one.pipe.receive(leg, NOW + minute * 60 * SECOND, [message])
    prefix = endpoint(market).removesuffix("/exchangeInfo")
    query = {
        "symbol": _symbol(market), "interval": "1m", "startTime": TRADED + 60_000, "endTime": TRADED + 239_999,
        "limit": 99,
    }  # fmt: skip
    body = json.dumps([_columns(market, minute) for minute in (1, 2, 3)]).encode()
    bench.pipe.api_answer(market, f"{prefix}/klines?{urlencode(query)}", NOW + 300 * SECOND, body)

    given = {"origin", "connectionId", "connectionSequence", "receivedAt", "eventTime"}
    wanted = {k.record["timestamp"]: k.record for k in whole.kept("unified", "ohlcv")}
    backfilled = [k for k in bench.kept("unified", "ohlcv") if k.record["origin"] == "backfill"]
    assert [k.timestamp_ms for k in backfilled] == [_candle(market, minute)["T"] for minute in (1, 2, 3)]
    for kept in backfilled:
        live = wanted[kept.record["timestamp"]]
        assert {k: v for k, v in kept.record.items() if k not in given} == {
            k: v for k, v in live.items() if k not in given
        }
    first, last = bench.records("gaps")
    assert (last["id"], last["status"], last["recovered"]) == (first["id"], "filled", 3)
    assert (last["startTime"], last["endTime"]) == (first["startTime"], first["endTime"])


def test_a_candle_that_is_not_there_is_named_by_its_time() -> None:
    """What REST leaves out of a stretch of candles ends apart, named by its own stretch."""
    bench = Bench("spot", ["kline_1m@+08:00"])
    leg = bench.leg()
    for minute in (0, 4):
        data = {"e": "kline", "E": TRADED, "s": "BTCUSDT", "k": _candle("spot", minute)}
        message = json.dumps({"stream": "btcusdt@kline_1m@+08:00", "data": data}).encode()
        bench.pipe.receive(leg, NOW + minute * SECOND, [message])
    gaps = bench.pipe.gaps.of("spot", "btcusdt@kline_1m@+08:00")
    assert gaps is not None
    page = gaps.next_page()
    assert page is not None
    query = gaps.history.query(page)
    assert query["timeZone"] == "08:00"
    body = json.dumps([_columns("spot", 1), _columns("spot", 3)]).encode()
    bench.pipe.api_answer("spot", f"{gaps.history.path}?{urlencode(query)}", NOW + 9 * SECOND, body)
    minute = 60 * SECOND
    start = TRADED * 1000 + minute
    newest = {r["id"]: r for r in bench.records("gaps")}
    assert [(_micros(r["startTime"]), _micros(r["endTime"]), r["status"]) for r in newest.values()] == [
        (start, start + minute - 1000, "filled"),
        (start + minute, start + 2 * minute - 1000, "unrecoverable"),
        (start + 2 * minute, start + 3 * minute - 1000, "filled"),
    ]
    assert list(newest)[1] == f"spot:btcusdt@kline_1m@+08:00:{start + minute}"


def _micros(time: Any) -> int:
    return time if isinstance(time, int) else int(time.timestamp() * 1_000_000)


# Any answers


rows_of = st.lists(st.integers(0, 60), max_size=30)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(1, 9)),
        st.tuples(st.just("answer"), rows_of),
        st.tuples(st.just("honest"), st.integers(1, 12)),
        st.tuples(st.just("stray"), rows_of),
        st.tuples(st.just("fail"), st.none()),
    ),
    max_size=25,
)


@given(steps)
def test_each_missing_id_has_one_fate(todo: list[tuple[str, Any]]) -> None:
    """Whatever is answered, each id came live, is recovered once, is unrecoverable, or is open; and replay agrees."""
    bench, newest, failed = History(), 1, False
    bench.come(newest)
    for step, value in todo:
        gaps = bench.pipe.gaps.of("spot", TRADE.stream)
        page = None if gaps is None else gaps.next_page()
        if step == "come":
            newest += value
            bench.come(newest)
        elif step == "stray":
            if not failed:  # what was given up is asked for by nobody
                bench.page(value[0] if value else 5, value, 7)
        elif page is None:
            continue
        elif step == "answer":
            bench.page(page.first, value, page.limit)
        elif step == "honest":
            bench.page(page.first, range(page.first, page.first + min(value, page.limit)), page.limit)
        else:
            failed = True
            bench.pipe.gaps.give_up("spot", TRADE.stream, page, "an error", bench.now)

    live, backfilled = bench.ids("live"), bench.ids("backfill")
    fates = Counter(live) + Counter(backfilled)
    recovered = 0
    for first, last, status, count in bench.gaps():
        recovered += count
        assert count == (last - first + 1 if status == "filled" else 0)
        if status != "filled":
            fates.update(range(first, last + 1))
        else:
            assert set(range(first, last + 1)) <= set(backfilled)
    assert fates == Counter(range(1, newest + 1))
    assert bench.pipe.counts.gap_events_recovered == recovered == len(backfilled)
    assert bench.pipe.gaps.open == sum(status == "open" for _, _, status, _ in bench.gaps())
    again = _replayed(bench)
    assert [r["sequence"] for r in again] == [
        r["sequence"] for r in bench.records("unified", "trade")
    ] or failed
    assert Counter(r["sequence"] for r in again) == Counter(live) + Counter(backfilled)


def _replayed(bench: History) -> list[dict[str, Any]]:
    """Derive the trades again from the raw records."""
    publisher, history = KeepingPublisher(), {market: InstrumentHistory() for market in MARKETS}
    raw = [read(k.value)[1] for k in bench.publisher.kept if ".raw." in k.topic]
    server_time, table = parse_exchange_info(bench.market, json.dumps(bench.exchange_info()).encode())
    history[bench.market].add(Answer(NOW, server_time, 0, table))
    rederiver = Rederiver(
        catalogue=catalogue(), schemas=schemas(), names=bench.pipe._names, publisher=publisher,
        structures=frozenset({"trade"}), symbols=None, history=history, hold_ms=250, run_id="x",
    )  # fmt: skip
    for one in sorted(
        raw, key=lambda r: (_micros(r["receivedAt"]), r["connectionId"], r["connectionSequence"])
    ):
        rederiver.take(
            RawRecord(
                one["market"], "api" if one["kind"] == "rest" else one["channel"], one["stream"], one["symbol"],
                one["connectionId"], one["connectionSequence"], _micros(one["receivedAt"]), 0, one["payload"],
            )
        )  # fmt: skip
    rederiver.drain()
    return [k.record for k in publisher.of("unified", "trade")]


# What is asked when


def _queue(bench: History, *, share: float = 0.3, attempts: int = 3) -> tuple[GapQueue, GapKey]:
    return GapQueue(share, attempts, bench.pipe.gaps.of), GapKey("spot", bench.style.stream)


def test_one_page_of_a_stream_at_a_time() -> None:
    """The next page is asked for after the answer, and none once nothing is open."""
    bench = History()
    queue, key = _queue(bench)
    bench.come(1, 1503)
    queue.want(key, 0.0)
    first = queue.next(0.0)
    assert isinstance(first, Ask)
    assert first.query == {"symbol": "BTCUSDT", "fromId": 2, "limit": 1000}
    assert queue.next(0.0) is None
    bench.page(2, range(2, 1002))
    queue.answered(key, 1.0)
    second = queue.next(1.0)
    assert isinstance(second, Ask)
    assert second.query["fromId"] == 1002
    bench.page(1002, range(1002, 1503), 501)
    queue.answered(key, 2.0)
    assert queue.next(2.0) is None
    assert bench.gaps() == [(2, 1001, "filled", 1000), (1002, 1502, "filled", 501)]


def test_history_that_lags_is_asked_again_later_and_later() -> None:
    """The pause doubles with each answer that has nothing."""
    bench = History()
    queue, key = _queue(bench)
    bench.come(1, 3)
    queue.want(key, 0.0)
    pauses, now = [], 0.0
    while isinstance(queue.next(now), Ask):
        bench.page(2, [])
        queue.answered(key, now)
        wait = queue.next(now)
        assert not isinstance(wait, Ask)
        if wait is None:
            break
        pauses.append(wait)
        now += wait
    assert pauses == [1, 2, 4, 8]
    assert bench.gaps() == [(2, 2, "unrecoverable", 0)]


def test_errors_are_retried_until_the_gap_is_given_up() -> None:
    """So many failures end it; a refusal that will not change ends it at once; a hold costs no attempt."""
    bench = History()
    queue, key = _queue(bench)
    bench.come(1, 3)
    queue.want(key, 0.0)
    now = 0.0
    assert isinstance(queue.next(now), Ask)
    queue.hold(key, now, 30.0)
    assert queue.next(now) == 30.0
    now = 30.0
    for pause in (5.0, 10.0):
        assert isinstance(queue.next(now), Ask)
        assert not queue.failed(key, now, final=False)
        assert queue.next(now) == pause
        now += pause
    assert isinstance(queue.next(now), Ask)
    assert queue.failed(key, now, final=False)
    assert isinstance(queue.next(now), Ask)
    assert queue.failed(key, now, final=True)


@given(st.floats(0.01, 0.6), st.lists(st.floats(0.0, 5.0), max_size=60))
def test_the_share_of_the_weight_is_kept(share: float, waits: list[float]) -> None:
    """In any minute no more is spent than the share, or one request where that is heavier."""
    bench = History()
    queue, key = _queue(bench, share=share)
    bench.come(1, 100_000)
    queue.want(key, 0.0)
    now, asked_at = 0.0, []
    for wait in waits:
        now += wait
        while isinstance(queue.next(now), Ask):
            asked_at.append(now)
            queue.answered(key, now)
    for start in asked_at:
        spent = sum(25 for at in asked_at if start <= at < start + 60)
        assert spent <= max(6000 * share, 25) + 25


def test_streams_take_turns() -> None:
    """A stream with a long gap does not hold up another one."""
    bench = Bench("spot", ["trade", "agg-trade"])
    leg = bench.leg()
    for at, id_ in enumerate((1, 5000)):
        for stream, ids in (("trade", {"t": id_}), ("aggTrade", {"a": id_, "f": 1, "l": 1})):
            data = {"E": TRADED, "s": "BTCUSDT", "p": "1", "q": "1", "T": TRADED, "m": True, **ids}
            message = json.dumps({"stream": f"btcusdt@{stream}", "data": data}).encode()
            bench.pipe.receive(leg, NOW + at, [message])
    bench.pipe.drain()
    queue = GapQueue(0.3, 3, bench.pipe.gaps.of)
    for stream in ("trade", "aggTrade"):
        queue.want(GapKey("spot", f"btcusdt@{stream}"), 0.0)
    turns = []
    for _ in range(4):
        ask = queue.next(0.0)
        assert isinstance(ask, Ask)
        turns.append(ask.key.stream)
        queue.answered(ask.key, 0.0)
    assert turns == ["btcusdt@trade", "btcusdt@aggTrade"] * 2


# What the catalogue declares


def test_a_query_says_whose_past_it_asks_for() -> None:
    """From the endpoint with its query come the stream and the page again, for every declared history."""
    seen = set()
    for (market, name), compiled in catalogue().channels.items():
        if market not in compiled.declaration.backfill:
            continue
        option = compiled.declaration.markets[market].option
        text = f"{name}_{option.values[0]}" if option else name
        chosen = catalogue().choose(
            market, [text], [_symbol(market)], None, Bench(market, []).pipe.instruments[market]
        )
        history = catalogue().history(chosen[0])
        if not isinstance(history, StreamHistory):
            assert history
            continue
        page = history.page(1_000, 1_400)
        assert asked(market, f"{history.path}?{urlencode(history.query(page))}") == (history.place, page)
        seen.add((market, name))
    assert len(seen) == 8


def test_a_history_that_lacks_what_messages_have_is_an_error() -> None:
    """The file, the endpoint and the keys without a source are named."""
    (compiled,) = [c for key, c in catalogue().channels.items() if key == ("spot", "trade")]
    past = Backfill(path="/api/v3/x", fields={"t": "id", "p": "price", "q": "qty"})
    declaration = msgspec.structs.replace(compiled.declaration, backfill={"spot": past})
    stream = Stream("spot", "trade", "btcusdt@trade", "BTCUSDT", "", 0.0, None)
    with pytest.raises(ContractError, match=r"topics/streams/trade.yaml: backfill: /api/v3/x: .*T, m "):
        stream_history(dataclasses.replace(compiled, declaration=declaration), stream, "", "")


@pytest.mark.parametrize(
    "endpoint_",
    [
        "/api/v3/historicalTrades?symbol=BTCUSDT&limit=5",
        "/api/v3/depth?limit=5",
        "/api/v3/x?fromId=a&limit=1",
        "",
        "?",
    ],
)
def test_other_answers_are_no_pages(endpoint_: str) -> None:
    """Without a place to begin and a limit an answer fills nothing."""
    assert asked("spot", endpoint_) is None
