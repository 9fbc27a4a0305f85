"""Named conversions for the maps of ``topics/account/``, beside those of :mod:`bridge.core.conversions`.

Arguments are typed as there; ``Time`` is a time that may come as text, ``Legs`` an array of objects. The compiler gives
``instrument`` (of the record's symbol) and ``instruments`` (the table). Decimals are unscaled integers (times 10**18),
times are microseconds.

Sources: the CCXT rules in docs/reference/records.md; types of orders and entries are CCXT's tables for Binance
(ccxt 4.5.90).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.core.conversions import CONVERSIONS, Flag, Int, MaybeInt, MaybeText, Text, micros
from bridge.core.conversions import cost as trade_cost
from bridge.core.decimals import UNSCALED, divide
from bridge.core.instruments import currency_code
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.instruments import Instrument, Instruments

Time = int | str
Legs = list[dict[str, Any]]

_STATUS = {
    "NEW": "open",
    "PENDING_NEW": "open",
    "PARTIALLY_FILLED": "open",
    "ACCEPTED": "open",
    "NEW_INSURANCE": "open",
    "NEW_ADL": "open",
    "TRIGGERING": "open",
    "TRIGGERED": "open",
    "FILLED": "closed",
    "FINISHED": "closed",
    "CANCELED": "canceled",
    "CANCELLED": "canceled",
    "PENDING_CANCEL": "canceling",
    "REJECTED": "rejected",
    "EXPIRED": "expired",
    "EXPIRED_IN_MATCH": "expired",
}
_SPOT_TYPE = {
    "LIMIT_MAKER": "limit",
    "STOP_LOSS": "market",
    "STOP_LOSS_LIMIT": "limit",
    "TAKE_PROFIT": "market",
    "TAKE_PROFIT_LIMIT": "limit",
}
_FUTURES_TYPE = {
    "STOP": "limit",
    "TAKE_PROFIT": "limit",
    "STOP_MARKET": "market",
    "TAKE_PROFIT_MARKET": "market",
    "TRAILING_STOP_MARKET": "market",
}
_LEDGER_TYPE = {
    "FEE": "fee",
    "FUNDING_FEE": "fee",
    "SPECIAL_FUNDING_FEE": "fee",
    "OPTIONS_PREMIUM_FEE": "fee",
    "POSITION_LIMIT_INCREASE_FEE": "fee",
    "CONTRACT": "trade",
    "REALIZED_PNL": "trade",
    "AUTO_EXCHANGE": "trade",
    "TRANSFER": "transfer",
    "CROSS_COLLATERAL_TRANSFER": "transfer",
    "INTERNAL_TRANSFER": "transfer",
    "STRATEGY_UMFUTURES_TRANSFER": "transfer",
    "COIN_SWAP_DEPOSIT": "deposit",
    "COIN_SWAP_WITHDRAW": "withdrawal",
    "OPTIONS_SETTLE_PROFIT": "settlement",
    "DELIVERED_SETTELMENT": "settlement",
    "INSURANCE_CLEAR": "settlement",
    "WELCOME_BONUS": "cashback",
    "CONTEST_REWARD": "cashback",
    "BFUSD_REWARD": "cashback",
    "COMMISSION_REBATE": "rebate",
    "API_REBATE": "rebate",
    "FEE_RETURN": "rebate",
    "REFERRAL_KICKBACK": "referral",
    "COMMISSION": "commission",
    # Reasons of ACCOUNT_UPDATE that REST's income calls TRANSFER.
    "DEPOSIT": "transfer",
    "WITHDRAW": "transfer",
    "WITHDRAW_REJECT": "transfer",
    "ADMIN_DEPOSIT": "transfer",
    "ADMIN_WITHDRAW": "transfer",
    "ASSET_TRANSFER": "transfer",
    "MARGIN_TRANSFER": "transfer",
    "ADJUSTMENT": "transfer",
}
_TRIGGERED = "8"
"""``er``: the order as it was placed ended because its stop triggered; the order itself goes on under the same id."""


def given_time(value: Time) -> int:
    """A time that is a number, or digits (as older ``listenKeyExpired`` events have it)."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) < 20):
            raise UnexpectedMessage(f"{value[:40]!r} is not a time")
        value = int(value)
    return micros(value)


def present(value: MaybeText) -> str | None:
    """Text where ``NONE`` says "none"."""
    return None if value in {None, "", "NONE", "0"} else value


def id_text(value: MaybeInt) -> str | None:
    """An id as text, where -1 and 0 say "none"."""
    return None if value is None or value <= 0 else str(value)


def trade_id_text(value: MaybeInt) -> str | None:
    """A trade id of spot as text, where -1 says "none"."""
    return None if value is None or value < 0 else str(value)


def optional_text(value: MaybeInt) -> str | None:
    """An id as text, where there is one."""
    return None if value is None else str(value)


def first_text(first: MaybeText, second: Text) -> str:
    """The first text where it is not empty, else the second."""
    return first or second


def second_text(first: MaybeText, second: Text) -> str | None:
    """The second text where the first is not empty."""
    return second if first else None


def currency(asset: MaybeText) -> str | None:
    """The currency code (CCXT) of an asset."""
    return currency_code(asset) if asset else None


def unified(instruments: Instruments, symbol: MaybeText) -> str | None:
    """The unified symbol of an exchange symbol."""
    return instruments.get(symbol).symbol if symbol else None


# Orders


def order_status(status: Text) -> str:
    """CCXT's order status; what is not known passes in lower case."""
    return _STATUS.get(status, status.lower())


def futures_status(status: Text, expiry_reason: MaybeText) -> str:
    """The same; a stop that expired because it triggered lives on as a plain order of the same id."""
    return "open" if status == "EXPIRED" and expiry_reason == _TRIGGERED else order_status(status)


def spot_type(type_: Text) -> str:
    """CCXT's order type on spot."""
    return _SPOT_TYPE.get(type_, type_.lower())


def futures_type(type_: Text) -> str:
    """CCXT's order type on futures."""
    return _FUTURES_TYPE.get(type_, type_.lower())


def time_in_force(value: MaybeText) -> str | None:
    """CCXT's time in force: GTX is post only."""
    return "PO" if value == "GTX" else value


def post_only(type_: Text, time_in_force: MaybeText) -> bool:
    """Whether the order never takes."""
    return type_ == "LIMIT_MAKER" or time_in_force == "GTX"


def spot_average(cost: Text, filled: Text) -> int | None:
    """Average price: cost / filled, truncated; None before the first fill, or where the cost is not known."""
    return divide(UNSCALED[cost], UNSCALED[filled]) if _known_cost(cost) else None


def spot_cost(cost: Text) -> int | None:
    """What was paid; negative says "not known" (orders of before 2017)."""
    return UNSCALED[cost] if _known_cost(cost) else None


def _known_cost(cost: str) -> bool:
    return UNSCALED[cost] >= 0


def spot_price(type_: Text, price: Text, cost: Text, filled: Text) -> int | None:
    """Limit price; of market orders the average price (CCXT)."""
    return UNSCALED[price] or (spot_average(cost, filled) if type_ == "MARKET" else None)


def futures_price(type_: Text, price: Text, average: MaybeText) -> int | None:
    """The same on futures."""
    return UNSCALED[price] or (UNSCALED[average] if type_ == "MARKET" and average else None) or None


def placed_time(execution: Text, time: Int) -> int | None:
    """When a futures order was placed: only its first event tells (CCXT takes the time of cancels and amends too)."""
    return micros(time) if execution == "NEW" else None


def algo_placed_time(status: Text, time: Int) -> int | None:
    """When a conditional order was placed: the time of an event in which it is new."""
    return micros(time) if status == "NEW" else None


def last_trade_time(execution: Text, time: Int) -> int | None:
    """When an order filled, where the event is about a fill."""
    return micros(time) if execution in {"TRADE", "CALCULATED"} else None


def remaining_of(amount: MaybeText, filled: MaybeText) -> int | None:
    """What is left to fill; None where the message does not tell what has filled."""
    return remaining(amount, filled) if amount and filled else None


def remaining(amount: Text, filled: Text) -> int | None:
    """What is left to fill; None where the amount is not known."""
    return UNSCALED[amount] - UNSCALED[filled] if UNSCALED[amount] else None


def trigger_price(type_: Text, price: MaybeText) -> int | None:
    """The trigger price, None where zero and for trailing stops, whose ``sp`` says nothing."""
    return (UNSCALED[price] or None) if price and type_ != "TRAILING_STOP_MARKET" else None


def take_profit_price(type_: Text, price: MaybeText) -> int | None:
    """The trigger price of a take-profit order."""
    return trigger_price(type_, price) if type_.startswith("TAKE_PROFIT") else None


def average_cost(instrument: Instrument, average: MaybeText, filled: MaybeText) -> int | None:
    """Cost of what has filled by its average price, as CCXT computes it; 0 before the first fill."""
    if not filled or not average:
        return None
    return trade_cost(instrument, average, filled) if UNSCALED[filled] else 0


def known_id(value: MaybeText) -> str | None:
    """An id that comes as text, empty where there is none."""
    return value or None


# Fills


def taker_or_maker(maker: Flag) -> str:
    """CCXT's takerOrMaker."""
    return "maker" if maker else "taker"


def fill_side(buyer: Flag) -> str:
    """Side of a fill."""
    return "buy" if buyer else "sell"


def fee(commission: MaybeText, asset: MaybeText) -> dict[str, Any] | None:
    """A commission; None where the message has none. Zero is kept, its currency may be null."""
    if not commission:
        return None
    return {"currency": currency(asset), "cost": UNSCALED[commission]}


def fees(commission: MaybeText, asset: MaybeText) -> list[dict[str, Any]]:
    """The same as a list."""
    found = fee(commission, asset)
    return [] if found is None else [found]


def paid_fee(commission: MaybeText, asset: MaybeText) -> dict[str, Any] | None:
    """A commission of an order's event, which says 0 where it is not about a fill."""
    found = fee(commission, asset)
    return found if found is not None and found["cost"] else None


def paid_fees(commission: MaybeText, asset: MaybeText) -> list[dict[str, Any]]:
    """The same as a list."""
    found = paid_fee(commission, asset)
    return [] if found is None else [found]


def spot_fills(
    execution: Text, trade: Int, time: Int, price: Text, amount: Text, cost: Text, maker: Flag,
    commission: MaybeText, asset: MaybeText,
) -> list[dict[str, Any]]:  # fmt: skip
    """The fill that an event of a spot order tells of."""
    if execution != "TRADE":
        return []
    return [
        {
            "id": trade_id_text(trade),
            "timestamp": micros(time),
            "price": UNSCALED[price],
            "amount": UNSCALED[amount],
            "cost": UNSCALED[cost],
            "takerOrMaker": taker_or_maker(maker),
            "fee": fee(commission, asset),
        }
    ]


def futures_fills(
    instrument: Instrument, trade: Int, time: Int, price: Text, amount: Text, maker: Flag,
    commission: MaybeText, asset: MaybeText,
) -> list[dict[str, Any]]:  # fmt: skip
    """The fill that an event of a futures order tells of: it has a trade id."""
    if trade <= 0:
        return []
    return [
        {
            "id": str(trade),
            "timestamp": micros(time),
            "price": UNSCALED[price],
            "amount": UNSCALED[amount],
            "cost": trade_cost(instrument, price, amount),
            "takerOrMaker": taker_or_maker(maker),
            "fee": fee(commission, asset),
        }
    ]


# Balances and the ledger


def add(first: Text, second: Text) -> int:
    """The sum of two amounts."""
    return UNSCALED[first] + UNSCALED[second]


def direction(amount: Text) -> str:
    """Where an amount goes, by its sign."""
    return "out" if UNSCALED[amount] <= 0 else "in"


def paid_direction(amount: Text) -> str:
    """Where a commission goes: it is positive where it is paid."""
    return "in" if UNSCALED[amount] < 0 else "out"


def magnitude(amount: Text) -> int:
    """An amount without its sign."""
    return abs(UNSCALED[amount])


def optional_magnitude(amount: MaybeText) -> int | None:
    """The same of an amount that may be missing."""
    return magnitude(amount) if amount else None


def ledger_type(type_: Text) -> str:
    """CCXT's type of a ledger entry; what it has no word for passes as it is."""
    return _LEDGER_TYPE.get(type_, type_)


def margin_asset(instrument: Instrument, asset: MaybeText) -> str:
    """The asset a contract settles in: the message's word, else what exchangeInfo says."""
    settle = asset or instrument.record.get("settleId")
    if not settle:
        raise UnexpectedMessage(f"what {instrument.id} settles in is not known")
    return str(settle)


# Positions


def held_side(position_side: Text, amount: Text) -> str | None:
    """CCXT's side of a position; None where flat (CCXT: ``both``)."""
    number = UNSCALED[amount]
    if not number:
        return None
    if position_side == "BOTH":
        return "long" if number > 0 else "short"
    return position_side.lower()


def hedged(position_side: Text) -> bool:
    """Whether long and short positions are kept apart."""
    return position_side != "BOTH"


def margin_mode(value: MaybeText) -> str | None:
    """Margin mode, cross or isolated; margin calls say CROSSED."""
    lower = value.lower() if value else None
    return "cross" if lower == "crossed" else lower


def is_isolated(value: MaybeText) -> bool | None:
    """Whether the margin mode is isolated."""
    return margin_mode(value) == "isolated" if value else None


def margin_mode_by(mode: MaybeText, isolated_margin: MaybeText, amount: Text) -> str | None:
    """Margin mode where the row may not say it: what is held has a margin of its own or not. None where flat."""
    if mode or not isolated_margin or not UNSCALED[amount]:
        return margin_mode(mode)
    return "isolated" if UNSCALED[isolated_margin] else "cross"


def is_isolated_by(mode: MaybeText, isolated_margin: MaybeText, amount: Text) -> bool | None:
    """Whether that is isolated."""
    return is_isolated(margin_mode_by(mode, isolated_margin, amount))


# Other events


def legs(orders: Legs) -> list[dict[str, Any]]:
    """The legs of an order list."""
    found = []
    for leg in orders:
        id_, client_id = leg.get("i"), leg.get("c")
        if type(id_) is not int or type(client_id) is not str:
            raise UnexpectedMessage("a leg of the order list has no i or c")
        found.append({"id": str(id_), "clientOrderId": client_id})
    return found


ACCOUNT_CONVERSIONS: dict[str, Callable[..., object]] = CONVERSIONS | {
    function.__name__: function
    for function in (
        given_time, present, id_text, trade_id_text, optional_text, first_text, second_text, currency,
        unified, order_status, futures_status, spot_type, futures_type, time_in_force, post_only,
        spot_average, spot_cost, spot_price, futures_price, placed_time, algo_placed_time,
        last_trade_time, remaining, remaining_of, trigger_price, take_profit_price, average_cost,
        known_id, taker_or_maker, fill_side, fee, fees, paid_fee, paid_fees, spot_fills, futures_fills,
        add, direction, paid_direction, magnitude, optional_magnitude, ledger_type, margin_asset,
        held_side, hedged, margin_mode, is_isolated, margin_mode_by, is_isolated_by, legs,
    )
}  # fmt: skip
