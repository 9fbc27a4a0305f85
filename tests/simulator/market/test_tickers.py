"""Tickers: rolling statistics that follow the trades, arrays of what changed, merged rows of both products."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.simulator.market.recording import FULL_HOUR, START, Recording, of_symbols

if TYPE_CHECKING:
    from bridge.model import Market

MINUTE = 60_000
SYMBOLS: list[tuple[Market, str]] = [("spot", "BTCUSDT"), ("usdm", "BTCUSDT"), ("coinm", "BTCUSD_PERP")]
KLINES = {"spot": "/api/v3/klines", "usdm": "/fapi/v1/klines", "coinm": "/dapi/v1/klines"}
ALL = [
    "!miniTicker@arr",
    "!ticker@arr",
    "!bookTicker",
    "!forceOrder@arr",
    "!markPrice@arr@1s",
    "!contractInfo",
]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Return a stretch of market that all tests here read."""
    kinds = ("trade", "ticker", "miniTicker")
    streams: dict[Market, list[str]] = {market: of_symbols([symbol], kinds) for market, symbol in SYMBOLS}
    streams["spot"] += ["btcusdt@ticker_1h", "btcusdt@ticker_4h", "btcusdt@ticker_1d", "btcusdt@avgPrice"]
    streams["spot"] += ["!miniTicker@arr", "!ticker_1h@arr", "btcusdt@bookTicker"]
    return Recording(streams, rate=300).run(START + 30_000)


@pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
@pytest.mark.parametrize("kind", ["ticker", "miniTicker"])
def test_volumes_grow_by_the_trades_between(
    recording: Recording, market: Market, symbol: str, kind: str
) -> None:
    """Within a minute a ticker's volume grows by exactly what was traded, and its close is the last trade's."""
    trades = [t for t in recording.payloads(market, f"{symbol.lower()}@trade") if t.get("X") != "NA"]
    tickers = [t for t in recording.payloads(market, f"{symbol.lower()}@{kind}") if t["E"] > FULL_HOUR]
    assert len(tickers) > 5
    for before, after in pairwise(tickers):
        between = [t for t in trades if before["E"] <= t["T"] < after["E"]]
        assert Decimal(after["v"]) - Decimal(before["v"]) == sum(Decimal(t["q"]) for t in between)
        if between:
            assert after["c"] == between[-1]["p"]
            if kind == "ticker":
                assert (after["L"], after["Q"]) == (between[-1]["t"], between[-1]["q"])
                assert after["n"] - before["n"] == len(between)


@pytest.mark.parametrize(("market", "symbol"), SYMBOLS)
def test_a_day_is_its_minutes(recording: Recording, market: Market, symbol: str) -> None:
    """The 24-hour ticker is the sum of the minutes that REST has for the day."""
    day = 86_400_000
    ticker = recording.payloads(market, f"{symbol.lower()}@ticker")[-1]
    start = (ticker["E"] - day) // MINUTE * MINUTE
    rows = recording.get(market, KLINES[market], symbol=symbol, interval="1m", startTime=start, limit=1000)
    rows += recording.get(
        market, KLINES[market], symbol=symbol, interval="1m", startTime=rows[-1][0] + MINUTE, limit=1000
    )
    assert rows[0][0] == start
    rest = recording.get(market, KLINES[market].replace("klines", "ticker/24hr"), symbol=symbol)
    rest = rest[0] if isinstance(rest, list) else rest
    assert Decimal(rest["volume"]) == sum(Decimal(row[5]) for row in rows)
    assert rest["count"] == sum(row[8] for row in rows)
    assert (rest["openPrice"], rest["highPrice"]) == (rows[0][1], max((row[2] for row in rows), key=Decimal))
    assert rest["lowPrice"] == min((row[3] for row in rows), key=Decimal)
    assert rest["lastPrice"] == rows[-1][4]
    assert Decimal(rest["priceChange"]) == Decimal(rest["lastPrice"]) - Decimal(rest["openPrice"])
    assert rest["closeTime"] - rest["openTime"] == day
    assert (ticker["o"], ticker["C"] - ticker["O"]) == (rest["openPrice"], day)


def test_percent_and_average(recording: Recording) -> None:
    """Change, percent and weighted average fit open, close and volumes."""
    for market, symbol in SYMBOLS:
        for ticker in recording.payloads(market, f"{symbol.lower()}@ticker"):
            opened, close = Decimal(ticker["o"]), Decimal(ticker["c"])
            assert Decimal(ticker["p"]) == close - opened
            assert abs(Decimal(ticker["P"]) - (close - opened) * 100 / opened) <= Decimal("0.0005")
            assert Decimal(ticker["l"]) <= Decimal(ticker["w"]) <= Decimal(ticker["h"])


def test_rolling_windows_start_on_a_minute(recording: Recording) -> None:
    """Rolling tickers start at the minute that holds now less the window, and a wider one holds more."""
    counts = []
    for window, length in (("1h", 3_600_000), ("4h", 14_400_000), ("1d", 86_400_000)):
        ticker = recording.payloads("spot", f"btcusdt@ticker_{window}")[-1]
        assert ticker["e"] == f"{window}Ticker"
        assert ticker["O"] == (ticker["E"] - length) // MINUTE * MINUTE
        assert ticker["C"] == ticker["E"]
        counts.append(ticker["n"])
    assert counts == sorted(counts)
    assert counts[0] < counts[2]
    rest = recording.get("spot", "/api/v3/ticker", symbol="BTCUSDT", windowSize="4h")
    assert rest["count"] >= counts[1]


def test_spot_ticker_has_the_best_prices(recording: Recording) -> None:
    """The spot ticker's best bid and ask are the book ticker's of that time."""
    best = recording.payloads("spot", "btcusdt@bookTicker")
    last = recording.payloads("spot", "btcusdt@ticker")[-1]
    book = recording.get("spot", "/api/v3/ticker/bookTicker", symbol="BTCUSDT")
    assert Decimal(last["b"]) < Decimal(last["a"])
    assert [book[k] for k in ("bidPrice", "bidQty", "askPrice", "askQty")] == [best[-1][k] for k in "bBaA"]


def test_average_price_is_of_what_was_traded(recording: Recording) -> None:
    """The average price lies within the prices of the last minutes and tells the last trade's time."""
    trades = recording.payloads("spot", "btcusdt@trade")
    for row in recording.payloads("spot", "btcusdt@avgPrice"):
        before = [t for t in trades if t["T"] < row["E"]]
        if before:
            assert row["T"] == before[-1]["T"]
    rest = recording.get("spot", "/api/v3/avgPrice", symbol="BTCUSDT")
    rows = recording.get("spot", KLINES["spot"], symbol="BTCUSDT", interval="1m", limit=6)
    low, high = min(Decimal(row[3]) for row in rows), max(Decimal(row[2]) for row in rows)
    assert low <= Decimal(rest["price"]) <= high


def test_arrays_hold_only_what_changed() -> None:
    """After its first frame an array of all symbols has only those that traded since."""
    names = ["BTCUSDT", "ETHUSDT", "币安人生USDT", "1INCHUSDT"]
    recording = Recording({"spot": ["!miniTicker@arr", *of_symbols(names, ["trade"])]}, rate=8).run(
        START + 30_000
    )
    frames = recording.payloads("spot", "!miniTicker@arr")
    assert sorted(row["s"] for row in frames[0]) == sorted(names)
    traded = {name: [t["T"] for t in recording.payloads("spot", f"{name.lower()}@trade")] for name in names}
    told = {frame[0]["E"]: {row["s"] for row in frame} for frame in frames[1:]}
    for at in range(frames[0][0]["E"] + 1000, START + 30_001, 1000):
        expected = {name for name, times in traded.items() if any(at - 1000 <= t < at for t in times)}
        assert told.get(at, set()) == expected
    assert any(len(rows) < len(names) for rows in told.values())


def test_futures_arrays_are_merged() -> None:
    """All-market streams carry rows of both products, the same on either host, told apart by ``st``."""
    recording = Recording({"usdm": ALL, "coinm": ALL}, symbols=14, rate=800).run(START + 60_000)
    for stream in ALL:
        here, there = recording.payloads("usdm", stream), recording.payloads("coinm", stream)
        assert here == there
        assert here
        rows: list[Any] = [row for frame in here for row in (frame if isinstance(frame, list) else [frame])]
        assert stream == "!contractInfo" or {row["st"] for row in rows} == {1, 2}
        for row in rows:
            symbol = row.get("s") or row["o"]["s"]
            assert row["st"] == (2 if "USD_" in symbol else 1)
            if stream != "!markPrice@arr@1s":
                assert row["ps"] == symbol.split("_")[0]


def test_tradfi_marks_come_in_a_frame_of_their_own() -> None:
    """Mark prices of all symbols come in two frames: TradFi contracts apart."""
    recording = Recording({"usdm": ["!markPrice@arr@1s"]}, symbols=14).run(START + 2_000)
    first, second = [
        [row["s"] for row in frame] for frame in recording.payloads("usdm", "!markPrice@arr@1s")[:2]
    ]
    assert second == ["XAUUSDT"]
    assert "XAUUSDT" not in first
    assert len(first) == 27


def test_liquidations_are_a_sample() -> None:
    """A symbol tells at most one liquidation a second, with sums that fit, and both streams tell the same order."""
    streams = ["btcusdt@forceOrder", "!forceOrder@arr"]
    recording = Recording({"usdm": streams}, rate=10_000).run(START + 12_000)
    single = recording.payloads("usdm", "btcusdt@forceOrder")
    times = [row["E"] for row in single]
    assert len(times) > 3
    assert len(set(times)) == len(times)
    assert all(time % 1000 == 0 for time in times)
    shared = [row for row in recording.payloads("usdm", "!forceOrder@arr") if row["o"]["s"] == "BTCUSDT"]
    assert [(row["E"], row["o"]) for row in shared] == [(row["E"], row["o"]) for row in single]
    for row in single:
        order = row["o"]
        assert order["z"] == order["q"]
        assert Decimal(order["l"]) <= Decimal(order["q"])
        assert row["E"] - 1000 <= order["T"] < row["E"]
        better, worse = (order["ap"], order["p"]) if order["S"] == "BUY" else (order["p"], order["ap"])
        assert Decimal(better) <= Decimal(worse)


def test_a_contract_changes_its_status_and_comes_back() -> None:
    """A contract that settles is told by ``!contractInfo`` and exchangeInfo, is quiet, and returns."""
    recording = Recording({"usdm": ["!contractInfo"]}, symbols=8, rate=50)
    left = back = None
    for at in range(START, START + 900_000, 1_000):
        seen = len(recording.of("usdm", "!contractInfo"))
        recording.run(at)
        for row in recording.payloads("usdm", "!contractInfo")[seen:]:
            if row["cs"] != "TRADING" and row["st"] == 1 and left is None:
                left = row
                [symbol] = [
                    s
                    for s in recording.get("usdm", "/fapi/v1/exchangeInfo")["symbols"]
                    if s["symbol"] == row["s"]
                ]
                assert symbol["status"] == row["cs"]
                listing = recording.exchange.world.listings["usdm"][row["s"]]
                quiet = listing.tape.trades.next_id
            elif (
                left
                and row["s"] == left["s"]
                and row["cs"] == "TRADING"
                and "bks" not in row
                and back is None
            ):
                back = row
                assert listing.tape.trades.next_id == quiet
    assert left is not None
    assert back is not None
    recording.run(recording.exchange.world.now + 120_000)
    assert listing.tape.trades.next_id > quiet
