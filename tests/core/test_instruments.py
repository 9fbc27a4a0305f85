"""Instruments from exchangeInfo: symbols, precision and all else as CCXT has it."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.derive import Writer
from bridge.core.instruments import (
    PERPETUAL_DELIVERY_MS,
    Answer,
    InstrumentHistory,
    Instruments,
    parse_exchange_info,
    unknown,
)
from bridge.core.market_records import market_records
from bridge.errors import UnexpectedMessage
from bridge.model import MARKETS, Market
from bridge.schema import schemas
from tests.derived import read

TESTS = Path(__file__).parents[1]
CCXT: dict[Market, list[dict[str, Any]]] = json.loads(
    (TESTS / "core" / "ccxt-markets.json").read_text(encoding="utf-8")
)["markets"]
ROWS = [(market, wanted) for market in MARKETS for wanted in CCXT[market]]


@cache
def _recorded(market: Market) -> Instruments:
    with gzip.open(TESTS / "captures" / f"{market}.jsonl.gz", "rt", encoding="utf-8") as lines:
        body = json.loads(next(lines))["body"]
    return parse_exchange_info(market, body.encode())[1]


@cache
def _todays(market: Market) -> Instruments:
    return parse_exchange_info(market, (TESTS / "cases/exchange-info" / f"{market}.json").read_bytes())[1]


def _numbers(value: Any) -> Any:
    """Return CCXT's values with numbers as Decimal, as they are compared."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, str):
        return Decimal(value)
    return value


def _parsed(market: Market, *rows: dict[str, Any]) -> Instruments:
    return parse_exchange_info(market, json.dumps({"serverTime": 1, "symbols": rows}).encode())[1]


def _row(market: Market, symbol: str, **changes: Any) -> dict[str, Any]:
    info = json.loads((TESTS / "cases/exchange-info" / f"{market}.json").read_text(encoding="utf-8"))
    row = next(r for r in info["symbols"] if r["symbol"] == symbol)
    return {**row, **changes}


@pytest.mark.parametrize(("market", "wanted"), ROWS, ids=[f"{m}-{w['id']}" for m, w in ROWS])
def test_instrument_is_as_ccxt_has_it(market: Market, wanted: dict[str, Any]) -> None:
    """Every field of CCXT's market structure, for rows of real exchangeInfo answers."""
    found = _recorded(market).by_id[wanted["id"]]
    numbers = {k: _numbers(wanted[k]) for k in ("taker", "maker", "contractSize", "precision", "limits")}
    times = {k: wanted[k] and wanted[k] * 1000 for k in ("expiry", "created")}
    expected = {k: v for k, v in wanted.items() if k != "symbol"} | numbers | times
    expected["limits"].setdefault("market", {"min": None, "max": None})
    assert found.symbol == wanted["symbol"]
    assert {k: found.record[k] for k in expected} == expected
    assert set(found.record) - set(expected) == {"index", "status", "contractType", "pair"}
    assert found.record["index"] is (False if market == "spot" else None)


@pytest.mark.parametrize(
    ("market", "id_", "symbol"),
    [
        ("spot", "BTCUSDT", "BTC/USDT"),
        ("spot", "ETHBTC", "ETH/BTC"),
        ("spot", "1INCHUSDT", "1INCH/USDT"),
        ("spot", "币安人生USDT", "币安人生/USDT"),
        ("spot", "YOYOBTC", "YOYOW/BTC"),
        ("usdm", "BTCUSDT", "BTC/USDT:USDT"),
        ("usdm", "1000SHIBUSDT", "1000SHIB/USDT:USDT"),
        ("usdm", "BTCUSDC", "BTC/USDC:USDC"),
        ("usdm", "ETHUSDT_261225", "ETH/USDT:USDT-261225"),
        ("usdm", "我踏马来了USDT", "我踏马来了/USDT:USDT"),
        ("usdm", "XAUUSDT", "XAU/USDT:USDT"),
        ("coinm", "BTCUSD_PERP", "BTC/USD:BTC"),
        ("coinm", "BTCUSD_261225", "BTC/USD:BTC-261225"),
    ],
)
def test_symbols_follow_ccxts_rules(market: Market, id_: str, symbol: str) -> None:
    """The table of symbols that CCXT gives, found by either name."""
    table = _todays(market)
    assert table.get(id_).symbol == symbol
    found = table.find(symbol)
    assert found is not None
    assert found == table.find(id_)
    assert found.id == id_


def test_every_recorded_row_makes_an_instrument_of_its_own() -> None:
    """None is left out and no two share a symbol, in all 1,853 rows of the captures but those without a pair."""
    for market, rows in (("spot", 1695), ("usdm", 122), ("coinm", 36)):
        table = _recorded(market)  # type: ignore[arg-type]
        assert len(table) == rows
        assert len(table.by_symbol) == rows


def test_delisted_perpetual_stays_a_swap() -> None:
    """Its delivery date was moved, its contract type was not."""
    omg = _todays("usdm").by_id["OMGUSDT"]
    assert (omg.symbol, omg.record["type"], omg.record["expiry"], omg.active) == (
        "OMG/USDT:USDT",
        "swap",
        None,
        False,
    )


@pytest.mark.parametrize(
    ("days", "suffix"), [(0, "261225"), (-8 / 24 - 1 / 86400, "261224"), (365, "271225")]
)
def test_dated_contracts_are_named_by_the_utc_day(days: float, suffix: str) -> None:
    """A second before midnight UTC is still the day before."""
    delivery = 1798185600000 + int(days * 86_400_000)
    [found] = _parsed("usdm", _row("usdm", "ETHUSDT_261225", deliveryDate=delivery)).by_id.values()
    assert found.symbol == f"ETH/USDT:USDT-{suffix}"
    assert found.record["expiry"] == delivery * 1000


def test_perpetual_of_another_type_is_known_by_its_delivery_date() -> None:
    """TRADIFI_PERPETUAL and whatever comes next."""
    row = _row("usdm", "XAUUSDT", contractType="MOON_PERPETUAL", deliveryDate=PERPETUAL_DELIVERY_MS)
    [found] = _parsed("usdm", row).by_id.values()
    assert (found.symbol, found.record["swap"]) == ("XAU/USDT:USDT", True)


@pytest.mark.parametrize(
    ("asset", "code"),
    [("XBT", "BTC"), ("BCHSV", "BSV"), ("YOYO", "YOYOW"), ("BCC", "BCC"), ("lower", "LOWER")],
)
def test_assets_are_renamed_as_in_ccxt(asset: str, code: str) -> None:
    """The exchange's own name stays in baseId."""
    [found] = _parsed("spot", _row("spot", "BTCUSDT", baseAsset=asset)).by_id.values()
    assert (found.symbol, found.record["base"], found.record["baseId"]) == (f"{code}/USDT", code, asset)


@pytest.mark.parametrize(
    ("tick", "decimals"),
    [("0.01000000", 2), ("0.10", 1), ("1", 0), ("10", 0), ("0.00000001", 8), ("1E-7", 7)],
)
def test_average_has_the_decimals_of_the_tick_size(tick: str, decimals: int) -> None:
    """Trailing zeros of the tick size are no decimals."""
    row = _row("spot", "BTCUSDT", filters=[{"filterType": "PRICE_FILTER", "tickSize": tick}])
    [found] = _parsed("spot", row).by_id.values()
    assert found.price_decimals == decimals
    assert found.record["precision"]["price"] == Decimal(tick)


def test_precision_without_filters_is_that_of_the_row() -> None:
    """As CCXT does: pricePrecision and quantityPrecision."""
    [found] = _parsed("usdm", _row("usdm", "1000SHIBUSDT", filters=[])).by_id.values()
    assert found.record["precision"]["price"] == Decimal("0.000001")
    assert found.record["precision"]["amount"] == 1
    assert found.record["limits"]["amount"] == {"min": None, "max": None}


@pytest.mark.parametrize(
    ("changes", "active"),
    [
        ({}, True),
        ({"status": "HALT"}, False),
        ({"status": "CANCEL_ONLY"}, False),
        ({"permissions": ["TRD_GRP_003"]}, False),
        ({"permissions": [], "permissionSets": [["SPOT", "TRD_GRP_003"]]}, True),
    ],
)
def test_active_is_what_trades_for_anyone(changes: dict[str, Any], active: bool) -> None:
    """A group that may trade among others (permissionSets) takes nothing away; the old list did (CCXT)."""
    [found] = _parsed("spot", _row("spot", "BTCUSDT", **changes)).by_id.values()
    assert found.active is found.record["active"] is active


def test_rows_that_are_not_understood_are_left_out() -> None:
    """A bridge must not stop for one odd listing."""
    good = _row("usdm", "BTCUSDT")
    odd = [
        None, "BTCUSDT", {}, {"symbol": "X"},
        {**good, "symbol": "NODATE", "contractType": "NEXT_YEAR", "deliveryDate": None},
        {**good, "symbol": "HUGE", "contractSize": "1" * 30}, {**good, "symbol": "BADTICK", "filters": [{}]},
        {**good, "symbol": "FARAWAY", "contractType": "", "deliveryDate": 10**18}, {**good, "symbol": 7},
        {**good, "symbol": "NOTANUMBER", "filters": [{"filterType": "LOT_SIZE", "stepSize": "much"}]},
    ]  # fmt: skip
    assert list(_parsed("usdm", *odd, good).by_id) == ["BTCUSDT"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"null", b'{"symbols": 7}', b'{"symbols": null}', b'{"code": -1003, "msg": "no"}'],
)
def test_what_is_no_exchange_info_is_refused(body: bytes) -> None:
    """By the error that says so, never another."""
    with pytest.raises(UnexpectedMessage, match="spot exchangeInfo"):
        parse_exchange_info("spot", body)


filters = st.dictionaries(st.sampled_from(["filterType", "tickSize"]), st.text(max_size=3))
odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(-1e30, 1e30),
    st.text(max_size=5),
    st.lists(filters, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([*_row("coinm", "BTCUSD_261225")]), odd_values, max_size=4))
def test_no_row_stops_the_others(changes: dict[str, Any]) -> None:
    """Whatever a row holds, the rest is read, and what is read can be published."""
    table = _parsed("coinm", {**_row("coinm", "BTCUSD_261225"), **changes}, _row("coinm", "ETHUSD_PERP"))
    assert "ETHUSD_PERP" in table.by_id
    records = [*market_records(schemas()["market"], None, table, Writer("live", 0), 1, 1, 1)]
    assert len(records) == len(table)


def test_unknown_symbol_is_its_own_name() -> None:
    """As in CCXT, so that no message is lost for want of an instrument."""
    found = _todays("spot").get("NEWUSDT")
    assert found == unknown("spot", "NEWUSDT")
    assert (found.symbol, found.contract_size, found.active) == ("NEWUSDT", None, False)
    assert _todays("spot").find("NEWUSDT") is None


def test_index_of_a_pair_has_no_settlement_currency() -> None:
    """Its symbol is BASE/QUOTE, whichever contracts the pair has; an unknown pair is its own name."""
    table = _todays("coinm")
    assert (table.pair("BTCUSD").symbol, table.pair("BTCUSD").id) == ("BTC/USD", "BTCUSD")
    assert table.pair("XYZUSD").symbol == "XYZUSD"


def test_history_knows_what_was_known_when() -> None:
    """The newest table received by then, the oldest before all, whatever the order they were read in."""
    history = InstrumentHistory()
    assert history.at(5) is None
    early, late = _todays("spot"), _recorded("spot")
    history.add(Answer(200, 190, 2, late))
    history.add(Answer(100, 90, 1, early))
    assert [history.at(t) for t in (50, 100, 199, 200, 300)] == [early, early, early, late, late]


@pytest.mark.parametrize("market", MARKETS)
def test_market_records_are_the_instruments(market: Market) -> None:
    """All of them at first, then none, then those that changed; keyed by symbol, stamped by the answer."""
    schema, writer, table = schemas()["market"], Writer("live", 3), _todays(market)
    first = [*market_records(schema, None, table, writer, 1_000, 2_000, 9)]
    assert [r.key.decode() for r in first] == [i.symbol for i in table.by_id.values()]
    structure, record = read(first[0].value)
    assert structure == "market"
    instrument = next(iter(table.by_id.values()))
    way_back = {
        "origin": "snapshot",
        "channel": "api",
        "connectionSequence": 9,
        "writerEpoch": 3,
        "market": market,
    }
    assert (way_back | {"id": instrument.id, "symbol": instrument.symbol}).items() <= record.items()
    assert [*market_records(schema, table, table, writer, 1_000, 2_000, 10)] == []

    rows = [_row(market, id_) for id_ in table.by_id]
    status = "contractStatus" if market == "coinm" else "status"
    rows[1] = {**rows[1], status: "BREAK"}
    [changed] = market_records(schema, table, _parsed(market, *rows), writer, 1_000, 2_000, 11)
    assert (read(changed.value)[1]["id"], read(changed.value)[1]["active"]) == (rows[1]["symbol"], False)
