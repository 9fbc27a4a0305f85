"""Futures orders out of request parameters, checked against the contract's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.accounts.amounts import ZERO
from bridge.simulator.accounts.futures_orders import LIMITS, STOPS, Order
from bridge.simulator.accounts.refusal import Refused, missing

if TYPE_CHECKING:
    from decimal import Decimal

    from bridge.simulator.accounts.futures_orders import PositionSide
    from bridge.simulator.accounts.params import Params
    from bridge.simulator.accounts.venue import Terms

_TIMES_IN_FORCE = frozenset({"GTC", "IOC", "FOK", "GTX", "GTD", "RPI"})
_POSITION_SIDES: dict[str, PositionSide] = {"BOTH": "BOTH", "LONG": "LONG", "SHORT": "SHORT"}


def read_order(terms: Terms, params: Params, now_ms: int, *, hedged: bool) -> Order:
    """Return the order that the parameters of ``POST /fapi/v1/order`` or ``algoOrder`` describe, without an id.

    Raises:
        Refused: a parameter is missing, malformed, against the filters or against the account's position mode.
    """
    side, kind = params.required("side"), params.required("type")
    if side not in ("BUY", "SELL"):
        raise Refused(-1117, "Invalid side.")
    if kind not in STOPS | {"LIMIT", "MARKET"}:
        raise Refused(-1116, "Invalid orderType.")
    time_in_force = params.required("timeInForce") if kind == "LIMIT" else params.text("timeInForce", "GTC")
    if time_in_force not in _TIMES_IN_FORCE:
        raise Refused(-1115, "Invalid timeInForce.")
    close = params.flag("closePosition")
    trailing = kind == "TRAILING_STOP_MARKET"
    stop = params.decimal("triggerPrice") or params.decimal("stopPrice")
    if kind in STOPS and not trailing and stop is None:
        raise missing("stopPrice")
    rate = params.decimal("callbackRate") if trailing else None
    if trailing and rate is None:
        raise missing("callbackRate")
    activation = params.decimal("activationPrice") or params.decimal("activatePrice")
    return Order(
        terms=terms,
        order_id=-1,
        client_id=params.client_id("clientAlgoId") or params.client_id("newClientOrderId"),
        side="BUY" if side == "BUY" else "SELL",
        position_side=_position_side(params, hedged=hedged),
        type=kind,
        original_type=kind,
        time_in_force=time_in_force,
        quantity=ZERO if close else _stepped(terms, params),
        price=_ticked(terms, params.positive("price")) if kind in LIMITS else ZERO,
        stop_price=_ticked(terms, stop) if stop is not None else ZERO,
        reduce_only=params.flag("reduceOnly") or close,
        close_position=close,
        working_type=params.text("workingType", "CONTRACT_PRICE"),
        price_protect=params.flag("priceProtect"),
        price_match=params.text("priceMatch", "NONE"),
        prevention=params.text("selfTradePreventionMode", "EXPIRE_MAKER"),
        good_till_ms=params.number("goodTillDate") or 0,
        activation=activation,
        callback_rate=rate,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def _position_side(params: Params, *, hedged: bool) -> PositionSide:
    found = _POSITION_SIDES.get(params.text("positionSide", "BOTH"))
    if found is None or (found == "BOTH") == hedged:
        raise Refused(-4061, "Order's position side does not match user's setting.")
    return found


def _stepped(terms: Terms, params: Params) -> Decimal:
    quantity = params.positive("quantity")
    if quantity % terms.step:
        raise Refused(-1111, "Precision is over the maximum defined for this asset.")
    return quantity


def _ticked(terms: Terms, price: Decimal) -> Decimal:
    if price % terms.tick:
        raise Refused(-4014, "Price not increased by tick size.")
    return price
