"""Klines: made of the trades, closed once, and the same on streams and in REST."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from bridge.simulator.market.bars import INTERVALS, History, next_open, open_of
from tests.simulator.market.recording import FULL_HOUR, START, Recording, of_symbols

if TYPE_CHECKING:
    from bridge.model import Market

KLINES = {"spot": "/api/v3/klines", "usdm": "/fapi/v1/klines", "coinm": "/dapi/v1/klines"}
SYMBOLS: list[tuple[Market, str]] = [
    ("spot", "BTCUSDT"), ("spot", "1INCHUSDT"), ("usdm", "BTCUSDT"), ("usdm", "1000SHIBUSDT"), ("coinm", "BTCUSD_PERP"),
]  # fmt: skip
QUIET = [("spot", "币安人生USDT"), ("usdm", "币安人生USDT")]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Four minutes and a half, with two full minutes and the change of the hour in them."""
    kinds = ("trade", "kline_1m", "kline_3m", "kline_1h")
    streams: dict[Market, list[str]] = defaultdict(list)
    for market, symbol in SYMBOLS:
        streams[market] += of_symbols([symbol], kinds)
    streams["spot"] += ["btcusdt@kline_1s", "btcusdt@kline_1d@+08:00", "btcusdt@kline_1d"]
    streams["usdm"] += ["btcusdt_perpetual@continuousKline_1m", "btcusd_perp@kline_1m"]
    return Recording(streams, rate=200).run(START + 270_000)


def recomputed(market: Market, trades: list[dict[str, Any]], open_ms: int, length: int) -> dict[str, Any]:
    """Return what the bar's fields must be, from the trades that lie in it."""
    inside = [t for t in trades if open_ms <= t["T"] < open_ms + length and t.get("X") != "NA"]
    prices = [Decimal(t["p"]) for t in inside]

    def quote(trade: dict[str, Any]) -> Decimal:
        price, quantity = Decimal(trade["p"]), Decimal(trade["q"])
        if market != "coinm":
            return price * quantity
        return (quantity * 100 / price).quantize(Decimal("1e-8"), ROUND_DOWN)

    bought = [t for t in inside if not t["m"]]
    return {
        "o": prices[0], "c": prices[-1], "h": max(prices), "l": min(prices),
        "v": sum(Decimal(t["q"]) for t in inside), "q": sum(map(quote, inside)),
        "V": sum((Decimal(t["q"]) for t in bought), Decimal(0)), "Q": sum(map(quote, bought), Decimal(0)),
        "n": len(inside), "f": inside[0]["t"], "L": inside[-1]["t"],
    }  # fmt: skip


def told(bar: dict[str, Any]) -> dict[str, Any]:
    """Return the bar's fields as numbers."""
    return {key: Decimal(bar[key]) if isinstance(bar[key], str) else bar[key] for key in "ochlvqVQnfL"}


@pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
@pytest.mark.parametrize(("interval", "length"), [("1m", 60_000), ("3m", 180_000)])
def test_closed_bars_are_their_trades(
    recording: Recording, market: Market, symbol: str, interval: str, length: int
) -> None:
    """A closed bar holds exactly the trades of its time, and the open pushes before it are on the way there."""
    trades = recording.payloads(market, f"{symbol.lower()}@trade")
    pushes = recording.payloads(market, f"{symbol.lower()}@kline_{interval}")
    closed = [push["k"] for push in pushes if push["k"]["x"] and push["k"]["t"] >= START]
    assert closed
    for bar in closed:
        assert bar["T"] == bar["t"] + length - 1
        assert told(bar) == recomputed(market, trades, bar["t"], length)
    for push in pushes[::9]:
        bar = push["k"]
        if not bar["x"] and bar["t"] >= START and bar["n"]:
            so_far = [t for t in trades if t["T"] < push["E"]]
            assert told(bar) == recomputed(market, so_far, bar["t"], length)


@pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
def test_a_bar_closes_once(recording: Recording, market: Market, symbol: str) -> None:
    """Each bar with trades has exactly one closing push, at its end, and no push follows it."""
    trades = recording.payloads(market, f"{symbol.lower()}@trade")
    pushes = recording.payloads(market, f"{symbol.lower()}@kline_1m")
    closings = Counter(push["k"]["t"] for push in pushes if push["k"]["x"])
    assert set(closings.values()) == {1}
    ended = recording.exchange.world.now // 60_000 * 60_000
    with_trades = {t["T"] // 60_000 * 60_000 for t in trades} - {ended}
    assert with_trades <= set(closings)
    for push in pushes:
        if push["k"]["x"]:
            assert push["E"] == push["k"]["T"] + 1
        else:
            assert push["E"] <= push["k"]["T"]


def test_pace(recording: Recording) -> None:
    """Open bars are told every 2 s on spot (a second's bar each second) and every 250 ms on futures."""
    assert all(p["E"] % 2000 == 0 for p in recording.payloads("spot", "btcusdt@kline_1m"))
    assert all(p["E"] % 250 == 0 for p in recording.payloads("usdm", "btcusdt@kline_1m"))
    assert any(p["E"] % 1000 for p in recording.payloads("usdm", "btcusdt@kline_1m"))
    assert [p["E"] for p in recording.payloads("spot", "btcusdt@kline_1s")] == list(
        range(START + 1000, START + 270_001, 1000)
    )


def test_seconds_are_their_trades() -> None:
    """Every second of a ``1s`` stream is the second's trades; one without trades has ids of -1 and the last price."""
    recording = Recording({"spot": ["btcusdt@trade", "btcusdt@kline_1s"]}, rate=30).run(START + 60_000)
    by_second: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for trade in recording.payloads("spot", "btcusdt@trade"):
        by_second[trade["T"] // 1000 * 1000].append(trade)
    close, empty = None, 0
    for push in recording.payloads("spot", "btcusdt@kline_1s"):
        bar = push["k"]
        assert bar["x"]
        if by_second[bar["t"]]:
            assert told(bar) == recomputed("spot", by_second[bar["t"]], bar["t"], 1000)
        else:
            empty += 1
            assert (bar["f"], bar["L"], bar["n"]) == (-1, -1, 0)
            assert close is None or bar["o"] == bar["c"] == bar["h"] == bar["l"] == close
        close = bar["c"]
    assert 5 < empty < 55


def test_bars_without_trades() -> None:
    """Spot tells bars without trades, with ids of -1; contracts pass over them in silence."""
    streams: dict[Market, list[str]] = {m: of_symbols([s], ["kline_1m"]) for m, s in QUIET}
    recording = Recording(streams, rate=0.2).run(START + 1_500_000)
    spot = [push["k"] for push in recording.payloads("spot", "币安人生usdt@kline_1m")]
    empty = [bar for bar in spot if not bar["n"]]
    assert {(bar["f"], bar["L"], bar["v"], bar["q"]) for bar in empty} == {
        (-1, -1, "0.00000000", "0.00000000")
    }
    assert any(bar["x"] for bar in empty)
    closed = [bar["t"] for bar in spot if bar["x"]]
    assert closed == list(range(START // 60_000 * 60_000, closed[-1] + 1, 60_000))
    contract = [push["k"] for push in recording.payloads("usdm", "币安人生usdt@kline_1m")]
    assert all(bar["n"] for bar in contract)


def test_continuous_klines_count_by_update_ids(recording: Recording) -> None:
    """A continuous kline is the contract's kline, but for its ids, which are the book's."""
    continuous = recording.payloads("usdm", "btcusdt_perpetual@continuousKline_1m")
    plain = recording.payloads("usdm", "btcusdt@kline_1m")
    assert [(p["E"], *(p["k"][key] for key in "tTochlvnxqVQ")) for p in continuous] == [
        (p["E"], *(p["k"][key] for key in "tTochlvnxqVQ")) for p in plain
    ]
    for push in continuous:
        assert push["k"]["f"] <= push["k"]["L"]
        assert push["k"]["L"] > 10**12


def test_either_futures_host_has_klines_of_both_products(recording: Recording) -> None:
    """A coinm kline asked from the usdm host is the one of the coinm host."""
    there = [(p["E"], p["k"]) for p in recording.payloads("usdm", "btcusd_perp@kline_1m")]
    assert there == [(p["E"], p["k"]) for p in recording.payloads("coinm", "btcusd_perp@kline_1m")]


def test_days_of_utc_plus_eight(recording: Recording) -> None:
    """A day of the ``@+08:00`` stream begins at 16:00 UTC, and its times stay UTC."""
    [bar] = {p["k"]["t"]: p["k"] for p in recording.payloads("spot", "btcusdt@kline_1d@+08:00")}.values()
    opened = datetime.fromtimestamp(bar["t"] / 1000, UTC)
    assert (opened.hour, opened.minute) == (16, 0)
    assert bar["T"] - bar["t"] == 86_400_000 - 1
    plain = recording.payloads("spot", "btcusdt@kline_1d")[-1]["k"]
    assert datetime.fromtimestamp(plain["t"] / 1000, UTC).hour == 0
    assert bar["n"] != plain["n"]


@pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
def test_rest_has_the_bars_of_the_stream(recording: Recording, market: Market, symbol: str) -> None:
    """REST's bars are the closed pushes of the stream, and the hour is the sum of its minutes."""
    closed = {
        p["k"]["t"]: p["k"] for p in recording.payloads(market, f"{symbol.lower()}@kline_1m") if p["k"]["x"]
    }
    rows = recording.get(market, KLINES[market], symbol=symbol, interval="1m", limit=100)
    assert [row[0] for row in rows] == list(range(rows[-1][0] - 99 * 60_000, rows[-1][0] + 1, 60_000))
    by_open = {row[0]: row for row in rows}
    for opened, bar in closed.items():
        expected = [opened, *(bar[k] for k in "ohlcv"), bar["T"], bar["q"], bar["n"], bar["V"], bar["Q"], "0"]
        assert by_open[opened] == expected
    hour = recording.get(
        market, KLINES[market], symbol=symbol, interval="1h", startTime=FULL_HOUR - 3_600_000
    )[0]
    minutes = recording.get(
        market, KLINES[market], symbol=symbol, interval="1m", startTime=hour[0], endTime=hour[0] + 3_599_999
    )
    assert len(minutes) == 60
    assert sum(row[8] for row in minutes) == hour[8]
    assert sum(Decimal(row[5]) for row in minutes) == Decimal(hour[5])
    assert max(Decimal(row[2]) for row in minutes) == Decimal(hour[2])


@pytest.mark.parametrize("interval", [i for i in INTERVALS if i != "1s"])
def test_every_interval_has_a_past(recording: Recording, interval: str) -> None:
    """REST has bars of each interval from before the start, without a hole between them."""
    rows = recording.get("spot", KLINES["spot"], symbol="BTCUSDT", interval=interval, limit=40)
    assert len(rows) >= 20
    for before, after in pairwise(rows):
        assert after[0] == before[6] + 1
        assert after[1:5] != before[1:5] or not after[8]
    pushed = recording.get("spot", KLINES["spot"], symbol="BTCUSDT", interval=interval, limit=1)
    assert pushed[0][0] <= START + 270_000 <= pushed[0][6]


def test_rest_windows(recording: Recording) -> None:
    """``startTime`` gives the oldest bars from there, ``endTime`` the newest up to there, both what lies between."""
    minute = FULL_HOUR - 50 * 60_000

    def opens(**params: int) -> list[int]:
        rows = recording.get("spot", KLINES["spot"], symbol="BTCUSDT", interval="1m", **params)
        return [row[0] for row in rows]

    assert opens(startTime=minute, limit=3) == [minute, minute + 60_000, minute + 120_000]
    assert opens(startTime=minute + 1, limit=2) == [minute + 60_000, minute + 120_000]
    assert opens(endTime=minute, limit=3) == [minute - 120_000, minute - 60_000, minute]
    assert opens(startTime=minute, endTime=minute + 60_000) == [minute, minute + 60_000]
    assert opens(startTime=START + 10**10) == []
    oldest = opens(startTime=0, limit=2)
    assert oldest == [oldest[0], oldest[0] + 60_000]
    assert oldest[0] <= START - 86_400_000
    assert opens(startTime=0, endTime=oldest[0] + 60_000) == oldest


def test_seconds_of_rest_are_those_of_the_stream(recording: Recording) -> None:
    """REST's bars of a second are the stream's."""
    pushed = {p["k"]["t"]: p["k"] for p in recording.payloads("spot", "btcusdt@kline_1s")}
    rows = recording.get(
        "spot",
        KLINES["spot"],
        symbol="BTCUSDT",
        interval="1s",
        startTime=START + 5_000,
        endTime=START + 60_000,
    )
    assert len(rows) == 56
    for row in rows:
        bar = pushed[row[0]]
        assert row[1:6] == [bar[k] for k in "ohlcv"]
        assert row[7:11] == [bar["q"], bar["n"], bar["V"], bar["Q"]]


def test_sampled_klines() -> None:
    """Mark and index price klines hold the prices of their streams, one sample a second, and no volume."""
    streams: dict[Market, list[str]] = {
        "coinm": ["btcusd_perp@markPrice@1s", "btcusd_perp@markPriceKline_1m", "btcusd@indexPrice@1s",
                  "btcusd@indexPriceKline_1m"],
    }  # fmt: skip
    recording = Recording(streams).run(START + 140_000)
    for prices, klines, path, params in (
        (
            "btcusd_perp@markPrice@1s",
            "btcusd_perp@markPriceKline_1m",
            "markPriceKlines",
            {"symbol": "BTCUSD_PERP"},
        ),
        ("btcusd@indexPrice@1s", "btcusd@indexPriceKline_1m", "indexPriceKlines", {"pair": "BTCUSD"}),
    ):
        closed = [p["k"] for p in recording.payloads("coinm", klines) if p["k"]["x"]]
        assert closed[1]["t"] == FULL_HOUR
        samples = [
            Decimal(p["p"]) for p in recording.payloads("coinm", prices) if 0 <= p["E"] - FULL_HOUR < 60_000
        ]
        bar = closed[1]
        assert (bar["n"], bar["v"], bar["f"], bar["L"]) == (60, "0", FULL_HOUR, FULL_HOUR + 59_000)
        found = [Decimal(bar[k]) for k in "ochl"]
        assert found == [samples[0], samples[-1], max(samples), min(samples)]
        [row] = recording.get(
            "coinm", f"/dapi/v1/{path}", interval="1m", startTime=FULL_HOUR, limit=1, **params
        )
        assert row[:6] == [FULL_HOUR, bar["o"], bar["h"], bar["l"], bar["c"], "0"]
    premium = recording.get(
        "coinm", "/dapi/v1/premiumIndexKlines", symbol="BTCUSD_PERP", interval="1m", limit=3
    )
    assert len(premium) == 3


@pytest.mark.parametrize("interval", list(INTERVALS))
@pytest.mark.parametrize("offset_hours", [0, 8])
def test_bars_open_on_the_calendar(interval: str, offset_hours: int) -> None:
    """Bars open where the calendar says, weeks on Mondays, and each ends where the next begins."""
    offset = offset_hours * 3_600_000
    for time_ms in range(START, START + 40 * 86_400_000, 765_432_100):
        opened = open_of(interval, time_ms, offset)
        following = next_open(interval, opened, offset)
        assert opened <= time_ms < following
        assert open_of(interval, following - 1, offset) == opened
        assert open_of(interval, following, offset) == following
        local = datetime.fromtimestamp(opened / 1000, UTC) + timedelta(hours=offset_hours)
        if interval in {"1d", "3d", "1w", "1M"}:
            assert (local.hour, local.minute, local.second) == (0, 0, 0)
        if interval == "1w":
            assert local.weekday() == 0
        if interval == "1M":
            assert local.day == 1


def test_memory_of_bars_stays_bounded() -> None:
    """After days of trading minutes were folded into hours, and no trade is lost or counted twice by it."""
    history = History(lambda: ([], [], []))
    begin = START // 86_400_000 * 86_400_000
    end = begin + 5 * 86_400_000
    times = range(begin, end, 30_000)
    for item, time_ms in enumerate(times):
        history.add(time_ms, 100 + item % 7, 2, 200, item=item, update_id=item, taker_buys=item % 2 == 0)
    assert len(history.since(0, end)) < 3_700
    for interval in ("1h", "1d"):
        bars = [bar for bar in history.bars(interval, 0, end, end) if bar.trades]
        assert (bars[0].first, bars[-1].last) == (0, len(times) - 1)
        assert sum(bar.lots for bar in bars) == 2 * len(times)
        assert sum(bar.buy_lots for bar in bars) == len(times)
        for before, after in pairwise(bars):
            assert after.first == before.last + 1
            assert before.last - before.first + 1 == before.trades
