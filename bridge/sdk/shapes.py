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


_ORDER = (
    "price", "average", "amount", "filled", "remaining", "stopPrice", "triggerPrice", "takeProfitPrice",
    "stopLossPrice", "cost",
)  # fmt: skip
_POSITION = (
    "contracts", "contractSize", "notional", "leverage", "unrealizedPnl", "realizedPnl", "positionMargin", "collateral",
    "entryPrice", "markPrice", "lastPrice", "exitPrice", "liquidationPrice", "maintenanceMargin",
    "maintenanceMarginPercentage", "initialMargin", "initialMarginPercentage", "marginRatio", "stopLossPrice",
    "takeProfitPrice", "percentage",
)  # fmt: skip


def order(record: records.Order, number: Number) -> dict[str, Any]:
    """CCXT's Order; ``trades`` has the fill that the record tells of."""
    of = converter(number)
    plain = (
        "id", "clientOrderId", "status", "type", "timeInForce", "postOnly", "reduceOnly", "side",
    )  # fmt: skip
    return {
        **_head(record),
        **{name: getattr(record, name) for name in plain},
        **_numbers(record, _ORDER, number),
        "lastTradeTimestamp": as_millis(record.lastTradeTimestamp),
        "lastUpdateTimestamp": as_millis(record.lastUpdateTimestamp),
        "fee": None if record.fee is None else _fee(record.fee, of),
        "fees": [_fee(fee, of) for fee in record.fees],
        "trades": [_fill(fill, record, of) for fill in record.trades],
    }


def _fill(fill: records.Fill, order: records.Order, of: Callable[[Decimal | None], Any]) -> dict[str, Any]:
    fees = [] if fill.fee is None else [_fee(fill.fee, of)]
    return {
        "id": fill.id,
        "order": order.id,
        "symbol": order.symbol,
        "timestamp": as_millis(fill.timestamp),
        "datetime": as_text(fill.timestamp),
        "type": None if order.exchangeType is None else order.exchangeType.lower(),
        "side": order.side,
        "takerOrMaker": fill.takerOrMaker,
        "price": of(fill.price),
        "amount": of(fill.amount),
        "cost": of(fill.cost),
        "fee": _fee(fill.fee, of),
        "fees": fees,
        "info": {},
    }


def my_trade(record: records.MyTrade, number: Number) -> dict[str, Any]:
    """CCXT's Trade, as of ``watchMyTrades``."""
    of = converter(number)
    plain = ("id", "order", "type", "side", "takerOrMaker")
    return {
        **_head(record),
        **{name: getattr(record, name) for name in plain},
        **_numbers(record, ("price", "amount", "cost"), number),
        "fee": _fee(record.fee, of),
        "fees": [_fee(fee, of) for fee in record.fees],
    }


def balance(record: records.Balance, number: Number) -> dict[str, Any]:
    """CCXT's Balance of one currency, with its code as the key."""
    amounts = _numbers(record, ("free", "used", "total"), number)
    by_kind = {kind: {record.currency: amount} for kind, amount in amounts.items()}
    head = {name: value for name, value in _head(record).items() if name != "symbol"}
    return head | {record.currency: amounts} | by_kind


def position(record: records.Position, number: Number) -> dict[str, Any]:
    """CCXT's Position."""
    plain = ("id", "side", "hedged", "marginMode", "isolated")
    return {
        **_head(record),
        **{name: getattr(record, name) for name in plain},
        **_numbers(record, _POSITION, number),
        "lastUpdateTimestamp": as_millis(record.lastUpdateTimestamp),
    }


def ledger(record: records.LedgerEntry, number: Number) -> dict[str, Any]:
    """CCXT's LedgerEntry."""
    plain = ("id", "direction", "account", "referenceId", "referenceAccount", "type", "currency", "status")
    head = {name: value for name, value in _head(record).items() if name != "symbol"}
    return {
        **head,
        **{name: getattr(record, name) for name in plain},
        **_numbers(record, ("amount", "before", "after"), number),
        "fee": None if record.fee is None else _fee(record.fee, converter(number)),
    }


def _numbers(record: Any, names: tuple[str, ...], number: Number) -> dict[str, Any]:
    of = converter(number)
    return {name: of(getattr(record, name)) for name in names}
