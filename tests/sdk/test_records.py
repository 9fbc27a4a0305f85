"""Record classes, their CCXT form and their JSON form."""

from __future__ import annotations

import contextlib
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.cli.record_lines import summary
from bridge.errors import DecodeError
from bridge.schema import schemas
from bridge.sdk import (
    Balance,
    BidAsk,
    Instrument,
    Level,
    Lifecycle,
    Ohlcv,
    Order,
    OrderBook,
    Raw,
    Trade,
    generate,
    jsonlines,
    testing,
)
from bridge.sdk.reading import decoder
from bridge.sdk.records import Fee, Fill
from tests.sdk.values import values

T0 = 1_793_491_200_123_456  # 2026-11-01T00:00:00.123456Z


def test_records_py_is_current_with_avro():
    """``bridge/sdk/records.py`` is what ``python -m bridge.sdk.generate`` writes."""
    assert generate.TARGET.read_text(encoding="utf-8") == generate.text(), "run python -m bridge.sdk.generate"


def test_times_derive_from_the_timestamp():
    """``datetime`` is CCXT's text, cut to milliseconds; ``time`` is aware and exact."""
    trade = testing.record(Trade, timestamp=T0)
    assert trade.datetime == "2026-11-01T00:00:00.123Z"
    assert trade.time == datetime(2026, 11, 1, 0, 0, 0, 123456, tzinfo=UTC)


def test_a_record_without_a_time_has_none():
    """A spot book ticker has no event time, so neither form of it."""
    quote = testing.record(BidAsk)
    assert (quote.time, quote.datetime) == (None, None)


@pytest.mark.parametrize("micros", [-1, 2**62])
def test_times_beyond_the_calendar_are_none(micros):
    """A time that CCXT can't write is None, not an error."""
    assert testing.record(Trade, timestamp=micros).datetime is None


def test_operational_records_show_their_own_time():
    """Lifecycle shows ``at``, raw shows ``receivedAt``."""
    assert testing.record(Lifecycle, at=T0).datetime == "2026-11-01T00:00:00.123Z"
    assert testing.record(Raw, receivedAt=T0).datetime == "2026-11-01T00:00:00.123Z"


def test_records_are_values():
    """Records are immutable, hashable, equal by value and survive pickling."""
    trade = testing.record(Trade, symbol="BTC/USDT", price="84211.37")
    with pytest.raises(AttributeError):
        trade.symbol = "ETH/USDT"  # type: ignore[misc]
    assert not hasattr(trade, "__dict__")
    assert pickle.loads(pickle.dumps(trade)) == trade
    assert len({trade, testing.record(Trade, symbol="BTC/USDT", price="84211.370")}) == 1


def test_a_trade_in_ccxt_shape():
    """A trade gives exactly CCXT's keys, in milliseconds and floats."""
    trade = testing.record(
        Trade,
        symbol="BTC/USDT",
        timestamp=T0,
        id="7",
        side="sell",
        price="84211.37",
        amount="0.1",
        cost="8421.137",
    )
    assert trade.as_ccxt() == {
        "symbol": "BTC/USDT",
        "timestamp": 1_793_491_200_123,
        "datetime": "2026-11-01T00:00:00.123Z",
        "id": "7",
        "order": None,
        "type": None,
        "side": "sell",
        "takerOrMaker": None,
        "price": 84211.37,
        "amount": 0.1,
        "cost": 8421.137,
        "fee": {"currency": None, "cost": None},
        "fees": [],
        "info": {},
    }


def test_numbers_of_the_ccxt_shape_are_what_is_asked_for():
    """``number=str`` and ``number=Decimal`` keep every digit."""
    trade = testing.record(Trade, price="0.000000000000000001", amount="100")
    assert (trade.as_ccxt(str)["price"], trade.as_ccxt(str)["amount"]) == ("0.000000000000000001", "100")
    assert trade.as_ccxt(number=Decimal)["price"] == Decimal("1e-18")


def test_a_candle_in_ccxt_shape_is_a_list():
    """OHLCV is open time, open, high, low, close, volume."""
    candle = testing.record(Ohlcv, timestamp=T0, open="1", high="4", low="0.5", close="2", volume="10")
    assert candle.as_ccxt() == [1_793_491_200_123, 1.0, 4.0, 0.5, 2.0, 10.0]


def test_a_book_in_ccxt_shape_has_pairs_and_a_nonce():
    """Levels become lists of price and amount; levels of the record unpack."""
    book = testing.record(OrderBook, symbol="BTC/USDT", sequence=9, bids=(Level(Decimal(2), Decimal(1)),))
    assert book.as_ccxt()["bids"] == [[2.0, 1.0]]
    assert book.as_ccxt()["nonce"] == 9
    [(price, amount)] = book.bids
    assert (price, amount) == (2, 1)


_TICKER_KEYS = {
    "symbol", "info", "timestamp", "datetime", "high", "low", "bid", "bidVolume", "ask", "askVolume", "vwap", "open",
    "close", "last", "previousClose", "change", "percentage", "average", "quoteVolume", "baseVolume", "indexPrice",
    "markPrice",
}  # fmt: skip


@pytest.mark.parametrize("name", ["ticker", "bid-ask", "mark-price"])
def test_tickers_have_all_of_ccxts_keys(name):
    """Every kind of ticker has all keys of CCXT's Ticker, null where unknown."""

    @settings(max_examples=10, deadline=None)
    @given(values(name))
    def check(value):
        assert set(_decoded(name, value).as_ccxt()) == _TICKER_KEYS

    check()


def test_an_instrument_in_ccxt_shape_nests_precision_and_limits():
    """A market has CCXT's nested precision and limits."""
    market = testing.record(Instrument, symbol="BTC/USDT", id="BTCUSDT", expiry=T0).as_ccxt()
    assert market["limits"]["cost"] == {"min": None, "max": None}
    assert set(market["precision"]) == {"amount", "price", "base", "quote"}
    assert market["expiryDatetime"] == "2026-11-01T00:00:00.123Z"


_ACCOUNT_KEYS = {
    "order": {
        "id", "clientOrderId", "datetime", "timestamp", "lastTradeTimestamp", "lastUpdateTimestamp", "status", "symbol",
        "type", "timeInForce", "side", "price", "average", "amount", "filled", "remaining", "stopPrice", "triggerPrice",
        "takeProfitPrice", "stopLossPrice", "cost", "trades", "fee", "fees", "reduceOnly", "postOnly", "info",
    },
    "my-trade": {
        "info", "amount", "datetime", "id", "order", "price", "timestamp", "type", "side", "symbol", "takerOrMaker",
        "cost", "fee", "fees",
    },
    "position": {
        "symbol", "id", "info", "timestamp", "datetime", "contracts", "contractSize", "side", "notional", "leverage",
        "unrealizedPnl", "realizedPnl", "positionMargin", "collateral", "entryPrice", "markPrice", "liquidationPrice",
        "marginMode", "hedged", "maintenanceMargin", "maintenanceMarginPercentage", "initialMargin",
        "initialMarginPercentage", "marginRatio", "lastUpdateTimestamp", "lastPrice", "stopLossPrice",
        "takeProfitPrice", "percentage", "isolated", "exitPrice",
    },
    "ledger": {
        "id", "info", "timestamp", "datetime", "account", "direction", "referenceId", "referenceAccount", "type",
        "currency", "amount", "before", "after", "status", "fee",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(_ACCOUNT_KEYS))
def test_records_of_accounts_have_all_of_ccxts_keys(name):
    """Orders, fills, positions and ledger entries have exactly the keys of CCXT's types."""

    @settings(max_examples=10, deadline=None)
    @given(values(name))
    def check(value):
        assert set(_decoded(name, value).as_ccxt()) == _ACCOUNT_KEYS[name]

    check()


def test_an_order_in_ccxt_shape_has_its_fill():
    """The fill an order's record tells of is a trade of the order, with all keys of CCXT's Trade."""
    fill = Fill("7", T0, Decimal(2), Decimal(3), Decimal(6), "maker", Fee("BNB", Decimal("0.1"), None))
    order = testing.record(
        Order, symbol="BTC/USDT", id="1", side="buy", exchangeType="LIMIT_MAKER", trades=(fill,)
    )
    [trade] = order.as_ccxt()["trades"]
    assert set(trade) == _ACCOUNT_KEYS["my-trade"]
    assert (trade["order"], trade["type"], trade["side"]) == ("1", "limit_maker", "buy")
    assert (trade["cost"], trade["fee"]) == (6.0, {"currency": "BNB", "cost": 0.1})


def test_a_balance_in_ccxt_shape_has_its_currency_as_key():
    """One currency of CCXT's map, by code and by kind."""
    balance = testing.record(Balance, currency="BTC", free="1", used="0.5", total="1.5", timestamp=T0)
    shape = balance.as_ccxt()
    assert shape["BTC"] == {"free": 1.0, "used": 0.5, "total": 1.5}
    assert (shape["free"], shape["used"], shape["total"]) == ({"BTC": 1.0}, {"BTC": 0.5}, {"BTC": 1.5})
    assert set(shape) == {"BTC", "free", "used", "total", "timestamp", "datetime", "info"}


def _decoded(name, value):
    return decoder().decode(testing._encoded(name, value))


@pytest.mark.parametrize("name", sorted(schemas()))
def test_json_keeps_every_record_exactly(name):
    """A record written as JSON and read back is the same record, and has a CCXT form where its class has one."""

    @settings(max_examples=12, deadline=None)
    @given(values(name))
    def check(value):
        record = _decoded(name, value)
        assert jsonlines.record(name, json.loads(jsonlines.line(jsonlines.plain(record)))) == record
        if hasattr(record, "as_ccxt"):
            json.dumps(record.as_ccxt(str))

    check()


def test_json_shows_what_no_reader_can_take_wrongly():
    """Decimals are text, the connection id is hexadecimal, the payload is text where it is UTF-8."""
    plain = jsonlines.plain(
        testing.record(Raw, connectionId=2**62 + 1, payload='{"s":"币安人生USDT"}'.encode())
    )
    assert plain["connectionId"] == "4000000000000001"
    assert plain["payload"] == '{"s":"币安人生USDT"}'
    assert jsonlines.plain(testing.record(Raw, payload=b"\xff"))["payloadBase64"] == "/w=="
    trade = decoder().decode(testing.encode(testing.record(Trade, price="100.10")))
    assert jsonlines.plain(trade)["price"] == "100.1"


@pytest.mark.parametrize("name", sorted(schemas()))
def test_every_record_has_a_line_for_people(name):
    """Whatever a record holds, ``tail`` has a line for it."""

    @settings(max_examples=10, deadline=None)
    @given(values(name))
    def check(value):
        assert isinstance(summary(_decoded(name, value)), str)

    check()


@pytest.mark.parametrize(
    ("structure", "change", "message"),
    [
        ("trade", {"price": 1.5}, "price is 1.5"),
        ("trade", {"price": "cheap"}, "price is 'cheap'"),
        ("trade", {"market": "moon"}, "market is 'moon'"),
        ("trade", {"symbol": None}, "symbol is None"),
        ("trade", {"colour": "red"}, "no field colour"),
        ("raw", {"payloadBase64": "?"}, "not base64"),
        ("fruit", {}, "no structure 'fruit'"),
    ],
)
def test_json_that_is_no_record_is_refused(structure, change, message):
    """A wrong value is a DecodeError that names its field."""
    class_ = {"trade": Trade, "raw": Raw}.get(structure, Trade)
    with pytest.raises(DecodeError, match=message):
        jsonlines.record(structure, jsonlines.plain(testing.record(class_)) | change)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["trade", "order-book", "raw"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
)
def test_any_json_raises_nothing_but_decode_error(structure, value):
    """Whatever JSON is taken for a record is one, or a DecodeError."""
    base = jsonlines.plain(testing.record({"trade": Trade, "order-book": OrderBook, "raw": Raw}[structure]))
    for name in (*base, None):
        with contextlib.suppress(DecodeError):
            jsonlines.record(structure, value if name is None else base | {name: value})
