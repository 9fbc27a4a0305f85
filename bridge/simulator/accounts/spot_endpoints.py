"""The signed endpoints of spot, for REST and the WebSocket API alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.accounts.amounts import ZERO, text
from bridge.simulator.accounts.calls import Call, Endpoint
from bridge.simulator.accounts.refusal import (
    Refused,
    combination,
    missing,
    no_order,
    unknown_order,
)
from bridge.simulator.accounts.spot_requests import oco_legs, oto_legs

if TYPE_CHECKING:
    from bridge.simulator.accounts.params import Params
    from bridge.simulator.accounts.spot_orders import Json, Order, OrderList


def _account(call: Call) -> object:
    return call.account.spot.row(call.account.uid, omit_zero=call.params.flag("omitZeroBalances"))


def _restrictions(call: Call) -> object:
    return call.key.restrictions()


# orders


def _find(call: Call, *, client_name: str = "origClientOrderId") -> Order:
    order_id, client_id = call.params.number("orderId"), call.params.text(client_name)
    if order_id is None and not client_id:
        raise Refused(-1102, f"Param '{client_name}' or 'orderId' must be sent, but both were empty/null!")
    return call.account.spot.find(call.params.required("symbol"), order_id, client_id)


def _order(call: Call) -> object:
    return _find(call).row()


def _place(call: Call) -> object:
    order = call.account.spot.place(call.params, call.now_ms)
    usual = "FULL" if order.type in ("LIMIT", "MARKET") else "ACK"
    return order.reply(call.params.text("newOrderRespType", usual), call.now_ms)


def _test(call: Call) -> object:
    call.account.spot.check(call.params, call.now_ms)
    if not call.params.flag("computeCommissionRates"):
        return {}
    fees = call.account.spot.fees
    none = {"maker": text(ZERO), "taker": text(ZERO)}
    return {
        "standardCommissionForOrder": {"maker": text(fees.maker), "taker": text(fees.taker)},
        "specialCommissionForOrder": none,
        "taxCommissionForOrder": none,
        "discount": {
            "enabledForAccount": False,
            "enabledForSymbol": False,
            "discountAsset": "BNB",
            "discount": "0.25000000",
        },
    }


def _cancel(call: Call) -> object:
    try:
        order = _find(call)
    except Refused as refused:
        raise unknown_order() if refused.code == -2013 else refused from None
    request_id = call.account.spot.cancel(order, call.now_ms, call.params.client_id("newClientOrderId"))
    listed = call.account.spot.lists.get(order.list_id)
    if listed is not None:
        return _cancelled_list(listed, request_id, call.now_ms)
    return order.cancelled(request_id, call.now_ms)


def _cancel_all(call: Call) -> object:
    spot, symbol = call.account.spot, call.params.required("symbol")
    if not spot.open_orders(symbol):
        raise unknown_order()
    answers: list[object] = []
    while open_orders := spot.open_orders(symbol):
        order = open_orders[0]
        request_id = spot.cancel(order, call.now_ms)
        listed = spot.lists.get(order.list_id)
        cancelled = order.cancelled(request_id, call.now_ms)
        answers.append(cancelled if listed is None else _cancelled_list(listed, request_id, call.now_ms))
    return answers


def _replace(call: Call) -> object:
    """Cancel an order and place another in its stead; the placing is not tried where the cancelling fails."""
    params, spot = call.params, call.account.spot
    order_id, client_id = params.number("cancelOrderId"), params.text("cancelOrigClientOrderId")
    if order_id is None and not client_id:
        raise missing("cancelOrderId")
    order = spot.find(params.required("symbol"), order_id, client_id)
    spot.check(params, call.now_ms)
    request_id = spot.cancel(order, call.now_ms, params.client_id("cancelNewClientOrderId"))
    cancelled = order.cancelled(request_id, call.now_ms)
    placed = spot.place(params, call.now_ms)
    return {
        "cancelResult": "SUCCESS",
        "newOrderResult": "SUCCESS",
        "cancelResponse": cancelled,
        "newOrderResponse": placed.reply(params.text("newOrderRespType", "FULL"), call.now_ms),
    }


def _amend(call: Call) -> object:
    order = _find(call)
    old = order.client_id
    client_id = call.params.client_id("newClientOrderId")
    execution = call.account.spot.amend(order, call.params.positive("newQty"), call.now_ms, client_id)
    return order.amended(old, execution, call.now_ms)


def _open_orders(call: Call) -> object:
    return [order.row() for order in call.account.spot.open_orders(call.params.text("symbol"))]


def _all_orders(call: Call) -> object:
    symbol, first = call.params.required("symbol"), call.params.number("orderId")
    start, end = call.params.window()
    limit = call.params.limit(500, 1000)
    found = [
        order
        for order in call.account.spot.orders.values()
        if order.symbol == symbol
        and (first is None or order.order_id >= first)
        and (start is None or order.created_ms >= start)
        and (end is None or order.created_ms <= end)
    ]
    found.sort(key=lambda order: order.order_id)
    oldest = first is not None or start is not None
    return [order.row() for order in (found[:limit] if oldest else found[-limit:])]


def _my_trades(call: Call) -> object:
    params = call.params
    symbol, order_id, first = params.required("symbol"), params.number("orderId"), params.number("fromId")
    start, end = params.window()
    if (start is not None or end is not None) and (order_id is not None or first is not None):
        raise combination()
    limit = params.limit(500, 1000)
    found = [
        trade
        for trade in call.account.spot.trades
        if trade.symbol == symbol
        and (order_id is None or trade.order_id == order_id)
        and (first is None or trade.trade_id >= first)
        and (start is None or trade.time_ms >= start)
        and (end is None or trade.time_ms <= end)
    ]
    oldest = first is not None or start is not None or order_id is not None
    return [trade.row() for trade in (found[:limit] if oldest else found[-limit:])]


# order lists


def _place_oco(call: Call) -> object:
    return _placed_list(call, "OCO", oco_legs(call.params))


def _place_oto(call: Call) -> object:
    return _placed_list(call, "OTO", oto_legs(call.params))


def _placed_list(call: Call, contingency: str, legs: tuple[Params, Params]) -> object:
    listed = call.account.spot.place_list(call.params, contingency, legs, call.now_ms)
    reports = [order.reply("RESULT", call.now_ms) for order in listed.orders]
    return {**listed.row(), "orderReports": reports}


def _cancelled_list(listed: OrderList, request_id: str, now_ms: int) -> Json:
    return {**listed.row(), "orderReports": [order.cancelled(request_id, now_ms) for order in listed.orders]}


def _list(call: Call, *, client_name: str = "origClientOrderId") -> OrderList:
    list_id, client_id = call.params.number("orderListId"), call.params.text(client_name)
    if list_id is None and not client_id:
        raise missing("orderListId")
    for listed in call.account.spot.lists.values():
        if listed.list_id == list_id or (list_id is None and listed.client_id == client_id):
            return listed
    raise Refused(-2018, "Order list does not exist.") if list_id is not None else no_order()


def _order_list(call: Call) -> object:
    return _list(call).row()


def _cancel_list(call: Call) -> object:
    listed = _list(call, client_name="listClientOrderId")
    leg = next((order for order in listed.orders if order.open), None)
    if leg is None:
        raise unknown_order()
    request_id = call.account.spot.cancel(leg, call.now_ms, call.params.client_id("newClientOrderId"))
    return _cancelled_list(listed, request_id, call.now_ms)


def _open_lists(call: Call) -> object:
    return [listed.row() for listed in call.account.spot.lists.values() if listed.status == "EXECUTING"]


def _all_lists(call: Call) -> object:
    first, limit = call.params.number("fromId"), call.params.limit(500, 1000)
    start, end = call.params.window()
    found = [
        listed
        for listed in call.account.spot.lists.values()
        if (first is None or listed.list_id >= first)
        and (start is None or listed.changed_ms >= start)
        and (end is None or listed.changed_ms <= end)
    ]
    oldest = first is not None or start is not None
    return [listed.row() for listed in (found[:limit] if oldest else found[-limit:])]


# limits and commission


def _order_limits(call: Call) -> object:
    return call.account.counts[call.market].rows(call.now_ms)


def _commission(call: Call) -> object:
    symbol, fees = call.params.required("symbol"), call.account.spot.fees
    call.account.spot.terms(symbol)
    none = {"maker": text(ZERO), "taker": text(ZERO), "buyer": text(ZERO), "seller": text(ZERO)}
    return {
        "symbol": symbol,
        "standardCommission": {**none, "maker": text(fees.maker), "taker": text(fees.taker)},
        "specialCommission": none,
        "taxCommission": none,
        "discount": {
            "enabledForAccount": False,
            "enabledForSymbol": False,
            "discountAsset": "BNB",
            "discount": "0.75000000",
        },
    }


def _gone(_call: Call) -> object:
    raise Refused(
        -1000, "This endpoint has been removed; use the WebSocket API's userDataStream.subscribe.", 410
    )


def _open_orders_weight(params: Params) -> int:
    return 6 if params.text("symbol") else 80


def _trades_weight(params: Params) -> int:
    return 5 if params.text("orderId") else 20


def _test_weight(params: Params) -> int:
    return 20 if params.text("computeCommissionRates") == "true" else 1


ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("GET", "/api/v3/account"): Endpoint(_account, "USER_DATA", 20),
    ("GET", "/sapi/v1/account/apiRestrictions"): Endpoint(_restrictions, "USER_DATA", 1),
    ("GET", "/api/v3/order"): Endpoint(_order, "USER_DATA", 4),
    ("POST", "/api/v3/order"): Endpoint(_place, "TRADE", 1, orders=True),
    ("POST", "/api/v3/order/test"): Endpoint(_test, "TRADE", _test_weight),
    ("DELETE", "/api/v3/order"): Endpoint(_cancel, "TRADE", 1),
    ("POST", "/api/v3/order/cancelReplace"): Endpoint(_replace, "TRADE", 1, orders=True),
    ("PUT", "/api/v3/order/amend/keepPriority"): Endpoint(_amend, "TRADE", 4),
    ("GET", "/api/v3/openOrders"): Endpoint(_open_orders, "USER_DATA", _open_orders_weight),
    ("DELETE", "/api/v3/openOrders"): Endpoint(_cancel_all, "TRADE", 1),
    ("GET", "/api/v3/allOrders"): Endpoint(_all_orders, "USER_DATA", 20),
    ("GET", "/api/v3/myTrades"): Endpoint(_my_trades, "USER_DATA", _trades_weight),
    ("POST", "/api/v3/orderList/oco"): Endpoint(_place_oco, "TRADE", 1, orders=True),
    ("POST", "/api/v3/orderList/oto"): Endpoint(_place_oto, "TRADE", 1, orders=True),
    ("GET", "/api/v3/orderList"): Endpoint(_order_list, "USER_DATA", 4),
    ("DELETE", "/api/v3/orderList"): Endpoint(_cancel_list, "TRADE", 1),
    ("GET", "/api/v3/openOrderList"): Endpoint(_open_lists, "USER_DATA", 6),
    ("GET", "/api/v3/allOrderList"): Endpoint(_all_lists, "USER_DATA", 20),
    ("GET", "/api/v3/rateLimit/order"): Endpoint(_order_limits, "USER_DATA", 40),
    ("GET", "/api/v3/account/commission"): Endpoint(_commission, "USER_DATA", 20),
    ("POST", "/api/v3/userDataStream"): Endpoint(_gone, "KEY", 2),
    ("PUT", "/api/v3/userDataStream"): Endpoint(_gone, "KEY", 2),
    ("DELETE", "/api/v3/userDataStream"): Endpoint(_gone, "KEY", 2),
}

METHODS: dict[str, tuple[str, str]] = {
    "account.status": ("GET", "/api/v3/account"),
    "account.rateLimits.orders": ("GET", "/api/v3/rateLimit/order"),
    "account.commission": ("GET", "/api/v3/account/commission"),
    "order.status": ("GET", "/api/v3/order"),
    "order.place": ("POST", "/api/v3/order"),
    "order.test": ("POST", "/api/v3/order/test"),
    "order.cancel": ("DELETE", "/api/v3/order"),
    "order.cancelReplace": ("POST", "/api/v3/order/cancelReplace"),
    "order.amend.keepPriority": ("PUT", "/api/v3/order/amend/keepPriority"),
    "openOrders.status": ("GET", "/api/v3/openOrders"),
    "openOrders.cancelAll": ("DELETE", "/api/v3/openOrders"),
    "allOrders": ("GET", "/api/v3/allOrders"),
    "myTrades": ("GET", "/api/v3/myTrades"),
    "orderList.place.oco": ("POST", "/api/v3/orderList/oco"),
    "orderList.place.oto": ("POST", "/api/v3/orderList/oto"),
    "orderList.status": ("GET", "/api/v3/orderList"),
    "orderList.cancel": ("DELETE", "/api/v3/orderList"),
    "openOrderLists.status": ("GET", "/api/v3/openOrderList"),
    "allOrderLists": ("GET", "/api/v3/allOrderList"),
}
"""WebSocket API methods and the REST endpoints that answer the same."""
