"""Spot orders, order lists and trades as records, and the shapes they are shown in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from bridge.simulator.accounts.amounts import ZERO, text

if TYPE_CHECKING:
    from decimal import Decimal

Json = dict[str, object]

Side = Literal["BUY", "SELL"]
OPEN = frozenset({"NEW", "PARTIALLY_FILLED", "PENDING_NEW"})
STOPS = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})
LIMITS = frozenset({"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"})


@dataclass(slots=True)
class Reserve:
    """What is locked for an order, or for the legs of an OCO together."""

    asset: str
    amount: Decimal


class Trade(NamedTuple):
    """A fill of an order."""

    symbol: str
    trade_id: int
    order_id: int
    list_id: int
    side: Side
    price: Decimal
    quantity: Decimal
    quote: Decimal
    commission: Decimal
    commission_asset: str
    time_ms: int
    maker: bool

    def row(self) -> Json:
        """Return the row of ``myTrades``."""
        return {
            "symbol": self.symbol,
            "id": self.trade_id,
            "orderId": self.order_id,
            "orderListId": self.list_id,
            "price": text(self.price),
            "qty": text(self.quantity),
            "quoteQty": text(self.quote),
            "commission": text(self.commission),
            "commissionAsset": self.commission_asset,
            "time": self.time_ms,
            "isBuyer": self.side == "BUY",
            "isMaker": self.maker,
            "isBestMatch": True,
        }


@dataclass(slots=True, kw_only=True)
class Order:
    """An order with all that is known of it.

    Attributes:
        working: it is on the book (a stop is not before it triggers, a pending leg not before its turn).
        working_ms: since when; None before.
        reserve: what is locked for it; shared by the legs of an OCO.
        extreme: best price seen since a trailing stop began, None for others.
        fills: its trades.
    """

    symbol: str
    order_id: int
    client_id: str
    side: Side
    type: str
    time_in_force: str
    quantity: Decimal
    price: Decimal
    stop_price: Decimal = ZERO
    iceberg: Decimal = ZERO
    quote_quantity: Decimal = ZERO
    prevention: str = "NONE"
    strategy_id: int | None = None
    strategy_type: int | None = None
    trailing_delta: int | None = None
    trailing_ms: int | None = None
    created_ms: int
    updated_ms: int
    working: bool = False
    working_ms: int | None = None
    status: str = "NEW"
    list_id: int = -1
    executed: Decimal = ZERO
    spent: Decimal = ZERO
    prevented: Decimal = ZERO
    expiry_reason: str | None = None
    reserve: Reserve | None = None
    extreme: Decimal | None = None
    fills: list[Trade] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether it may still fill."""
        return self.status in OPEN

    @property
    def remaining(self) -> Decimal:
        """What is left to fill."""
        return self.quantity - self.executed - self.prevented

    def _conditional(self) -> Json:
        shown: Json = {}
        if self.prevented:
            shown["preventedQuantity"] = text(self.prevented)
        if self.strategy_id is not None:
            shown["strategyId"] = self.strategy_id
        if self.strategy_type is not None:
            shown["strategyType"] = self.strategy_type
        if self.trailing_delta is not None:
            shown["trailingDelta"] = self.trailing_delta
            shown["trailingTime"] = -1 if self.trailing_ms is None else self.trailing_ms
        return shown

    def row(self) -> Json:
        """Return the row of ``order``, ``openOrders`` and ``allOrders``."""
        row: Json = {
            "symbol": self.symbol,
            "orderId": self.order_id,
            "orderListId": self.list_id,
            "clientOrderId": self.client_id,
            "price": text(self.price),
            "origQty": text(self.quantity),
            "executedQty": text(self.executed),
            "cummulativeQuoteQty": text(self.spent),
            "status": self.status,
            "timeInForce": self.time_in_force,
            "type": self.type,
            "side": self.side,
            "stopPrice": text(self.stop_price),
            "icebergQty": text(self.iceberg),
            "time": self.created_ms,
            "updateTime": self.updated_ms,
            "isWorking": self.working,
            "workingTime": -1 if self.working_ms is None else self.working_ms,
            "origQuoteOrderQty": text(self.quote_quantity),
            "selfTradePreventionMode": self.prevention,
            **self._conditional(),
        }
        if self.expiry_reason is not None:
            row["expiryReason"] = self.expiry_reason
        return row

    def reply(self, kind: str, now_ms: int) -> Json:
        """Return the answer to placing it: ``ACK``, ``RESULT`` or ``FULL``."""
        ack: Json = {
            "symbol": self.symbol,
            "orderId": self.order_id,
            "orderListId": self.list_id,
            "clientOrderId": self.client_id,
            "transactTime": now_ms,
        }
        if kind == "ACK":
            return ack
        working: Json = {} if self.working_ms is None else {"workingTime": self.working_ms}
        fills: Json = {} if kind != "FULL" else {"fills": [_fill_row(fill) for fill in self.fills]}
        result = self._result()
        prevention = result.pop("selfTradePreventionMode")
        return {**ack, **result, **working, **fills, "selfTradePreventionMode": prevention}

    def cancelled(self, client_id: str, now_ms: int) -> Json:
        """Return the answer to cancelling it by a request with ``client_id``."""
        return {
            "symbol": self.symbol,
            "origClientOrderId": self.client_id,
            "orderId": self.order_id,
            "orderListId": self.list_id,
            "clientOrderId": client_id,
            "transactTime": now_ms,
            **self._result(),
        }

    def amended(self, old_client_id: str, execution_id: int, now_ms: int) -> Json:
        """Return the answer to reducing it; this one spells and names things otherwise."""
        working: Json = {} if self.working_ms is None else {"workingTime": self.working_ms}
        order: Json = {
            "symbol": self.symbol,
            "orderId": self.order_id,
            "orderListId": self.list_id,
            "origClientOrderId": old_client_id,
            "clientOrderId": self.client_id,
            "price": text(self.price),
            "qty": text(self.quantity),
            "executedQty": text(self.executed),
            "preventedQty": text(self.prevented),
            "quoteOrderQty": text(self.quote_quantity),
            "cumulativeQuoteQty": text(self.spent),
            "status": self.status,
            "timeInForce": self.time_in_force,
            "type": self.type,
            "side": self.side,
            **working,
            "selfTradePreventionMode": self.prevention,
        }
        return {"transactTime": now_ms, "executionId": execution_id, "amendedOrder": order}

    def _result(self) -> Json:
        stop: Json = {"stopPrice": text(self.stop_price)} if self.stop_price else {}
        return {
            "price": text(self.price),
            "origQty": text(self.quantity),
            "executedQty": text(self.executed),
            "origQuoteOrderQty": text(self.quote_quantity),
            "cummulativeQuoteQty": text(self.spent),
            "status": self.status,
            "timeInForce": self.time_in_force,
            "type": self.type,
            "side": self.side,
            **stop,
            **self._conditional(),
            "selfTradePreventionMode": self.prevention,
        }


@dataclass(slots=True)
class OrderList:
    """Orders that depend on one another.

    Attributes:
        contingency: ``OCO`` or ``OTO``.
        status_type: ``EXEC_STARTED``, ``UPDATED`` or ``ALL_DONE``.
        status: ``EXECUTING`` or ``ALL_DONE``.
    """

    symbol: str
    list_id: int
    client_id: str
    contingency: str
    orders: list[Order]
    changed_ms: int
    status_type: str = "EXEC_STARTED"
    status: str = "EXECUTING"

    def row(self) -> Json:
        """Return the row of ``orderList`` and its kin."""
        return {
            "orderListId": self.list_id,
            "contingencyType": self.contingency,
            "listStatusType": self.status_type,
            "listOrderStatus": self.status,
            "listClientOrderId": self.client_id,
            "transactionTime": self.changed_ms,
            "symbol": self.symbol,
            "orders": [
                {"symbol": one.symbol, "orderId": one.order_id, "clientOrderId": one.client_id}
                for one in self.orders
            ],
        }

    def event(self, now_ms: int) -> Json:
        """Return the ``listStatus`` event."""
        return {
            "e": "listStatus",
            "E": now_ms,
            "s": self.symbol,
            "g": self.list_id,
            "c": self.contingency,
            "l": self.status_type,
            "L": self.status,
            "r": "NONE",
            "C": self.client_id,
            "T": now_ms,
            "O": [{"s": one.symbol, "i": one.order_id, "c": one.client_id} for one in self.orders],
        }


def execution_report(
    order: Order,
    execution: str,
    execution_id: int,
    now_ms: int,
    *,
    trade: Trade | None = None,
    request_id: str | None = None,
    reject: str = "NONE",
    further: Json | None = None,
) -> Json:
    """Return the ``executionReport`` event.

    Args:
        order: the order after what happened.
        execution: the execution type ``x``.
        execution_id: ``I``.
        now_ms: transaction time.
        trade: the fill, where it is one.
        request_id: client id of the cancel request, where it is a cancellation.
        reject: the reject reason ``r``.
        further: more fields, such as those of a prevented match.
    """
    on_book = order.open and order.working and (trade is None or trade.maker)
    report: Json = {
        "e": "executionReport",
        "E": now_ms,
        "s": order.symbol,
        "c": order.client_id if request_id is None else request_id,
        "S": order.side,
        "o": order.type,
        "f": order.time_in_force,
        "q": text(order.quantity),
        "p": text(order.price),
        "P": text(order.stop_price),
        "F": text(order.iceberg),
        "g": order.list_id,
        "C": "" if request_id is None else order.client_id,
        "x": execution,
        "X": order.status,
        "r": reject,
        "i": order.order_id,
        "l": text(ZERO if trade is None else trade.quantity),
        "z": text(order.executed),
        "L": text(ZERO if trade is None else trade.price),
        "n": "0" if trade is None else text(trade.commission),
        "N": None if trade is None else trade.commission_asset,
        "T": now_ms,
        "t": -1 if trade is None else trade.trade_id,
        "I": execution_id,
        "w": on_book,
        "m": trade is not None and trade.maker,
        "M": trade is not None,
        "O": order.created_ms,
        "Z": text(order.spent),
        "Y": text(ZERO if trade is None else trade.quote),
        "Q": text(order.quote_quantity),
    }
    if order.working_ms is not None:
        report["W"] = order.working_ms
    report["V"] = order.prevention
    if order.trailing_delta is not None:
        report["d"] = order.trailing_delta
        if order.trailing_ms is not None:
            report["D"] = order.trailing_ms
    if order.strategy_id is not None:
        report["j"] = order.strategy_id
    if order.strategy_type is not None:
        report["J"] = order.strategy_type
    if execution == "EXPIRED" and order.expiry_reason is not None:
        report["eR"] = order.expiry_reason
    return {**report, **(further or {})}


def _fill_row(fill: Trade) -> Json:
    return {
        "price": text(fill.price),
        "qty": text(fill.quantity),
        "commission": text(fill.commission),
        "commissionAsset": fill.commission_asset,
        "tradeId": fill.trade_id,
    }
