"""The private endpoints of both futures markets, for REST and the WebSocket API alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.accounts import futures_views
from bridge.simulator.accounts.amounts import text
from bridge.simulator.accounts.calls import Call, Endpoint
from bridge.simulator.accounts.refusal import Refused, missing, unknown_order

if TYPE_CHECKING:
    from bridge.simulator.accounts.futures import FuturesAccount
    from bridge.simulator.accounts.futures_orders import AlgoOrder, Order, PositionSide
    from bridge.simulator.accounts.params import Params

_WEEK_MS = 7 * 86_400_000
_DONE = {"code": 200, "msg": "success"}


def _side(call: Call) -> FuturesAccount:
    return call.account.futures(call.market)


# account


def _account(call: Call) -> object:
    return futures_views.account(_side(call))


def _balances(call: Call) -> object:
    return futures_views.balances(_side(call))


def _risk(call: Call) -> object:
    wanted = call.params.text("symbol") or call.params.text("pair")
    return futures_views.position_risk(_side(call), wanted)


def _full_risk(call: Call) -> object:
    return futures_views.position_risk(_side(call), call.params.text("symbol"), full=True)


def _commission(call: Call) -> object:
    side, symbol = _side(call), call.params.required("symbol")
    side.terms(symbol)
    maker, taker = text(side.fees.maker, 6), text(side.fees.taker, 6)
    return {"symbol": symbol, "makerCommissionRate": maker, "takerCommissionRate": taker}


# orders


def _find(call: Call) -> Order:
    order_id, client_id = call.params.number("orderId"), call.params.text("origClientOrderId")
    if order_id is None and not client_id:
        raise Refused(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    return _side(call).find(call.params.required("symbol"), order_id, client_id)


def _order(call: Call) -> object:
    return _find(call).row()


def _place(call: Call) -> object:
    return _side(call).place(call.params, call.now_ms).row(placed=True)


def _test(call: Call) -> object:
    _side(call).terms(call.params.required("symbol"))
    return {}


def _cancel(call: Call) -> object:
    try:
        order = _find(call)
    except Refused as refused:
        raise unknown_order() if refused.code == -2013 else refused from None
    _side(call).cancel(order, call.now_ms)
    return order.row(placed=True)


def _cancel_all(call: Call) -> object:
    for order in _side(call).open_orders(call.params.required("symbol")):
        if order.open:
            _side(call).cancel(order, call.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


def _modify(call: Call) -> object:
    order = _find(call)
    quantity, price = call.params.positive("quantity"), call.params.positive("price")
    _side(call).amend(order, quantity, price, call.now_ms)
    return order.row(placed=True)


def _open_orders(call: Call) -> object:
    return [order.row() for order in _side(call).open_orders(call.params.text("symbol"))]


def _all_orders(call: Call) -> object:
    symbol, first = call.params.text("symbol"), call.params.number("orderId")
    if call.market == "coinm" and not symbol and not call.params.text("pair"):
        raise missing("symbol")
    start, end = call.params.window(_WEEK_MS)
    found = [
        order
        for order in _side(call).orders.values()
        if symbol in ("", order.symbol)
        and (first is None or order.order_id >= first)
        and (start is None or order.created_ms >= start)
        and (end is None or order.created_ms <= end)
    ]
    limit = call.params.limit(500, 1000)
    found.sort(key=lambda order: order.order_id)
    oldest = first is not None or start is not None
    return [order.row() for order in (found[:limit] if oldest else found[-limit:])]


def _trades(call: Call) -> object:
    params = call.params
    symbol, pair, first = params.text("symbol"), params.text("pair"), params.number("fromId")
    if not symbol and not (pair and call.market == "coinm"):
        raise missing("symbol")
    start, end = params.window(_WEEK_MS)
    if first is not None and (start is not None or end is not None):
        raise Refused(-1128, "Combination of optional parameters invalid.")
    order_id = params.number("orderId")
    found = [
        trade
        for trade in _side(call).trades
        if symbol in ("", trade.terms.symbol)
        and pair in ("", trade.terms.pair)
        and (order_id is None or trade.order_id == order_id)
        and (first is None or trade.trade_id >= first)
        and (start is None or trade.time_ms >= start)
        and (end is None or trade.time_ms <= end)
    ]
    limit = params.limit(500 if call.market == "usdm" else 50, 1000)
    oldest = first is not None or start is not None
    return [trade.row() for trade in (found[:limit] if oldest else found[-limit:])]


def _income(call: Call) -> object:
    params = call.params
    symbol, kind = params.text("symbol"), params.text("incomeType")
    start, end = params.number("startTime"), params.number("endTime")
    if start is None and end is None:
        start = call.now_ms - _WEEK_MS
    found = [
        entry
        for entry in _side(call).income
        if symbol in ("", entry.symbol)
        and kind in ("", entry.kind)
        and (start is None or entry.time_ms >= start)
        and (end is None or entry.time_ms <= end)
    ]
    limit, page = params.limit(100, 1000), params.number("page") or 1
    return [entry.row() for entry in found[(page - 1) * limit : page * limit]]


# conditional orders


def _find_algo(call: Call) -> AlgoOrder:
    algo_id, client_id = call.params.number("algoId"), call.params.text("clientAlgoId")
    if algo_id is None and not client_id:
        raise missing("algoId")
    return _side(call).find_algo(algo_id, client_id)


def _algo(call: Call) -> object:
    return _find_algo(call).row()


def _place_algo(call: Call) -> object:
    if call.params.required("algoType") != "CONDITIONAL":
        raise Refused(-4500, "Invalid algo type.")
    return _side(call).place_algo(call.params, call.now_ms).row()


def _cancel_algo(call: Call) -> object:
    algo = _find_algo(call)
    _side(call).cancel_algo(algo, call.now_ms)
    return {"algoId": algo.algo_id, "clientAlgoId": algo.client_id, "code": "200", "msg": "success"}


def _open_algos(call: Call) -> object:
    return [algo.row() for algo in _side(call).open_algos(call.params.text("symbol"))]


def _all_algos(call: Call) -> object:
    symbol = call.params.required("symbol")
    start, end = call.params.window(_WEEK_MS)
    found = [
        algo
        for algo in _side(call).algos.values()
        if algo.draft.symbol == symbol
        and (start is None or algo.created_ms >= start)
        and (end is None or algo.created_ms <= end)
    ]
    return [algo.row() for algo in found[-call.params.limit(500, 1000) :]]


# settings


def _set_leverage(call: Call) -> object:
    symbol, leverage = call.params.required("symbol"), call.params.number("leverage")
    if leverage is None:
        raise missing("leverage")
    _side(call).set_leverage(symbol, leverage, call.now_ms)
    return {"leverage": leverage, "maxNotionalValue": "1000000", "symbol": symbol}


def _set_margin_type(call: Call) -> object:
    kind = call.params.required("marginType")
    if kind not in ("ISOLATED", "CROSSED"):
        raise Refused(-1130, "Data sent for parameter 'marginType' is not valid.")
    _side(call).set_margin_type(call.params.required("symbol"), kind == "ISOLATED", call.now_ms)
    return _DONE


def _move_margin(call: Call) -> object:
    sides: dict[str, PositionSide] = {"BOTH": "BOTH", "LONG": "LONG", "SHORT": "SHORT"}
    amount, kind = call.params.positive("amount"), call.params.number("type")
    signed = amount if kind == 1 else -amount
    side = sides.get(call.params.text("positionSide", "BOTH"), "BOTH")
    _side(call).move_margin(call.params.required("symbol"), side, signed, call.now_ms)
    return {"amount": float(amount), "code": 200, "msg": "Successfully modify position margin.", "type": kind}


def _hedged(call: Call) -> object:
    return {"dualSidePosition": _side(call).hedged}


def _set_hedged(call: Call) -> object:
    _side(call).set_hedged(call.params.flag("dualSidePosition"))
    return _DONE


def _multi_assets(call: Call) -> object:
    return {"multiAssetsMargin": _side(call).multi_assets}


def _set_multi_assets(call: Call) -> object:
    _side(call).set_multi_assets(call.params.flag("multiAssetsMargin"), call.now_ms)
    return _DONE


# listen keys


def _create_listen_key(call: Call) -> object:
    return {"listenKey": call.listen_keys.create(call.account.name, call.market, call.now_ms)}


def _keep_listen_key(call: Call) -> object:
    return {"listenKey": call.listen_keys.keep_alive(call.account.name, call.market, call.now_ms)}


def _close_listen_key(call: Call) -> object:
    call.listen_keys.close(call.account.name, call.market)
    return {}


def _open_weight(params: Params) -> int:
    return 1 if params.text("symbol") else 40


_BOTH: dict[tuple[str, str], Endpoint] = {
    ("GET", "/v1/order"): Endpoint(_order, "USER_DATA", 1),
    ("POST", "/v1/order"): Endpoint(_place, "TRADE", 1, orders=True),
    ("POST", "/v1/order/test"): Endpoint(_test, "TRADE", 1),
    ("PUT", "/v1/order"): Endpoint(_modify, "TRADE", 1, orders=True),
    ("DELETE", "/v1/order"): Endpoint(_cancel, "TRADE", 1),
    ("DELETE", "/v1/allOpenOrders"): Endpoint(_cancel_all, "TRADE", 1),
    ("GET", "/v1/openOrders"): Endpoint(_open_orders, "USER_DATA", _open_weight),
    ("GET", "/v1/allOrders"): Endpoint(_all_orders, "USER_DATA", 5),
    ("GET", "/v1/userTrades"): Endpoint(_trades, "USER_DATA", 5),
    ("GET", "/v1/algoOrder"): Endpoint(_algo, "USER_DATA", 1),
    ("POST", "/v1/algoOrder"): Endpoint(_place_algo, "TRADE", 1, orders=True),
    ("DELETE", "/v1/algoOrder"): Endpoint(_cancel_algo, "TRADE", 1),
    ("GET", "/v1/openAlgoOrders"): Endpoint(_open_algos, "USER_DATA", _open_weight),
    ("GET", "/v1/allAlgoOrders"): Endpoint(_all_algos, "USER_DATA", 5),
    ("POST", "/v1/leverage"): Endpoint(_set_leverage, "TRADE", 1),
    ("POST", "/v1/marginType"): Endpoint(_set_margin_type, "TRADE", 1),
    ("POST", "/v1/positionMargin"): Endpoint(_move_margin, "TRADE", 1),
    ("GET", "/v1/positionSide/dual"): Endpoint(_hedged, "USER_DATA", 30),
    ("POST", "/v1/positionSide/dual"): Endpoint(_set_hedged, "TRADE", 1),
    ("GET", "/v1/commissionRate"): Endpoint(_commission, "USER_DATA", 20),
    ("POST", "/v1/listenKey"): Endpoint(_create_listen_key, "KEY", 1),
    ("PUT", "/v1/listenKey"): Endpoint(_keep_listen_key, "KEY", 1),
    ("DELETE", "/v1/listenKey"): Endpoint(_close_listen_key, "KEY", 1),
}

USDM: dict[tuple[str, str], Endpoint] = {
    (method, f"/fapi{path}"): endpoint for (method, path), endpoint in _BOTH.items()
} | {
    ("GET", "/fapi/v3/account"): Endpoint(_account, "USER_DATA", 5),
    ("GET", "/fapi/v2/account"): Endpoint(_account, "USER_DATA", 5),
    ("GET", "/fapi/v3/balance"): Endpoint(_balances, "USER_DATA", 5),
    ("GET", "/fapi/v2/balance"): Endpoint(_balances, "USER_DATA", 5),
    ("GET", "/fapi/v3/positionRisk"): Endpoint(_risk, "USER_DATA", 5),
    ("GET", "/fapi/v2/positionRisk"): Endpoint(_full_risk, "USER_DATA", 5),
    ("GET", "/fapi/v1/income"): Endpoint(_income, "USER_DATA", 30),
    ("GET", "/fapi/v1/multiAssetsMargin"): Endpoint(_multi_assets, "USER_DATA", 30),
    ("POST", "/fapi/v1/multiAssetsMargin"): Endpoint(_set_multi_assets, "TRADE", 1),
}
COINM: dict[tuple[str, str], Endpoint] = {
    (method, f"/dapi{path}"): endpoint for (method, path), endpoint in _BOTH.items()
} | {
    ("GET", "/dapi/v1/account"): Endpoint(_account, "USER_DATA", 5),
    ("GET", "/dapi/v1/balance"): Endpoint(_balances, "USER_DATA", 1),
    ("GET", "/dapi/v1/positionRisk"): Endpoint(_risk, "USER_DATA", 1),
    ("GET", "/dapi/v1/income"): Endpoint(_income, "USER_DATA", 20),
}


def _methods(prefix: str) -> dict[str, tuple[str, str]]:
    return {
        "order.status": ("GET", f"{prefix}/v1/order"),
        "order.place": ("POST", f"{prefix}/v1/order"),
        "order.modify": ("PUT", f"{prefix}/v1/order"),
        "order.cancel": ("DELETE", f"{prefix}/v1/order"),
        "algoOrder.place": ("POST", f"{prefix}/v1/algoOrder"),
        "algoOrder.cancel": ("DELETE", f"{prefix}/v1/algoOrder"),
        "userDataStream.start": ("POST", f"{prefix}/v1/listenKey"),
        "userDataStream.ping": ("PUT", f"{prefix}/v1/listenKey"),
        "userDataStream.stop": ("DELETE", f"{prefix}/v1/listenKey"),
    }


USDM_METHODS = _methods("/fapi") | {
    "account.status": ("GET", "/fapi/v2/account"),
    "v2/account.status": ("GET", "/fapi/v3/account"),
    "account.balance": ("GET", "/fapi/v2/balance"),
    "v2/account.balance": ("GET", "/fapi/v3/balance"),
    "account.position": ("GET", "/fapi/v2/positionRisk"),
    "v2/account.position": ("GET", "/fapi/v3/positionRisk"),
}
COINM_METHODS = _methods("/dapi") | {
    "account.status": ("GET", "/dapi/v1/account"),
    "account.balance": ("GET", "/dapi/v1/balance"),
    "account.position": ("GET", "/dapi/v1/positionRisk"),
}
