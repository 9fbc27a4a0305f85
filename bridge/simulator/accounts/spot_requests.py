"""Spot orders and order lists out of request parameters, checked against the symbol's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.accounts.amounts import ZERO
from bridge.simulator.accounts.params import Params
from bridge.simulator.accounts.refusal import Refused, missing
from bridge.simulator.accounts.spot_orders import LIMITS, STOPS, Order

if TYPE_CHECKING:
    from decimal import Decimal

    from bridge.simulator.accounts.venue import Terms

_TYPES = frozenset({"LIMIT", "MARKET", "LIMIT_MAKER"}) | STOPS
_TIMES_IN_FORCE = frozenset({"GTC", "IOC", "FOK"})
_PREVENTION = frozenset(
    {"NONE", "EXPIRE_MAKER", "EXPIRE_TAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER"}
)  # fmt: skip


def read_order(terms: Terms, params: Params, now_ms: int) -> Order:
    """Return the order that the parameters of ``POST /api/v3/order`` describe, without an id.

    Raises:
        Refused: a parameter is missing, malformed or against the symbol's filters.
    """
    side, kind = params.required("side"), params.required("type")
    if side not in ("BUY", "SELL"):
        raise Refused(-1117, "Invalid side.")
    if kind not in _TYPES:
        raise Refused(-1116, "Invalid orderType.")
    needs_time = kind in LIMITS and kind != "LIMIT_MAKER"
    time_in_force = params.required("timeInForce") if needs_time else "GTC"
    if time_in_force not in _TIMES_IN_FORCE:
        raise Refused(-1115, "Invalid timeInForce.")
    quote = params.decimal("quoteOrderQty") if kind == "MARKET" else None
    quantity = ZERO if quote is not None else _stepped(terms, params)
    delta = params.number("trailingDelta") if kind in STOPS else None
    stop = params.decimal("stopPrice") if kind in STOPS else None
    if kind in STOPS and stop is None and delta is None:
        raise missing("stopPrice")
    prevention = params.text("selfTradePreventionMode", "NONE")
    if prevention not in _PREVENTION:
        raise Refused(-1130, "Data sent for parameter 'selfTradePreventionMode' is not valid.")
    return Order(
        symbol=terms.symbol,
        order_id=-1,
        client_id=params.client_id("newClientOrderId"),
        side="BUY" if side == "BUY" else "SELL",
        type=kind,
        time_in_force=time_in_force,
        quantity=quantity,
        price=_ticked(terms, params.positive("price")) if kind in LIMITS else ZERO,
        stop_price=_ticked(terms, stop) if stop is not None else ZERO,
        iceberg=params.decimal("icebergQty") or ZERO,
        quote_quantity=quote or ZERO,
        prevention=prevention,
        strategy_id=params.number("strategyId"),
        strategy_type=_strategy_type(params),
        trailing_delta=delta,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def oco_legs(params: Params) -> tuple[Params, Params]:
    """Return the legs of ``POST /api/v3/orderList/oco``: the one above, the one below.

    Raises:
        Refused: a leg's type is missing.
    """
    return _leg(params, "above"), _leg(params, "below")


def oto_legs(params: Params) -> tuple[Params, Params]:
    """Return the legs of ``POST /api/v3/orderList/oto``: the working one, the pending one.

    Raises:
        Refused: a leg's type is missing.
    """
    return _leg(params, "working"), _leg(params, "pending")


def _leg(params: Params, prefix: str) -> Params:
    """Return the parameters of one leg under the names of a single order."""
    names = {"clientOrderId": "newClientOrderId"}
    found = {name: params.given[name] for name in ("symbol", "side", "quantity") if name in params.given}
    params.required(f"{prefix}Type")
    for name, value in params.given.items():
        if name.startswith(prefix):
            plain = name.removeprefix(prefix)
            plain = plain[0].lower() + plain[1:]
            found[names.get(plain, plain)] = value
    return Params(found)


def _stepped(terms: Terms, params: Params) -> Decimal:
    quantity = params.positive("quantity")
    if quantity % terms.step:
        raise Refused(-1013, "Filter failure: LOT_SIZE")
    return quantity


def _ticked(terms: Terms, price: Decimal) -> Decimal:
    if price % terms.tick:
        raise Refused(-1013, "Filter failure: PRICE_FILTER")
    return price


def _strategy_type(params: Params) -> int | None:
    found = params.number("strategyType")
    if found is not None and found < 1_000_000:
        raise Refused(-1130, "Data sent for parameter 'strategyType' is not valid.")
    return found
