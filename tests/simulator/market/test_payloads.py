"""Every kind of stream speaks with exactly the fields Binance documents, in order and by type.

The examples are those of the project's fact sheets on Binance's spot and futures streams (July and October 2026);
their numbers mean nothing here, only names, order and types.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from bridge.simulator.market.bars import INTERVALS
from bridge.simulator.market.streams import wanted, well_formed
from tests.simulator.market.recording import START, Recording

if TYPE_CHECKING:
    from bridge.model import Market

_BAR = (
    '{"t":1,"T":2,"s":"BNBBTC","i":"1m","f":100,"L":200,"o":"0.1","c":"0.2","h":"0.2","l":"0.1","v":"1000","n":100,'
    '"x":false,"q":"1.0","V":"500","Q":"0.5","B":"0"}'
)
_KLINE = f'{{"e":"kline","E":1,"s":"BNBBTC","k":{_BAR}}}'
_CONTINUOUS = (
    _KLINE.replace("kline", "continuous_kline")
    .replace('"s":"BNBBTC","k"', '"ps":"BTCUSDT","ct":"PERPETUAL","k"')
    .replace('"s":"BNBBTC",', "")
)
_SAMPLED = f'{{"e":"x","E":1,"ps":"BTCUSD","k":{_BAR}}}'
_ROLLING = (
    '{"e":"1hTicker","E":1,"s":"BNBBTC","p":"0.1","P":"2.0","o":"0.1","h":"0.2","l":"0.1","c":"0.2","w":"0.1","v":"1",'
    '"q":"1","O":0,"C":1,"F":0,"L":1,"n":2}'
)
_MINI = '{"e":"24hrMiniTicker","E":1,"s":"B","c":"0.2","o":"0.1","h":"0.2","l":"0.1","v":"10000","q":"18"}'
_MINI_FUTURES = _MINI.replace('"s":"B",', '"s":"B","ps":"B",').replace("}", ',"st":1}')
_TICKER = (
    '{"e":"24hrTicker","E":1,"s":"B","p":"1","P":"1","w":"1","x":"1","c":"1","Q":"1","b":"1","B":"1","a":"1","A":"1",'
    '"o":"1","h":"1","l":"1","v":"1","q":"1","O":0,"C":1,"F":0,"L":1,"n":1}'
)
_TICKER_FUTURES = (
    '{"e":"24hrTicker","E":1,"s":"B","ps":"B","p":"1","P":"1","w":"1","c":"1","Q":"1","o":"1","h":"1","l":"1","v":"1",'
    '"q":"1","O":1,"C":1,"F":1,"L":1,"n":1,"st":1}'
)
_BOOK_TICKER_FUTURES = (
    '{"e":"bookTicker","u":1,"s":"B","ps":"B","b":"1","B":"1","a":"1","A":"1","T":1,"E":1,"st":1}'
)
_LEVELS = '"b":[["1","1"]],"a":[["1","1"]]'
_DEPTH_FUTURES = f'{{"e":"depthUpdate","E":1,"T":1,"s":"B","ps":"B","U":1,"u":1,"pu":1,{_LEVELS},"st":1}}'
_MARK_USDM = '{"e":"markPriceUpdate","E":1,"s":"B","p":"1","ap":"1","P":"1","i":"1","r":"1","T":1,"st":1}'
_MARK_COINM = '{"e":"markPriceUpdate","E":1,"s":"B","p":"1","P":"1","i":"1","r":"1","T":1,"st":2}'
_TRADE_FUTURES = '{"e":"trade","E":1,"T":1,"s":"B","t":1,"p":"1","q":"1","X":"MARKET","m":true,"st":1}'
_FORCE = (
    '{"e":"forceOrder","E":1,"o":{"s":"B","S":"SELL","o":"LIMIT","f":"IOC","q":"1","p":"1","ap":"1","X":"FILLED",'
    '"l":"1","z":"1","T":1}}'
)
_FORCE_COINM = _FORCE.replace('"s":"B",', '"s":"B","ps":"B",')
_RATES = '"b":"1","a":"1","B":"1","A":"1","q":"1","g":"1","Q":"1","G":"1"'
_ASSET = f'{{"e":"assetIndexUpdate","E":1,"s":"ADAUSD","i":"1",{_RATES}}}'
_COMPOSITE = (
    '{"e":"compositeIndex","E":1,"s":"DEFIUSDT","p":"1","C":"baseAsset","c":[{"b":"AAVE","q":"USDT","w":"1","W":"1",'
    '"i":"1"}]}'
)

EXAMPLES: list[tuple[Market, str, str]] = [
    ("spot", "btcusdt@aggTrade",
     '{"e":"aggTrade","E":1,"s":"B","a":1,"p":"0.1","q":"100","f":100,"l":105,"T":1,"m":true,"M":true}'),
    ("spot", "btcusdt@trade", '{"e":"trade","E":1,"s":"B","t":12345,"p":"0.1","q":"100","T":1,"m":true,"M":true}'),
    ("spot", "btcusdt@blockTrade", '{"e":"blockTrade","E":1,"s":"B","t":582,"p":"0.1","q":"5838","T":1,"m":true}'),
    ("spot", "btcusdt@kline_1s", _KLINE),
    ("spot", "btcusdt@kline_1m", _KLINE),
    ("spot", "btcusdt@kline_1M@+08:00", _KLINE),
    ("spot", "btcusdt@miniTicker", _MINI),
    ("spot", "!miniTicker@arr", f"[{_MINI}]"),
    ("spot", "btcusdt@ticker", _TICKER),
    ("spot", "btcusdt@ticker_1h", _ROLLING),
    ("spot", "!ticker_4h@arr", f"[{_ROLLING.replace('1hT', '4hT')}]"),
    ("spot", "btcusdt@bookTicker", '{"u":1,"s":"B","b":"1","B":"1","a":"1","A":"1"}'),
    ("spot", "btcusdt@avgPrice", '{"e":"avgPrice","E":1,"s":"B","i":"5m","w":"1","T":1}'),
    ("spot", "btcusdt@depth5", '{"lastUpdateId":160,"bids":[["0.1","10"]],"asks":[["0.2","100"]]}'),
    ("spot", "btcusdt@depth@100ms",
     '{"e":"depthUpdate","E":1,"s":"B","U":157,"u":160,"b":[["0.1","10"]],"a":[["0.2","100"]]}'),
    ("spot", "btcusdt@referencePrice", '{"e":"referencePrice","s":"B","r":"1.00","t":1}'),
    ("usdm", "btcusdt@aggTrade",
     '{"e":"aggTrade","E":1,"a":1,"s":"B","p":"1","q":"1","nq":"1","f":1,"l":1,"T":1,"m":false,"st":1}'),
    ("coinm", "btcusd_perp@aggTrade",
     '{"e":"aggTrade","E":1,"a":1,"s":"B","p":"1","q":"1","f":1,"l":1,"T":1,"m":false,"st":2}'),
    ("usdm", "btcusdt@trade", _TRADE_FUTURES),
    ("coinm", "btcusd_perp@trade", _TRADE_FUTURES),
    ("usdm", "btcusdt@markPrice", _MARK_USDM),
    ("coinm", "btcusd_perp@markPrice@1s", _MARK_COINM),
    ("coinm", "btcusd@markPrice@1s", f"[{_MARK_COINM}]"),
    ("usdm", "!markPrice@arr", f"[{_MARK_USDM}]"),
    ("coinm", "btcusd@indexPrice", '{"e":"indexPriceUpdate","E":1,"i":"BTCUSD","p":"1"}'),
    ("usdm", "btcusdt@kline_1m", _KLINE),
    ("coinm", "btcusd_perp@kline_1h", _KLINE),
    ("usdm", "btcusdt_perpetual@continuousKline_1m", _CONTINUOUS),
    ("coinm", "btcusd_current_quarter@continuousKline_1m", _CONTINUOUS),
    ("coinm", "btcusd@indexPriceKline_1m", _SAMPLED.replace("x", "indexPrice_kline", 1)),
    ("coinm", "btcusd_perp@markPriceKline_1m", _SAMPLED.replace("x", "markPrice_kline", 1)),
    ("usdm", "btcusdt@miniTicker", _MINI_FUTURES),
    ("coinm", "!miniTicker@arr", f"[{_MINI_FUTURES}]"),
    ("usdm", "btcusdt@ticker", _TICKER_FUTURES),
    ("coinm", "!ticker@arr", f"[{_TICKER_FUTURES}]"),
    ("usdm", "btcusdt@bookTicker", _BOOK_TICKER_FUTURES),
    ("coinm", "!bookTicker", _BOOK_TICKER_FUTURES),
    ("usdm", "btcusdt@forceOrder", _FORCE),
    ("coinm", "btcusd_perp@forceOrder", _FORCE_COINM),
    ("usdm", "btcusdt@depth", _DEPTH_FUTURES),
    ("usdm", "btcusdt@depth20@500ms", _DEPTH_FUTURES),
    ("usdm", "btcusdt@rpiDepth@500ms", _DEPTH_FUTURES),
    ("coinm", "btcusd_perp@depth@100ms", _DEPTH_FUTURES),
    ("usdm", "defiusdt@compositeIndex", _COMPOSITE),
    ("usdm", "!contractInfo",
     '{"e":"contractInfo","E":1,"s":"B","ps":"B","ct":"PERPETUAL","dt":1,"ot":1,"cs":"TRADING","st":1}'),
    ("usdm", "!assetIndex@arr", f"[{_ASSET}]"),
    ("usdm", "btcusd@assetIndex", _ASSET),
    ("usdm", "tradingSession", '{"e":"EquityUpdate","E":1,"t":1,"T":1,"S":"AFTER_MARKET"}'),
]  # fmt: skip
_DECIMAL = re.compile(r"-?\d+(\.\d+)?")
_WORDS = frozenset({"e", "s", "ps", "ct", "i", "S", "o", "f", "X", "C", "b", "q", "cs"})
"""Keys whose value may be a word; all other texts are numbers."""


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Seven minutes of a quiet market, so that rare kinds have spoken too."""
    streams: dict[Market, list[str]] = {"spot": [], "usdm": ["!forceOrder@arr"], "coinm": ["!forceOrder@arr"]}
    for market, stream, _ in EXAMPLES:
        streams[market].append(stream)
    return Recording(streams, seed=3, symbols=12, rate=40).run(START + 420_000)


def check(found: Any, example: Any, key: str = "") -> None:
    """Check that ``found`` has the names, order and types of ``example``."""
    if isinstance(example, dict):
        assert isinstance(found, dict)
        names = [name for name in found if name != "bks"]
        assert names == list(example)
        for name, value in example.items():
            check(found[name], value, name)
    elif isinstance(example, list):
        assert isinstance(found, list)
        for one in found:
            check(one, example[0] if isinstance(example[0], dict) else "1")
    elif isinstance(example, str) and isinstance(found, list):
        assert len(found) == 2
        for one in found:
            check(one, "1")
    else:
        assert type(found) is type(example), key
        if isinstance(example, str) and key not in _WORDS:
            assert _DECIMAL.fullmatch(found) or (key == "r" and not found)


@pytest.mark.parametrize(("market", "stream", "example"), EXAMPLES, ids=[f"{m}-{s}" for m, s, _ in EXAMPLES])
def test_fields(recording: Recording, market: Market, stream: str, example: str) -> None:
    """Payloads of the stream have the documented fields, in order, each of its type."""
    payloads = recording.payloads(market, stream)
    assert payloads
    wanted_fields = json.loads(example)
    for payload in payloads[-200:]:
        rows = payload if isinstance(payload, list) else [payload]
        for row in rows:
            shape = wanted_fields[0] if isinstance(wanted_fields, list) else wanted_fields
            if stream.startswith("!markPrice") and row["st"] == 2:
                shape = json.loads(_MARK_COINM)
            if stream == "btcusdt@referencePrice" and row["r"] is None:
                continue
            check(row, shape)
            assert row.get("e") == shape.get("e") or stream == "tradingSession"


def test_every_payload_is_compact_json(recording: Recording) -> None:
    """All bytes are JSON as Binance writes it: UTF-8, without spaces, no name twice."""
    for emission in recording.emissions[-5_000:]:
        text = emission.data.decode()

        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            names = [name for name, _ in pairs]
            assert len(set(names)) == len(names)
            return dict(pairs)

        decoded = json.loads(text, object_pairs_hook=once)
        assert json.dumps(decoded, ensure_ascii=False, separators=(",", ":")) == text


def test_liquidations_of_all_symbols_name_pair_and_product(recording: Recording) -> None:
    """``!forceOrder@arr`` is an object too; it adds pair and product, and coinm orders name their pair inside."""
    rows = recording.payloads("usdm", "!forceOrder@arr")
    assert {row["st"] for row in rows} == {1, 2}
    for row in rows:
        assert list(row) == ["e", "E", "o", "ps", "st"]
        assert ("ps" in row["o"]) == (row["st"] == 2)


def test_new_brackets_are_numbers(recording: Recording) -> None:
    """Where leverage brackets changed, ``!contractInfo`` lists them, as JSON numbers."""
    brackets = [row["bks"] for row in recording.payloads("usdm", "!contractInfo") if "bks" in row]
    assert brackets
    for bracket in brackets[0]:
        assert list(bracket) == ["bs", "bnf", "bnc", "mmr", "cf", "mi", "ma"]
        assert all(isinstance(value, int | float) for value in bracket.values())


def test_digits(recording: Recording) -> None:
    """Spot prints eight decimals everywhere; contracts print those of their tick and lot."""
    spot = recording.payloads("spot", "btcusdt@trade")[-1]
    assert all(re.fullmatch(r"\d+\.\d{8}", spot[key]) for key in "pq")
    linear = recording.payloads("usdm", "btcusdt@aggTrade")[-1]
    assert re.fullmatch(r"\d+\.\d0", linear["p"])
    assert re.fullmatch(r"\d+\.\d{3}", linear["q"])
    inverse = recording.payloads("coinm", "btcusd_perp@aggTrade")[-1]
    assert re.fullmatch(r"\d+\.\d", inverse["p"])
    assert inverse["q"].isdecimal()


def test_dated_contracts_have_no_funding() -> None:
    """A contract with a delivery tells an empty funding rate and no next funding; perpetuals pay at 0, 8 and 16."""
    recording = Recording({"coinm": ["btcusd@markPrice@1s"]}, symbols=5).run(START + 3_000)
    rows = {row["s"]: row for row in recording.payloads("coinm", "btcusd@markPrice@1s")[-1]}
    assert {symbol: (row["r"], row["T"]) for symbol, row in rows.items() if "PERP" not in symbol} == {
        "BTCUSD_261225": ("", 0), "BTCUSD_270326": ("", 0),
    }  # fmt: skip
    perpetual = rows["BTCUSD_PERP"]
    assert perpetual["T"] % 28_800_000 == 0
    assert 0 < perpetual["T"] - perpetual["E"] <= 28_800_000


def test_names_that_mean_nothing_are_taken_and_silent() -> None:
    """A well-formed name that means nothing on its host is accepted and never has an event."""
    recording = Recording(
        {
            "spot": [
                "BTCUSDT@trade", "btcusdt@nonsense", "btcusdt@kline_7m", "!ticker@arr", "nosuch@trade", "!bookTicker",
                "btcusdt@depth@250ms", "btcusdt@markPrice", "btcusdt@kline_1s@+08:00", "btcusdt@depth7",
            ],
            "usdm": [
                "btcusdt@depth@250ms", "btcusdt@kline_1s", "btcusd_perp@trade", "btcusdt@avgPrice",
                "btcusdt@indexPrice", "BTCUSDT_perpetual@continuousKline_1m", "btcusdt@blockTrade",
                "btcusdt@markPriceKline_1m", "btcusdt@indexPriceKline_1m", "nosuch@assetIndex",
            ],
            "coinm": [
                "btcusdt@bookTicker", "btcusd_perp@compositeIndex", "tradingSession", "!assetIndex@arr",
                "btcusd_perp@rpiDepth@500ms",
            ],
        },
        symbols=12,
    ).run(START + 6_000)  # fmt: skip
    assert recording.emissions == []


def test_malformed_names_are_refused() -> None:
    """What is no stream name at all is refused."""
    exchange = Recording({}).exchange
    for stream in ("btcusdt", "", "@trade", "btcusdt@", "btc usdt@trade", "btcusdt@trade\n"):
        assert not well_formed(stream)
        assert not exchange.track("spot", stream)


def test_every_interval_is_a_stream() -> None:
    """Each interval names a stream, a minute apart from a month by case."""
    for interval in INTERVALS:
        want = wanted("spot", f"btcusdt@kline_{interval}")
        assert want is not None
        assert want.argument == interval
