"""Records as CCXT's dictionaries: its keys, its nesting, times in milliseconds.

What CCXT has no key for is left out; it stays on the record. ``info`` is empty: the message itself is in the
raw topic, under the record's ``connectionId`` and ``connectionSequence``. Source: the type declarations of
ccxt 4.5.90.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

from bridge.sdk.record import as_millis, as_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.sdk import records

Number: TypeAlias = type[float] | type[Decimal] | type[str]
"""What numbers become: ``float`` (CCXT's default), ``Decimal`` or ``str`` (both exact)."""

_TICKER = (
    "high", "low", "bid", "bidVolume", "ask", "askVolume", "vwap", "open", "close", "last", "previousClose",
    "change", "percentage", "average", "baseVolume", "quoteVolume", "markPrice", "indexPrice",
)  # fmt: skip


def converter(number: Number) -> Callable[[Decimal | None], Any]:
    """Return the function that turns an exact decimal into ``number``; None stays None."""
    if number is str:
        return lambda value: None if value is None else f"{value:f}"
    if number is Decimal:
        return lambda value: value
    return lambda value: None if value is None else float(value)


def _head(record: Any) -> dict[str, Any]:
    return {
        "symbol": record.symbol,
        "timestamp": as_millis(record.timestamp),
        "datetime": as_text(record.timestamp),
        "info": {},
    }


def trade(record: records.Trade, number: Number) -> dict[str, Any]:
    """CCXT's Trade."""
    of = converter(number)
    return {
        **_head(record),
        "id": record.id,
        "order": record.order,
        "type": record.type,
        "side": record.side,
        "takerOrMaker": record.takerOrMaker,
        "price": of(record.price),
        "amount": of(record.amount),
        "cost": of(record.cost),
        "fee": _fee(record.fee, of),
        "fees": [_fee(fee, of) for fee in record.fees],
    }


def _fee(fee: records.Fee | None, of: Callable[[Decimal | None], Any]) -> dict[str, Any]:
    if fee is None:
        return {"currency": None, "cost": None}
    return {"currency": fee.currency, "cost": of(fee.cost)} | (
        {} if fee.rate is None else {"rate": of(fee.rate)}
    )


def ticker(record: records.Ticker, number: Number) -> dict[str, Any]:
    """CCXT's Ticker."""
    return _head(record) | _numbers(record, _TICKER, number)


def bid_ask(record: records.BidAsk, number: Number) -> dict[str, Any]:
    """CCXT's Ticker, with nothing but the best bid and ask, as of ``watchBidsAsks``."""
    given = _numbers(record, ("bid", "bidVolume", "ask", "askVolume"), number)
    return _head(record) | dict.fromkeys(_TICKER) | given


def mark_price(record: records.MarkPrice, number: Number) -> dict[str, Any]:
    """CCXT's Ticker, with nothing but mark and index price, as of ``watchMarkPrice``."""
    return _head(record) | dict.fromkeys(_TICKER) | _numbers(record, ("markPrice", "indexPrice"), number)


def ohlcv(record: records.Ohlcv, number: Number) -> list[Any]:
    """CCXT's OHLCV: a list of open time (ms), open, high, low, close and volume."""
    of = converter(number)
    numbers = (record.open, record.high, record.low, record.close, record.volume)
    return [as_millis(record.timestamp), *(of(value) for value in numbers)]


def order_book(record: records.OrderBook, number: Number) -> dict[str, Any]:
    """CCXT's OrderBook; of a delta the changed levels only."""
    of = converter(number)
    return {
        "symbol": record.symbol,
        "bids": [[of(level.price), of(level.amount)] for level in record.bids],
        "asks": [[of(level.price), of(level.amount)] for level in record.asks],
        "timestamp": as_millis(record.timestamp),
        "datetime": as_text(record.timestamp),
        "nonce": record.sequence,
    }


def funding_rate(record: records.FundingRate, number: Number) -> dict[str, Any]:
    """CCXT's FundingRate."""
    values = (
        "fundingRate", "markPrice", "indexPrice", "interestRate", "estimatedSettlePrice", "nextFundingRate",
        "previousFundingRate",
    )  # fmt: skip
    times: dict[str, Any] = {}
    for name in ("funding", "nextFunding", "previousFunding"):
        micros = getattr(record, f"{name}Timestamp")
        times |= {f"{name}Timestamp": as_millis(micros), f"{name}Datetime": as_text(micros)}
    return _head(record) | _numbers(record, values, number) | times | {"interval": record.interval}


def liquidation(record: records.Liquidation, number: Number) -> dict[str, Any]:
    """CCXT's Liquidation."""
    values = ("contracts", "contractSize", "price", "baseValue", "quoteValue")
    return _head(record) | {"side": record.side} | _numbers(record, values, number)


def instrument(record: records.Instrument, number: Number) -> dict[str, Any]:
    """CCXT's Market."""
    of = converter(number)
    plain = (
        "id", "lowercaseId", "symbol", "base", "quote", "settle", "baseId", "quoteId", "settleId", "type",
        "subType", "spot", "margin", "swap", "future", "option", "index", "active", "contract", "linear",
        "inverse", "optionType", "percentage", "tierBased", "feeSide",
    )  # fmt: skip
    return {
        **{name: getattr(record, name) for name in plain},
        **_numbers(record, ("contractSize", "strike", "taker", "maker"), number),
        "expiry": as_millis(record.expiry),
        "expiryDatetime": as_text(record.expiry),
        "created": as_millis(record.created),
        "precision": _numbers(record.precision, ("amount", "price", "base", "quote"), number),
        "limits": {
            name: {"min": of(getattr(record.limits, name).min), "max": of(getattr(record.limits, name).max)}
            for name in ("amount", "price", "cost", "leverage", "market")
        },
        "info": {},
    }


def _numbers(record: Any, names: tuple[str, ...], number: Number) -> dict[str, Any]:
    of = converter(number)
    return {name: of(getattr(record, name)) for name in names}
