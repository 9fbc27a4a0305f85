"""Futures orders, conditional (algo) orders, positions and trades as records, and the shapes they are shown in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from bridge.simulator.accounts.amounts import ZERO, nearest, plain, text

if TYPE_CHECKING:
    from decimal import Decimal

    from bridge.simulator.accounts.venue import Terms

Json = dict[str, object]
Side = Literal["BUY", "SELL"]
PositionSide = Literal["BOTH", "LONG", "SHORT"]

OPEN = frozenset({"NEW", "PARTIALLY_FILLED"})
STOPS = frozenset({"STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"})
LIMITS = frozenset({"LIMIT", "STOP", "TAKE_PROFIT"})
_AVERAGE_DIGITS = 5


def value_of(terms: Terms, quantity: Decimal, price: Decimal) -> Decimal:
    """Return what a fill is worth in the margin asset: quote (usdm), or base (coinm), to eight decimals."""
    if terms.market == "coinm":
        return nearest(quantity * terms.contract_size / price) if price else ZERO
    return nearest(quantity * price)


class Trade(NamedTuple):
    """A fill of an order; ``value`` in the margin asset."""

    terms: Terms
    trade_id: int
    order_id: int
    side: Side
    position_side: PositionSide
    price: Decimal
    quantity: Decimal
    value: Decimal
    realised: Decimal
    commission: Decimal
    commission_asset: str
    time_ms: int
    maker: bool

    def row(self) -> Json:
        """Return the row of ``userTrades``."""
        terms = self.terms
        head: Json = {
            "symbol": terms.symbol,
            "id": self.trade_id,
            "orderId": self.order_id,
            "side": self.side,
            "price": terms.price(self.price),
            "qty": terms.quantity(self.quantity),
            "realizedPnl": text(self.realised),
        }
        tail: Json = {
            "commission": text(self.commission),
            "commissionAsset": self.commission_asset,
            "time": self.time_ms,
            "positionSide": self.position_side,
            "buyer": self.side == "BUY",
            "maker": self.maker,
        }
        if terms.market == "coinm":
            return {
                **head,
                "pair": terms.pair,
                "marginAsset": terms.margin,
                "baseQty": text(self.value),
                **tail,
            }
        return {**head, "quoteQty": plain(self.value), **tail}


@dataclass(slots=True, kw_only=True)
class Order:
    """A plain order.

    Attributes:
        original_type: what it was before it triggered (``ot``).
        working: it is on the book; a stop of coinm is not before it triggers.
        spent: what its fills were worth, in the margin asset.
        weighted: sum of price times quantity of its fills, for the average price.
    """

    terms: Terms
    order_id: int
    client_id: str
    side: Side
    position_side: PositionSide
    type: str
    original_type: str
    time_in_force: str
    quantity: Decimal
    price: Decimal
    stop_price: Decimal = ZERO
    reduce_only: bool = False
    close_position: bool = False
    working_type: str = "CONTRACT_PRICE"
    price_protect: bool = False
    price_match: str = "NONE"
    prevention: str = "EXPIRE_MAKER"
    good_till_ms: int = 0
    activation: Decimal | None = None
    callback_rate: Decimal | None = None
    extreme: Decimal | None = None
    created_ms: int
    updated_ms: int
    working: bool = True
    status: str = "NEW"
    executed: Decimal = ZERO
    spent: Decimal = ZERO
    weighted: Decimal = ZERO
    expiry_reason: str = "0"

    @property
    def symbol(self) -> str:
        """Its contract."""
        return self.terms.symbol

    @property
    def open(self) -> bool:
        """Whether it may still fill."""
        return self.status in OPEN

    @property
    def remaining(self) -> Decimal:
        """What is left to fill."""
        return self.quantity - self.executed

    @property
    def average(self) -> Decimal:
        """Average price of its fills, 0 before the first."""
        return self.weighted / self.executed if self.executed else ZERO

    def row(self, *, placed: bool = False) -> Json:
        """Return the row of ``order``, ``openOrders`` and ``allOrders``, or with ``placed`` the answer to placing it.

        Answers to placing and cancelling have no average price and no sum of what was paid (since June 2026).
        """
        terms, coinm = self.terms, self.terms.market == "coinm"
        row: Json = {"orderId": self.order_id, "symbol": terms.symbol}
        if coinm:
            row["pair"] = terms.pair
        row |= {"status": self.status, "clientOrderId": self.client_id, "price": self._price(self.price)}
        if not placed:
            row["avgPrice"] = text(self.average, _AVERAGE_DIGITS)
        row |= {"origQty": terms.quantity(self.quantity), "executedQty": terms.quantity(self.executed)}
        if placed:
            row["cumQty"] = terms.quantity(self.executed)
        else:
            row["cumBase" if coinm else "cumQuote"] = text(self.spent) if coinm else plain(self.spent)
        row |= {
            "timeInForce": self.time_in_force,
            "type": self.type,
            "reduceOnly": self.reduce_only,
            "closePosition": self.close_position,
            "side": self.side,
            "positionSide": self.position_side,
            "stopPrice": self._price(self.stop_price),
            "workingType": self.working_type,
            "priceProtect": self.price_protect,
            "origType": self.original_type,
            "priceMatch": self.price_match,
            "selfTradePreventionMode": self.prevention,
        }
        if not coinm:
            row["goodTillDate"] = self.good_till_ms
        if self.callback_rate is not None:
            row |= {
                "activatePrice": self._price(self.activation or ZERO),
                "priceRate": plain(self.callback_rate),
            }
        if not placed:
            row["time"] = self.created_ms
        row["updateTime"] = self.updated_ms
        return row

    def event(
        self,
        execution: str,
        now_ms: int,
        notionals: tuple[Decimal, Decimal],
        alias: str,
        trade: Trade | None = None,
    ) -> Json:
        """Return the ``ORDER_TRADE_UPDATE`` event.

        Args:
            execution: the execution type ``x``.
            now_ms: transaction time.
            notionals: of the account's open bids and asks of the symbol.
            alias: of the account; only coinm shows it.
            trade: the fill, where it is one.
        """
        terms, coinm = self.terms, self.terms.market == "coinm"
        inner: Json = {
            "s": terms.symbol,
            "c": self.client_id,
            "S": self.side,
            "o": self.type,
            "f": self.time_in_force,
            "q": terms.quantity(self.quantity),
            "p": self._price(self.price),
            "ap": plain(self.average, _AVERAGE_DIGITS),
            "sp": self._price(self.stop_price),
            "x": execution,
            "X": self.status,
            "i": self.order_id,
            "l": "0" if trade is None else terms.quantity(trade.quantity),
            "z": terms.quantity(self.executed) if self.executed else "0",
            "L": "0" if trade is None else terms.price(trade.price),
        }
        if coinm:
            inner["ma"] = terms.margin
        if trade is not None and trade.commission:
            inner |= {"N": trade.commission_asset, "n": plain(trade.commission)}
        inner |= {
            "T": now_ms,
            "t": 0 if trade is None else trade.trade_id,
            "b": plain(notionals[0]),
            "a": plain(notionals[1]),
            "m": trade is not None and trade.maker,
            "R": self.reduce_only,
            "wt": self.working_type,
            "ot": self.original_type,
            "ps": self.position_side,
            "cp": self.close_position,
        }
        if self.callback_rate is not None:
            inner |= {"AP": self._price(self.activation or ZERO), "cr": plain(self.callback_rate)}
        inner |= {
            "rp": text(trade.realised) if trade is not None and trade.realised else "0",
            "pP": self.price_protect,
        }
        if not coinm:
            inner |= {"si": 0, "ss": 0}
        inner |= {"V": self.prevention, "pm": self.price_match}
        if not coinm:
            inner["gtd"] = self.good_till_ms
        inner["er"] = self.expiry_reason
        account: Json = {"i": alias} if coinm else {}
        return {"e": "ORDER_TRADE_UPDATE", "E": now_ms, "T": now_ms, **account, "o": inner}

    def light(self, now_ms: int, trade: Trade) -> Json:
        """Return the ``TRADE_LITE`` event."""
        return {
            "e": "TRADE_LITE",
            "E": now_ms,
            "T": now_ms,
            "s": self.symbol,
            "q": self.terms.quantity(self.quantity),
            "p": self._price(self.price),
            "m": trade.maker,
            "c": self.client_id,
            "S": self.side,
            "L": self.terms.price(trade.price),
            "l": self.terms.quantity(trade.quantity),
            "t": trade.trade_id,
            "i": self.order_id,
        }

    def _price(self, price: Decimal) -> str:
        return self.terms.price(price) if price else "0"


@dataclass(slots=True, kw_only=True)
class AlgoOrder:
    """A conditional order: it lives in the algo service until it triggers and becomes a plain one.

    Attributes:
        draft: the plain order it becomes, without an id.
        order: that order, once there is one.
    """

    algo_id: int
    client_id: str
    draft: Order
    created_ms: int
    updated_ms: int
    status: str = "NEW"
    order: Order | None = None
    triggered_ms: int = 0
    activated: bool = False
    failure: str = ""

    @property
    def open(self) -> bool:
        """Whether it may still trigger."""
        return self.status == "NEW"

    def row(self) -> Json:
        """Return the row of ``openAlgoOrders`` and ``algoOrder``."""
        draft, order = self.draft, self.order
        trailing = draft.callback_rate is not None
        return {
            "algoId": self.algo_id,
            "clientAlgoId": self.client_id,
            "algoType": "CONDITIONAL",
            "orderType": draft.original_type,
            "symbol": draft.symbol,
            "side": draft.side,
            "positionSide": draft.position_side,
            "timeInForce": draft.time_in_force,
            "quantity": draft.terms.quantity(draft.quantity),
            "algoStatus": self.status,
            "actualOrderId": "" if order is None else str(order.order_id),
            "actualPrice": text(ZERO if order is None else order.average, _AVERAGE_DIGITS),
            "triggerPrice": draft.terms.price(draft.stop_price),
            "price": draft.terms.price(draft.price),
            "icebergQuantity": None,
            "selfTradePreventionMode": draft.prevention,
            "workingType": draft.working_type,
            "priceMatch": draft.price_match,
            "closePosition": draft.close_position,
            "priceProtect": draft.price_protect,
            "reduceOnly": draft.reduce_only,
            "activatePrice": draft.terms.price(draft.activation or ZERO) if trailing else "",
            "callbackRate": plain(draft.callback_rate) if draft.callback_rate is not None else "",
            "createTime": self.created_ms,
            "updateTime": self.updated_ms,
            "triggerTime": self.triggered_ms,
            "goodTillDate": draft.good_till_ms,
        }

    def event(self, now_ms: int, alias: str) -> Json:
        """Return the ``ALGO_UPDATE`` event."""
        draft, order = self.draft, self.order
        inner: Json = {
            "caid": self.client_id,
            "aid": self.algo_id,
            "at": "CONDITIONAL",
            "o": draft.original_type,
            "s": draft.symbol,
            "S": draft.side,
            "ps": draft.position_side,
            "f": draft.time_in_force,
            "q": plain(draft.quantity),
            "X": self.status,
            "ai": "" if order is None else str(order.order_id),
        }
        if order is not None:
            average = plain(order.average, _AVERAGE_DIGITS)
            inner |= {"ap": average, "aq": plain(order.executed), "act": order.type}
        inner |= {
            "tp": draft.terms.price(draft.stop_price),
            "p": draft.terms.price(draft.price) if draft.price else "0",
            "V": draft.prevention,
            "wt": draft.working_type,
            "pm": draft.price_match,
            "cp": draft.close_position,
            "pP": draft.price_protect,
            "R": draft.reduce_only,
            "tt": self.triggered_ms,
            "gtd": draft.good_till_ms,
        }
        if self.failure:
            inner["rm"] = self.failure
        inner["ia"] = self.activated
        account: Json = {"i": alias} if draft.terms.market == "coinm" else {}
        return {"e": "ALGO_UPDATE", "T": now_ms, "E": now_ms, **account, "o": inner}


@dataclass(slots=True, kw_only=True)
class Position:
    """A position: signed amount, and what it cost, so that gains add up exactly.

    Attributes:
        amount: signed, in base (usdm) or contracts (coinm).
        cost: what opening it was worth in the margin asset, not signed.
        realised: gains taken so far, before commission.
        paid: commission paid since it was flat.
        isolated: whether it has margin of its own.
        wallet: that margin.
    """

    terms: Terms
    side: PositionSide
    amount: Decimal = ZERO
    cost: Decimal = ZERO
    realised: Decimal = ZERO
    paid: Decimal = ZERO
    isolated: bool = False
    wallet: Decimal = ZERO
    updated_ms: int = 0

    @property
    def entry(self) -> Decimal:
        """Average entry price, 0 where flat."""
        return self._at(self.cost)

    @property
    def break_even(self) -> Decimal:
        """The price at which closing pays for the commission so far, 0 where flat."""
        longs = self.amount > 0
        raise_cost = longs != (self.terms.market == "coinm")
        return self._at(self.cost + self.paid if raise_cost else self.cost - self.paid)

    def _at(self, cost: Decimal) -> Decimal:
        if not self.amount or cost <= 0:
            return ZERO
        if self.terms.market == "coinm":
            return abs(self.amount) * self.terms.contract_size / cost
        return cost / abs(self.amount)

    def gain(self, quantity: Decimal, value: Decimal) -> tuple[Decimal, Decimal]:
        """Return what closing ``quantity`` for ``value`` gains, and the part of the cost it releases."""
        size = abs(self.amount)
        released = self.cost if quantity == size else nearest(self.cost * quantity / size)
        gained = value - released if self.amount > 0 else released - value
        return (-gained if self.terms.market == "coinm" else gained), released

    def unrealised(self, mark: Decimal) -> Decimal:
        """Return what closing all at ``mark`` would gain."""
        if not self.amount:
            return ZERO
        return self.gain(abs(self.amount), value_of(self.terms, abs(self.amount), mark))[0]

    def event_row(self, mark: Decimal) -> Json:
        """Return its row in ``ACCOUNT_UPDATE``."""
        return {
            "s": self.terms.symbol,
            "pa": plain(self.amount),
            "ep": plain(self.entry, 11),
            "bep": plain(self.break_even, 11),
            "cr": plain(self.realised),
            "up": text(self.unrealised(mark)),
            "mt": "isolated" if self.isolated else "cross",
            "iw": text(self.wallet) if self.wallet else "0",
            "ps": self.side,
            "ma": self.terms.margin,
        }


class Income(NamedTuple):
    """An entry of the income ledger."""

    symbol: str
    kind: str
    amount: Decimal
    asset: str
    info: str
    time_ms: int
    transaction: int
    trade_id: int | None

    def row(self) -> Json:
        """Return the row of ``income``."""
        return {
            "symbol": self.symbol,
            "incomeType": self.kind,
            "income": text(self.amount),
            "asset": self.asset,
            "info": self.info,
            "time": self.time_ms,
            "tranId": self.transaction,
            "tradeId": "" if self.trade_id is None else str(self.trade_id),
        }
