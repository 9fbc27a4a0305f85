"""REST: history by id and time, retention, weights, and the exchange's own errors."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.simulator.market.recording import START, Recording, of_symbols

if TYPE_CHECKING:
    from bridge.model import Market

PREFIX = {"spot": "/api/v3", "usdm": "/fapi/v1", "coinm": "/dapi/v1"}
SYMBOL = {"spot": "BTCUSDT", "usdm": "BTCUSDT", "coinm": "BTCUSD_PERP"}
MARKETS: tuple[Market, ...] = ("spot", "usdm", "coinm")


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Return a stretch of market that all tests here read."""
    streams: dict[Market, list[str]] = {m: of_symbols([SYMBOL[m]], ["trade", "aggTrade"]) for m in MARKETS}
    return Recording(streams, symbols=12, rate=2_000).run(START + 15_000)


def pages(
    recording: Recording, market: Market, path: str, first: int, key: str, limit: int
) -> list[dict[str, Any]]:
    """Return all rows from ``first`` on, page by page."""
    found: list[dict[str, Any]] = []
    while rows := recording.get(
        market, PREFIX[market] + path, symbol=SYMBOL[market], fromId=first, limit=limit
    ):
        found += rows
        first = rows[-1][key] + 1
    return found


@pytest.mark.parametrize("market", MARKETS)
def test_aggregates_by_id_are_those_emitted(recording: Recording, market: Market) -> None:
    """Paging aggregate trades by ``fromId`` gives exactly what the stream emitted, field by field."""
    emitted = recording.payloads(market, f"{SYMBOL[market].lower()}@aggTrade")
    rows = pages(recording, market, "/aggTrades", emitted[0]["a"], "a", 137)
    fields = [
        "a",
        "p",
        "q",
        *(["nq"] if market == "usdm" else []),
        "f",
        "l",
        "T",
        "m",
        *(["M"] if market == "spot" else []),
    ]
    assert [list(row) for row in rows] == [fields] * len(rows)
    assert rows == [{key: row[key] for key in fields} for row in emitted]


@pytest.mark.parametrize("market", MARKETS)
def test_trades_by_id_are_those_emitted(recording: Recording, market: Market) -> None:
    """Paging trades by ``fromId`` gives exactly the trades that the stream emitted."""
    emitted = [
        row for row in recording.payloads(market, f"{SYMBOL[market].lower()}@trade") if row.get("X") != "NA"
    ]
    rows = pages(recording, market, "/historicalTrades", emitted[0]["t"], "id", 133)
    assert [(r["id"], r["price"], r["qty"], r["time"], r["isBuyerMaker"]) for r in rows] == [
        (e["t"], e["p"], e["q"], e["T"], e["m"]) for e in emitted
    ]
    volume = "baseQty" if market == "coinm" else "quoteQty"
    if market != "coinm":
        assert all(Decimal(r[volume]) == Decimal(r["price"]) * Decimal(r["qty"]) for r in rows)
    recent = recording.get(market, f"{PREFIX[market]}/trades", symbol=SYMBOL[market], limit=50)
    assert recent == rows[-50:]


@pytest.mark.parametrize("market", MARKETS)
def test_aggregates_by_time(recording: Recording, market: Market) -> None:
    """Start and end are inclusive; a start alone gives the oldest from there, an end alone the newest up to there."""
    path = f"{PREFIX[market]}/aggTrades"
    emitted = recording.payloads(market, f"{SYMBOL[market].lower()}@aggTrade")
    start, end = emitted[20]["T"], emitted[60]["T"]
    inside = [row["a"] for row in emitted if start <= row["T"] <= end]

    def ids(**params: int) -> list[int]:
        return [row["a"] for row in recording.get(market, path, symbol=SYMBOL[market], **params)]

    assert ids(startTime=start, endTime=end) == inside
    assert ids(startTime=start, limit=3) == inside[:3]
    assert ids(endTime=end, limit=3) == inside[-3:]
    assert ids(limit=5) == [row["a"] for row in emitted[-5:]]
    assert ids(fromId=emitted[-1]["a"] + 1) == []


@pytest.mark.parametrize("market", MARKETS)
def test_history_reaches_back_before_the_start(recording: Recording, market: Market) -> None:
    """Two minutes of trades lie before the start."""
    rows = recording.get(
        market, f"{PREFIX[market]}/aggTrades", symbol=SYMBOL[market], startTime=START - 100_000, endTime=START
    )
    assert len(rows) > 20
    assert rows[-1]["l"] < recording.payloads(market, f"{SYMBOL[market].lower()}@trade")[0]["t"]


@pytest.mark.parametrize("market", MARKETS)
def test_retention(market: Market) -> None:
    """Beyond ``rest_retention`` rows history is gone: asking for older ids gives the oldest that are left."""
    stream = f"{SYMBOL[market].lower()}@aggTrade"
    recording = Recording({market: [stream]}, rate=3_000, rest_retention=30).run(START + 10_000)
    emitted = recording.payloads(market, stream)
    assert len(emitted) > 200
    rows = recording.get(market, f"{PREFIX[market]}/aggTrades", symbol=SYMBOL[market], fromId=emitted[5]["a"])
    assert [row["a"] for row in rows] == [row["a"] for row in emitted[-30:]]
    trades = recording.get(market, f"{PREFIX[market]}/historicalTrades", symbol=SYMBOL[market], fromId=1)
    assert 25 <= len(trades) <= 30


@pytest.mark.parametrize(
    ("market", "path", "params", "weight"),
    [
        ("spot", "/ping", {}, 1), ("spot", "/exchangeInfo", {}, 20),
        ("spot", "/depth", {"symbol": "BTCUSDT"}, 5), ("spot", "/depth", {"symbol": "BTCUSDT", "limit": "500"}, 25),
        ("spot", "/depth", {"symbol": "BTCUSDT", "limit": "1000"}, 50),
        ("spot", "/depth", {"symbol": "BTCUSDT", "limit": "5000"}, 250), ("spot", "/trades", {"symbol": "BTCUSDT"}, 25),
        ("spot", "/historicalTrades", {"symbol": "BTCUSDT"}, 25), ("spot", "/aggTrades", {"symbol": "BTCUSDT"}, 4),
        ("spot", "/klines", {"symbol": "BTCUSDT", "interval": "1m"}, 2), ("spot", "/ticker/24hr", {}, 80),
        ("spot", "/ticker/24hr", {"symbol": "BTCUSDT"}, 2),
        ("spot", "/ticker/24hr", {"symbols": '["BTCUSDT","ETHUSDT"]'}, 2), ("spot", "/ticker/price", {}, 4),
        ("spot", "/ticker/bookTicker", {"symbol": "BTCUSDT"}, 2), ("spot", "/avgPrice", {"symbol": "BTCUSDT"}, 2),
        ("spot", "/ticker", {"symbols": '["BTCUSDT","ETHUSDT"]'}, 8),
        ("usdm", "/exchangeInfo", {}, 1), ("usdm", "/depth", {"symbol": "BTCUSDT"}, 1),
        ("usdm", "/depth", {"symbol": "BTCUSDT", "limit": "50"}, 2),
        ("usdm", "/depth", {"symbol": "BTCUSDT", "limit": "1000"}, 20), ("usdm", "/trades", {"symbol": "BTCUSDT"}, 5),
        ("usdm", "/historicalTrades", {"symbol": "BTCUSDT"}, 200), ("usdm", "/aggTrades", {"symbol": "BTCUSDT"}, 20),
        ("usdm", "/klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "100"}, 1),
        ("usdm", "/klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "1500"}, 10),
        ("usdm", "/premiumIndex", {}, 10), ("usdm", "/premiumIndex", {"symbol": "BTCUSDT"}, 1),
        ("usdm", "/fundingInfo", {}, 0), ("usdm", "/ticker/24hr", {}, 40), ("usdm", "/ticker/bookTicker", {}, 5),
        ("coinm", "/premiumIndex", {}, 10), ("coinm", "/openInterest", {"symbol": "BTCUSD_PERP"}, 1),
        ("coinm", "/depth", {"symbol": "BTCUSD_PERP", "limit": "100"}, 5),
        ("coinm", "/fundingRate", {"symbol": "BTCUSD_PERP"}, 1),
        ("coinm", "/continuousKlines", {"pair": "BTCUSD", "contractType": "PERPETUAL", "interval": "5m"}, 5),
    ],
)  # fmt: skip
def test_weights(
    recording: Recording, market: Market, path: str, params: dict[str, str], weight: int
) -> None:
    """Requests are answered at the documented weight."""
    answer = recording.exchange.rest(market, "GET", PREFIX[market] + path, params, START)
    assert (answer.status, answer.weight) == (200, weight)
    text = answer.body.decode()
    assert json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) == text


@pytest.mark.parametrize(
    ("market", "path", "params", "code"),
    [
        ("spot", "/depth", {}, -1102), ("spot", "/depth", {"symbol": ""}, -1102),
        ("spot", "/depth", {"symbol": "NOSUCH"}, -1121), ("spot", "/depth", {"symbol": "btcusdt"}, -1121),
        ("spot", "/depth", {"symbol": "BTC USDT"}, -1100),
        ("spot", "/depth", {"symbol": "BTCUSDT", "limit": "x"}, -1100),
        ("spot", "/trades", {"symbol": "BTCUSDT", "limit": ""}, -1105),
        ("spot", "/aggTrades", {"symbol": "BTCUSDT", "fromId": "1", "startTime": "5"}, -1128),
        ("spot", "/historicalBlockTrades", {"symbol": "BTCUSDT"}, -1102),
        ("spot", "/klines", {"symbol": "BTCUSDT"}, -1102),
        ("spot", "/klines", {"symbol": "BTCUSDT", "interval": "7m"}, -1120),
        ("spot", "/ticker/24hr", {"symbols": '["BTCUSDT","BTCUSDT"]'}, -1151),
        ("spot", "/ticker/24hr", {"symbols": "BTCUSDT"}, -1100),
        ("spot", "/ticker/24hr", {"symbol": "BTCUSDT", "symbols": '["BTCUSDT"]'}, -1128),
        ("spot", "/exchangeInfo", {"symbol": "NOSUCH"}, -1121),
        ("spot", "/exchangeInfo", {"symbolStatus": "WAITING"}, -1122),
        ("spot", "/referencePrice", {"symbol": "币安人生USDT"}, -2043),
        ("usdm", "/depth", {"symbol": "BTCUSDT", "limit": "7"}, -4021), ("usdm", "/depth", {"symbol": "BTCUSD"}, -1121),
        ("usdm", "/klines", {"symbol": "BTCUSDT", "interval": "1s"}, -1120),
        ("usdm", "/trades", {"symbol": "BTCUSDT", "limit": "1001"}, -1130),
        ("usdm", "/aggTrades", {"symbol": "BTCUSDT", "startTime": "1600000000000"}, -4166),
        ("usdm", "/continuousKlines", {"pair": "BTCUSDT", "interval": "1m"}, -1102),
        ("coinm", "/depth", {"symbol": "BTCUSDT"}, -1121), ("coinm", "/indexPriceKlines", {"interval": "1m"}, -1102),
        ("coinm", "/fundingRate", {}, -1102),
    ],
)  # fmt: skip
def test_errors(recording: Recording, market: Market, path: str, params: dict[str, str], code: int) -> None:
    """A wrong request gets status 400 and the documented code."""
    assert recording.refused(market, PREFIX[market] + path, **params) == (400, code)


def test_unknown_paths(recording: Recording) -> None:
    """A path that is none, of another market, or asked by another method is a 404 at weight 1."""
    for market, method, path in (("spot", "GET", "/api/v3/nope"), ("spot", "GET", "/fapi/v1/depth"),
                                 ("usdm", "POST", "/fapi/v1/depth"), ("coinm", "GET", "/api/v3/ping")):  # fmt: skip
        answer = recording.exchange.rest(market, method, path, {"symbol": "BTCUSDT"}, START)
        assert (answer.status, answer.weight) == (404, 1)
        assert json.loads(answer.body)["code"] == -5000


def test_spot_exchange_info(recording: Recording) -> None:
    """Spot lists its symbols with the filters a client needs, and can be asked for some."""
    info = recording.get("spot", "/api/v3/exchangeInfo")
    assert info["serverTime"] == START
    assert {limit["rateLimitType"] for limit in info["rateLimits"]} == {
        "REQUEST_WEIGHT",
        "ORDERS",
        "RAW_REQUESTS",
    }
    symbols = {symbol["symbol"]: symbol for symbol in info["symbols"]}
    assert {"BTCUSDT", "ETHUSDT", "币安人生USDT", "1INCHUSDT"} <= set(symbols)
    assert len(symbols) == 12
    for name, symbol in symbols.items():
        assert name == symbol["baseAsset"] + symbol["quoteAsset"]
        filters = {f["filterType"]: f for f in symbol["filters"]}
        assert {"PRICE_FILTER", "LOT_SIZE", "MARKET_LOT_SIZE", "NOTIONAL", "PERCENT_PRICE_BY_SIDE"} <= set(
            filters
        )
        rows = recording.get("spot", "/api/v3/trades", symbol=name, limit=20)
        for row in rows:
            assert Decimal(row["price"]) % Decimal(filters["PRICE_FILTER"]["tickSize"]) == 0
            assert Decimal(row["qty"]) % Decimal(filters["LOT_SIZE"]["stepSize"]) == 0
    some = recording.get("spot", "/api/v3/exchangeInfo", symbols='["币安人生USDT","BTCUSDT"]')
    assert [symbol["symbol"] for symbol in some["symbols"]] == ["币安人生USDT", "BTCUSDT"]


@pytest.mark.parametrize("market", ["usdm", "coinm"])
def test_futures_exchange_info(recording: Recording, market: Market) -> None:
    """Contracts are listed with type, delivery, margin asset and filters; coinm says size and status its own way."""
    info = recording.get(market, f"{PREFIX[market]}/exchangeInfo")
    symbols = {symbol["symbol"]: symbol for symbol in info["symbols"]}
    assert len(symbols) == 12
    status = "status" if market == "usdm" else "contractStatus"
    for name, symbol in symbols.items():
        assert symbol[status] == "TRADING"
        filters = {f["filterType"]: f for f in symbol["filters"]}
        assert ("MIN_NOTIONAL" in filters) == (market == "usdm")
        depth = recording.get(market, f"{PREFIX[market]}/depth", symbol=name, limit=5)
        for price, quantity in depth["bids"] + depth["asks"]:
            assert Decimal(price) % Decimal(filters["PRICE_FILTER"]["tickSize"]) == 0
            assert Decimal(quantity) % Decimal(filters["LOT_SIZE"]["stepSize"]) == 0
            assert len(price.partition(".")[2]) == symbol["pricePrecision"]
        assert (symbol["deliveryDate"] == 4133404800000) == (
            symbol["contractType"] in {"PERPETUAL", "TRADIFI_PERPETUAL"}
        )
    if market == "usdm":
        assert {"BTCUSDT", "1000SHIBUSDT", "币安人生USDT", "BTCUSDT_261225"} <= set(symbols)
        assert symbols["BTCUSDT_261225"]["contractType"] == "CURRENT_QUARTER"
        assert symbols["BTCUSDT"]["marginAsset"] == "USDT"
    else:
        assert {"BTCUSD_PERP", "BTCUSD_261225"} <= set(symbols)
        assert (symbols["BTCUSD_PERP"]["contractSize"], symbols["ETHUSD_PERP"]["contractSize"]) == (100, 10)
        assert symbols["ETHUSD_PERP"]["marginAsset"] == "ETH"


def test_premium_and_funding(recording: Recording) -> None:
    """Mark prices, funding and open interest are there; coinm answers premiumIndex with an array even for one."""
    one = recording.get("usdm", "/fapi/v1/premiumIndex", symbol="BTCUSDT")
    assert list(one) == ["symbol", "markPrice", "indexPrice", "estimatedSettlePrice", "lastFundingRate", "interestRate",
                         "nextFundingTime", "time"]  # fmt: skip
    by_pair = recording.get("coinm", "/dapi/v1/premiumIndex", pair="BTCUSD")
    assert [row["symbol"] for row in by_pair] == ["BTCUSD_PERP", "BTCUSD_261225", "BTCUSD_270326"]
    assert (by_pair[1]["lastFundingRate"], by_pair[1]["nextFundingTime"]) == ("", 0)
    assert isinstance(recording.get("coinm", "/dapi/v1/premiumIndex", symbol="BTCUSD_PERP"), list)
    rates = recording.get("usdm", "/fapi/v1/fundingRate", symbol="BTCUSDT", limit=10)
    assert [b["fundingTime"] - a["fundingTime"] for a, b in pairwise(rates)] == [28_800_000] * 9
    assert rates == recording.get("usdm", "/fapi/v1/fundingRate", symbol="BTCUSDT", limit=10)
    assert set(rates[0]) == {"symbol", "fundingRate", "fundingTime", "markPrice", "rateType"}
    assert recording.get("coinm", "/dapi/v1/fundingRate", symbol="BTCUSD_261225") == []
    interest = recording.get("coinm", "/dapi/v1/openInterest", symbol="BTCUSD_PERP")
    assert set(interest) == {"symbol", "pair", "openInterest", "contractType", "time"}
    assert recording.get("usdm", "/fapi/v1/fundingInfo")
    assert {"BTCUSD", "USDTUSD"} <= {row["symbol"] for row in recording.get("usdm", "/fapi/v1/assetIndex")}


def test_reference_price(recording: Recording) -> None:
    """Spot has a reference price for most symbols."""
    row = recording.get("spot", "/api/v3/referencePrice", symbol="BTCUSDT")
    assert list(row) == ["symbol", "referencePrice", "timestamp"]


@pytest.mark.parametrize("market", MARKETS)
def test_all_tickers(recording: Recording, market: Market) -> None:
    """Asked without a symbol, tickers come for every symbol; spot can be asked for some, and for fewer fields."""
    for name in ("24hr", "price", "bookTicker"):
        rows = recording.get(market, f"{PREFIX[market]}/ticker/{name}")
        assert len(rows) == 12
    if market == "spot":
        mini = recording.get("spot", "/api/v3/ticker/24hr", symbols='["BTCUSDT","1INCHUSDT"]', type="MINI")
        assert [row["symbol"] for row in mini] == ["BTCUSDT", "1INCHUSDT"]
        assert list(mini[0]) == ["symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume",
                                 "openTime", "closeTime", "firstId", "lastId", "count"]  # fmt: skip
        day = recording.get("spot", "/api/v3/ticker/tradingDay", symbol="BTCUSDT")
        assert day["openTime"] % 86_400_000 == 0
