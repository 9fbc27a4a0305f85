"""A spot account: balances, orders that rest, fill, trigger and end, and the events of all that.

Orders fill against the market without moving it: what crosses takes from the book's levels, what rests is filled
by the market's trades at or through its price. On an account whose fills are scripted nothing fills by itself.

A coroutine-free state machine; time is an argument (epoch milliseconds, exchange time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bridge.simulator.accounts.amounts import ZERO, down, nearest, text
from bridge.simulator.accounts.lookup import newest_named
from bridge.simulator.accounts.matching import best_levels, reached, take
from bridge.simulator.accounts.refusal import Refused, bad_symbol, no_order, unknown_order
from bridge.simulator.accounts.spot_orders import (
    LIMITS,
    STOPS,
    Order,
    OrderList,
    Reserve,
    Trade,
    execution_report,
)
from bridge.simulator.accounts.spot_requests import read_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from decimal import Decimal

    from bridge.simulator.accounts.params import Params
    from bridge.simulator.accounts.sequences import Sequences
    from bridge.simulator.accounts.spot_orders import Json
    from bridge.simulator.accounts.venue import Print, Terms, Venue


@dataclass(slots=True)
class Balance:
    """What an account has of one asset."""

    free: Decimal = ZERO
    locked: Decimal = ZERO


@dataclass(slots=True, kw_only=True)
class Fees:
    """Commission rates."""

    maker: Decimal
    taker: Decimal


class SpotAccount:
    """One account's spot side.

    Args:
        venue: the market.
        sequences: where ids come from.
        tell: called with each event and its time.
        fees: commission rates.
        scripted: nothing fills or triggers unless it is asked to.

    Attributes:
        balances: by asset.
        orders: all orders ever placed by symbol and id, oldest first.
        lists: all order lists by id.
        trades: all fills, oldest first.
        updated_ms: when a balance changed last.
        told_ms: time of the newest event; none is older than the one before.
    """

    def __init__(
        self,
        venue: Venue,
        sequences: Sequences,
        tell: Callable[[Json, int], None],
        fees: Fees,
        *,
        scripted: bool = False,
    ) -> None:
        self._venue, self._sequences, self._sink, self.fees = venue, sequences, tell, fees
        self._scripted = scripted
        self.told_ms = 0
        self.balances: dict[str, Balance] = {}
        self.orders: dict[tuple[str, int], Order] = {}
        self.lists: dict[int, OrderList] = {}
        self.trades: list[Trade] = []
        self.updated_ms = 0
        self._open: dict[tuple[str, int], Order] = {}
        self._tape: dict[str, int] = {}
        self._touched: dict[str, None] = {}

    # what the outside asks

    def symbols(self) -> Sequence[str]:
        """Return what the market lists, most active first."""
        return self._venue.symbols("spot")

    def terms(self, symbol: str) -> Terms:
        """Return a symbol's terms.

        Raises:
            Refused: -1121, it is not listed.
        """
        found = self._venue.terms("spot", symbol)
        if found is None:
            raise bad_symbol()
        return found

    def last_price(self, symbol: str) -> Decimal:
        """Return the price of a symbol's last trade."""
        return self._venue.last_price("spot", symbol)

    def open_orders(self, symbol: str = "") -> list[Order]:
        """Return what may still fill, oldest first; of one symbol or of all."""
        return [order for order in self._open.values() if symbol in ("", order.symbol)]

    def find(self, symbol: str, order_id: int | None, client_id: str) -> Order:
        """Return an order by its id or its client id (the newest one that had it).

        Raises:
            Refused: -2013 there is none, -2039 both are given and do not match.
        """
        if order_id is not None:
            order = self.orders.get((symbol, order_id))
            if order is not None and client_id and order.client_id != client_id:
                raise Refused(-2039, "Client order ID is not correct for this order ID.")
            if order is None:
                raise no_order()
            return order
        return newest_named(self.orders.values(), client_id, symbol)

    def by_client_id(self, client_id: str) -> Order:
        """Return the newest order of any symbol with a client id.

        Raises:
            Refused: there is none.
        """
        return newest_named(self.orders.values(), client_id)

    def row(self, uid: int, *, omit_zero: bool = False) -> Json:
        """Return the answer of ``GET /api/v3/account``."""
        return {
            "makerCommission": int(self.fees.maker * 10_000),
            "takerCommission": int(self.fees.taker * 10_000),
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {
                "maker": text(self.fees.maker),
                "taker": text(self.fees.taker),
                "buyer": text(ZERO),
                "seller": text(ZERO),
            },
            "canTrade": True,
            "canWithdraw": True,
            "canDeposit": True,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": self.updated_ms,
            "accountType": "SPOT",
            "balances": [
                {"asset": asset, "free": text(balance.free), "locked": text(balance.locked)}
                for asset, balance in sorted(self.balances.items())
                if not omit_zero or balance.free or balance.locked
            ],
            "permissions": ["SPOT"],
            "uid": uid,
        }

    # what a client does

    def check(self, params: Params, now_ms: int) -> None:
        """Check the parameters of an order as placing it would, without placing it.

        Raises:
            Refused: they are wrong.
        """
        self._read(params, now_ms)

    def place(self, params: Params, now_ms: int) -> Order:
        """Place an order from the parameters of ``POST /api/v3/order``.

        Raises:
            Refused: the exchange does not take it; nothing happened.
        """
        terms, order = self._read(params, now_ms)
        self.match(now_ms, order.symbol)
        self._admit(terms, order)
        self._enter(terms, order, now_ms)
        self._tell_balances(now_ms)
        return order

    def place_list(self, params: Params, contingency: str, legs: Iterable[Params], now_ms: int) -> OrderList:
        """Place an OCO (two legs of which one can fill) or an OTO (a leg, and one that waits for it).

        Raises:
            Refused: the exchange does not take it; nothing happened.
        """
        read = [self._read(leg, now_ms) for leg in legs]
        orders = [order for _, order in read]
        terms = read[0][0]
        self.match(now_ms, terms.symbol)
        if contingency == "OCO":
            self._admit_oco(terms, orders)
        else:
            self._admit(terms, orders[0])
            orders[1].status = "PENDING_NEW"
        list_id = self._sequences.next("list", "spot")
        client_id = params.client_id("listClientOrderId") or self._sequences.client_id()
        made = OrderList(terms.symbol, list_id, client_id, contingency, orders, now_ms)
        self.lists[list_id] = made
        for order in orders:
            order.list_id = list_id
            order.order_id = self._sequences.next("order", "spot", terms.symbol)
        if contingency == "OCO":
            # the stop leg first, so that a limit leg that takes at once finds it there
            for order in sorted(orders, key=lambda one: one.type not in STOPS):
                self._enter(terms, order, now_ms)
        else:
            self._enter(terms, orders[1], now_ms)
            self._enter(terms, orders[0], now_ms)
        if made.status != "ALL_DONE":
            self._tell(made.event(now_ms), now_ms)
        self._tell_balances(now_ms)
        return made

    def cancel(self, order: Order, now_ms: int, request_id: str = "") -> str:
        """Cancel an order and whatever list it is a leg of; return the client id of the request.

        Raises:
            Refused: -2011, it is not open.
        """
        self.match(now_ms, order.symbol)
        if not order.open:
            raise unknown_order()
        request_id = request_id or self._sequences.client_id()
        listed = self.lists.get(order.list_id)
        for leg in [order] if listed is None else [leg for leg in listed.orders if leg.open]:
            leg.status = "CANCELED"
            self._close(leg, now_ms)
            self._report(leg, "CANCELED", now_ms, request_id=request_id)
        if listed is not None:
            self._finish_list(listed, now_ms)
        self._tell_balances(now_ms)
        return request_id

    def amend(self, order: Order, quantity: Decimal, now_ms: int, client_id: str = "") -> int:
        """Reduce an order's quantity where it stands in the queue; return the execution id.

        Raises:
            Refused: -2038, the quantity is not between what is filled and what it was; -2013, it is not open.
        """
        if not order.open:
            raise no_order()
        if not order.executed < quantity < order.quantity:
            raise Refused(-2038, "The requested action would change no state; rejecting.")
        order.quantity, order.updated_ms = quantity, now_ms
        order.client_id = client_id or self._sequences.client_id()
        self._trim(order.reserve)
        execution_id = self._report(order, "REPLACED", now_ms)
        listed = self.lists.get(order.list_id)
        if listed is not None:
            listed.status_type, listed.changed_ms = "UPDATED", now_ms
            self._tell(listed.event(now_ms), now_ms)
        self._tell_balances(now_ms)
        return execution_id

    # what the exchange does

    def match(self, now_ms: int, symbol: str = "") -> None:
        """Let the market's trades since the last time trigger and fill what is open."""
        if self._scripted:
            return
        for name in [symbol] if symbol else list(self._tape):
            if name not in self._tape:
                continue
            since, self._tape[name] = self._tape[name], self._venue.position("spot", name)
            for traded in self._venue.prints("spot", name, since):
                # an order may have come since, in the same tick
                self._match_print(name, traded._replace(time_ms=max(traded.time_ms, self.told_ms)))
            if not self.open_orders(name):
                self._tape.pop(name, None)
        self._tell_balances(now_ms)

    def fill(
        self,
        order: Order,
        quantity: Decimal,
        price: Decimal,
        now_ms: int,
        *,
        maker: bool,
        commission: tuple[str, Decimal] | None = None,
    ) -> None:
        """Fill an open order, partly or wholly.

        Args:
            order: which.
            quantity: how much, no more than remains.
            price: at what price.
            now_ms: when.
            maker: whether it rested.
            commission: asset and amount, in place of the account's rate on what is received.

        Raises:
            Refused: it is not open, has less left, or the account cannot pay for it.
        """
        if order.quote_quantity and not order.quantity:
            order.quantity = quantity
        if not order.open or order.status == "PENDING_NEW" or not 0 < quantity <= order.remaining:
            raise Refused(-2010, f"Order {order.order_id} cannot fill {quantity}.")
        if not order.working:
            self.trigger(order, now_ms)
        left = min(quantity, order.remaining)  # a stop that triggers may fill by itself
        if left and order.open:
            self._fill(order, left, price, now_ms, maker=maker, commission=commission)
        self._tell_balances(now_ms)

    def trigger(self, order: Order, now_ms: int) -> None:
        """Let a stop order enter the book; on an account that matches, it takes at once what it can."""
        if order.working or not order.open or order.status == "PENDING_NEW":
            return
        order.working, order.working_ms, order.updated_ms = True, now_ms, now_ms
        self._end_siblings(order, now_ms)
        self._report(order, "NEW", now_ms)
        if not self._scripted:
            self._take(order, now_ms)
        self._tell_balances(now_ms)

    def expire(self, order: Order, now_ms: int, reason: str) -> None:
        """End an open order as the exchange does by its rules.

        Raises:
            Refused: it is not open.
        """
        if not order.open:
            raise unknown_order()
        self._expire(order, now_ms, reason)
        self._tell_balances(now_ms)

    def prevent(
        self, order: Order, quantity: Decimal, price: Decimal, now_ms: int, counter_order: int
    ) -> None:
        """Let self-trade prevention take a quantity off an open order.

        Raises:
            Refused: it is not open or has less left.
        """
        if not order.open or not 0 < quantity <= order.remaining:
            raise Refused(-2010, f"Order {order.order_id} cannot be prevented {quantity}.")
        order.prevented += quantity
        order.updated_ms = now_ms
        if not order.remaining:
            order.status = "EXPIRED_IN_MATCH"
            self._close(order, now_ms)
        else:
            self._trim(order.reserve)
        further: Json = {
            "v": self._sequences.next("prevented", order.symbol),
            "A": text(order.prevented),
            "B": text(quantity),
            "u": 1,
            "U": counter_order,
            "Cs": order.symbol,
            "pl": text(quantity),
            "pL": text(price),
            "pY": text(nearest(quantity * price)),
        }
        self._report(order, "TRADE_PREVENTION", now_ms, further=further)
        self._tell_balances(now_ms)

    def reject(self, params: Params, now_ms: int, reason: str) -> Order:
        """Let an order be rejected by the engine after it was taken."""
        _, order = self._read(params, now_ms)
        order.status = "REJECTED"
        order.order_id = self._sequences.next("order", "spot", order.symbol)
        self.orders[order.symbol, order.order_id] = order
        self._report(order, "REJECTED", now_ms, reject=reason)
        return order

    def deposit(self, asset: str, amount: Decimal, now_ms: int) -> None:
        """Add to (or with a negative amount take from) what is free.

        Raises:
            Refused: less than that is free.
        """
        balance = self._balance(asset)
        if balance.free + amount < 0:
            raise Refused(-3041, "Balance is not enough")
        balance.free += amount
        self._touched[asset] = None
        self._tell({"e": "balanceUpdate", "E": now_ms, "a": asset, "d": text(amount), "T": now_ms}, now_ms)
        self._tell_balances(now_ms)

    def lock(self, asset: str, amount: Decimal, now_ms: int) -> None:
        """Lock for another system, or with a negative amount unlock.

        Raises:
            Refused: less than that is free, or locked.
        """
        balance = self._balance(asset)
        if balance.free - amount < 0 or balance.locked + amount < self._reserved(asset):
            raise Refused(-3041, "Balance is not enough")
        balance.free -= amount
        balance.locked += amount
        self._touched[asset] = None
        event: Json = {"e": "externalLockUpdate", "E": now_ms, "a": asset, "d": text(amount), "T": now_ms}
        self._tell(event, now_ms)
        self._tell_balances(now_ms)

    # entering

    def _read(self, params: Params, now_ms: int) -> tuple[Terms, Order]:
        terms = self.terms(params.required("symbol"))
        order = read_order(terms, params, now_ms)
        order.client_id = order.client_id or self._sequences.client_id()
        if any(
            open_.client_id == order.client_id and open_.symbol == order.symbol
            for open_ in self._open.values()
        ):
            raise Refused(-2010, "Duplicate order sent.")
        return terms, order

    def _admit(self, terms: Terms, order: Order) -> None:
        """Refuse what cannot be paid for or may not take; change nothing but the order's plan to lock."""
        if not self._scripted:
            self._refuse_at_once(order)
        asset, amount = _need(terms, order)
        if order.type == "MARKET" and order.side == "BUY":
            amount = self._market_cost(order)
        if self._balance(asset).free < amount:
            raise Refused(-2010, "Account has insufficient balance for requested action.")
        if order.type != "MARKET":
            order.reserve = Reserve(asset, amount)

    def _admit_oco(self, terms: Terms, orders: list[Order]) -> None:
        for order in orders:
            if not self._scripted:
                self._refuse_at_once(order)
        needs = [_need(terms, order) for order in orders]
        if orders[0].side != orders[1].side or not any(order.type in STOPS for order in orders):
            raise Refused(-1158, "Order list legs are invalid.")
        asset, amount = needs[0][0], max(amount for _, amount in needs)
        if self._balance(asset).free < amount:
            raise Refused(-2010, "Account has insufficient balance for requested action.")
        shared = Reserve(asset, amount)
        for order in orders:
            order.reserve = shared

    def _refuse_at_once(self, order: Order) -> None:
        bids, asks = self._venue.book("spot", order.symbol)
        best = best_levels(order.side, bids, asks)
        if order.type == "LIMIT_MAKER" and best and take(best, order.side, order.price, order.quantity):
            raise Refused(-2010, "Order would immediately match and take.")
        last = self._venue.last_price("spot", order.symbol)
        if order.type in STOPS and order.trailing_delta is None and _triggers(order, last):
            raise Refused(-2010, "Stop price would trigger immediately.")

    def _market_cost(self, order: Order) -> Decimal:
        if order.quote_quantity:
            return order.quote_quantity
        if self._scripted:
            return ZERO
        _, asks = self._venue.book("spot", order.symbol)
        return sum((price * quantity for price, quantity in take(asks, "BUY", None, order.quantity)), ZERO)

    def _enter(self, terms: Terms, order: Order, now_ms: int) -> None:
        if order.order_id < 0:
            order.order_id = self._sequences.next("order", "spot", order.symbol)
        key = (order.symbol, order.order_id)
        self.orders[key] = self._open[key] = order
        self._tape.setdefault(order.symbol, self._venue.position("spot", order.symbol))
        self._hold(order)
        order.working = order.type not in STOPS and order.status != "PENDING_NEW"
        order.working_ms = now_ms if order.working else None
        if order.trailing_delta is not None and not order.stop_price:
            order.trailing_ms, order.extreme = now_ms, self._venue.last_price("spot", order.symbol)
        if order.quote_quantity and not self._scripted:
            levels = best_levels(order.side, *self._venue.book("spot", order.symbol))
            order.quantity = _affordable(terms, levels, order.quote_quantity)
        self._report(order, "NEW", now_ms)
        if order.working and not self._scripted:
            self._take(order, now_ms)

    def _hold(self, order: Order) -> None:
        """Lock what the order reserves, once for all who share it."""
        reserve = order.reserve
        if reserve is None or any(o.reserve is reserve and o is not order for o in self._open.values()):
            return
        balance = self._balance(reserve.asset)
        balance.free -= reserve.amount
        balance.locked += reserve.amount
        self._touched[reserve.asset] = None

    # matching

    def _take(self, order: Order, now_ms: int) -> None:
        """Fill what crosses the book, then let the rest do what its type and time in force say."""
        bids, asks = self._venue.book("spot", order.symbol)
        limit = order.price if order.type in LIMITS else None
        fills = take(best_levels(order.side, bids, asks), order.side, limit, order.remaining)
        if order.time_in_force == "FOK" and sum((q for _, q in fills), ZERO) < order.remaining:
            self._expire(order, now_ms, "UNFILLED_FOK_ORDER_EXPIRED")
            return
        for price, quantity in fills:
            if not self._can_pay(order, price, quantity):
                break
            self._fill(order, quantity, price, now_ms, maker=False)
        if order.open and limit is None:
            self._expire(order, now_ms, "INSUFFICIENT_LIQUIDITY")
        elif order.open and order.time_in_force == "IOC":
            self._expire(order, now_ms, "UNFILLED_IOC_QUANTITY_EXPIRED")

    def _can_pay(self, order: Order, price: Decimal, quantity: Decimal) -> bool:
        if order.side == "SELL" or order.type in LIMITS:
            return True
        terms = self.terms(order.symbol)
        held = ZERO if order.reserve is None else order.reserve.amount
        return self._balance(terms.quote).free + held >= price * quantity

    def _match_print(self, symbol: str, traded: Print) -> None:
        left = traded.quantity
        for order in self.open_orders(symbol):
            if not order.open:  # an earlier one in this very loop ended it
                continue
            if order.working:
                if left and order.type in LIMITS and reached(order.side, order.price, traded.price):
                    quantity = min(left, order.remaining)
                    left -= quantity
                    self._fill(order, quantity, order.price, traded.time_ms, maker=True)
            elif order.status != "PENDING_NEW":
                self._follow(order, traded)
                if _triggers(order, traded.price):
                    self.trigger(order, traded.time_ms)

    @staticmethod
    def _follow(order: Order, traded: Print) -> None:
        """Move a trailing stop along."""
        if order.trailing_delta is None:
            return
        if order.extreme is None:
            if not _stop_reached(order, traded.price):
                return
            order.trailing_ms, order.extreme = traded.time_ms, traded.price
        best = min if order.side == "BUY" else max
        order.extreme = best(order.extreme, traded.price)

    def _fill(
        self,
        order: Order,
        quantity: Decimal,
        price: Decimal,
        now_ms: int,
        *,
        maker: bool,
        commission: tuple[str, Decimal] | None = None,
    ) -> None:
        terms = self.terms(order.symbol)
        quote = nearest(price * quantity)
        buys = order.side == "BUY"
        paid, received = ((terms.quote, quote), (terms.base, quantity))[:: 1 if buys else -1]
        rate = self.fees.maker if maker else self.fees.taker
        fee_asset, fee = commission or (received[0], down(received[1] * rate))
        if commission and fee_asset != received[0] and self._balance(fee_asset).free < fee:
            raise Refused(-2010, "Account has insufficient balance for requested action.")
        share = nearest((order.price or order.stop_price) * quantity) if buys else quantity
        self._pay(order, *paid, share=share)
        self._balance(received[0]).free += received[1]
        self._balance(fee_asset).free -= fee
        self._touched |= dict.fromkeys((terms.base, terms.quote, fee_asset))
        trade_id = self._sequences.next("trade", "spot", order.symbol)
        trade = Trade(
            order.symbol, trade_id, order.order_id, order.list_id, order.side, price, quantity, quote, fee, fee_asset,
            now_ms, maker,
        )  # fmt: skip
        self.trades.append(trade)
        order.fills.append(trade)
        order.executed += quantity
        order.spent += quote
        order.updated_ms = now_ms
        order.status = "PARTIALLY_FILLED" if order.remaining else "FILLED"
        self._end_siblings(order, now_ms)
        if not order.open:
            self._close(order, now_ms)
        self._trim(order.reserve)
        self._report(order, "TRADE", now_ms, trade=trade)
        self._after(order, now_ms)

    def _pay(self, order: Order, asset: str, amount: Decimal, *, share: Decimal) -> None:
        """Pay for a fill: from what was locked for this much of the order, then from what is free."""
        balance, reserve = self._balance(asset), order.reserve
        held = ZERO if reserve is None else min(reserve.amount, amount, share)
        if balance.free < amount - held:
            raise Refused(-2010, "Account has insufficient balance for requested action.")
        if reserve is not None:
            reserve.amount -= held
        balance.locked -= held
        balance.free -= amount - held

    # ending

    def _expire(self, order: Order, now_ms: int, reason: str) -> None:
        order.status, order.expiry_reason = "EXPIRED", reason
        self._close(order, now_ms)
        self._report(order, "EXPIRED", now_ms)
        self._after(order, now_ms)

    def _close(self, order: Order, now_ms: int) -> None:
        """Take an order that ended off the open ones, and release what it held."""
        order.updated_ms = now_ms
        order.working = order.working and order.status == "FILLED"
        self._open.pop((order.symbol, order.order_id), None)
        self._trim(order.reserve)

    def _trim(self, reserve: Reserve | None) -> None:
        """Release what no open order needs any more."""
        if reserve is None:
            return
        needed = ZERO
        for order in self._open.values():
            if order.reserve is reserve:
                terms = self.terms(order.symbol)
                needed = max(needed, _need(terms, order)[1])
        excess = reserve.amount - needed
        if excess > 0:
            reserve.amount = needed
            balance = self._balance(reserve.asset)
            balance.locked -= excess
            balance.free += excess
            self._touched[reserve.asset] = None

    # order lists

    def _end_siblings(self, order: Order, now_ms: int) -> None:
        """End the other leg of an OCO once this one triggered or filled."""
        listed = self.lists.get(order.list_id)
        if listed is None or listed.contingency != "OCO":
            return
        others = [leg for leg in listed.orders if leg is not order and leg.open]
        for leg in others:
            leg.status, leg.expiry_reason = "EXPIRED", "OCO_TRIGGER"
            self._close(leg, now_ms)
            self._report(leg, "EXPIRED", now_ms)
        if others:
            self._finish_list(listed, now_ms)

    def _after(self, order: Order, now_ms: int) -> None:
        """Let a list go on after one of its orders changed."""
        listed = self.lists.get(order.list_id)
        if listed is None or order.open:
            return
        if listed.contingency == "OTO" and order is listed.orders[0]:
            pending = listed.orders[1]
            if order.status == "FILLED":
                self._activate(pending, now_ms)
            elif pending.open:
                pending.status, pending.expiry_reason = "EXPIRED", "OTO_PHASE_ONE_EXPIRED"
                self._close(pending, now_ms)
                self._report(pending, "EXPIRED", now_ms)
        if not any(leg.open for leg in listed.orders):
            self._finish_list(listed, now_ms)

    def _activate(self, order: Order, now_ms: int) -> None:
        """Place the pending leg of an OTO."""
        terms = self.terms(order.symbol)
        try:
            self._admit(terms, order)
        except Refused:
            order.status, order.expiry_reason = "EXPIRED", "REJECTED"
            self._close(order, now_ms)
            self._report(order, "EXPIRED", now_ms)
            return
        self._hold(order)
        order.status, order.updated_ms = "NEW", now_ms
        order.working = order.type not in STOPS
        order.working_ms = now_ms if order.working else None
        self._report(order, "NEW", now_ms)
        if order.working and not self._scripted:
            self._take(order, now_ms)

    def _finish_list(self, listed: OrderList, now_ms: int) -> None:
        if listed.status == "ALL_DONE":
            return
        listed.status_type = listed.status = "ALL_DONE"
        listed.changed_ms = now_ms
        self._tell(listed.event(now_ms), now_ms)

    # telling

    def _report(
        self,
        order: Order,
        execution: str,
        now_ms: int,
        *,
        trade: Trade | None = None,
        request_id: str | None = None,
        reject: str = "NONE",
        further: Json | None = None,
    ) -> int:
        execution_id = self._sequences.next("execution", order.symbol)
        self._tell(
            execution_report(
                order,
                execution,
                execution_id,
                now_ms,
                trade=trade,
                request_id=request_id,
                reject=reject,
                further=further,
            ),
            now_ms,
        )
        return execution_id

    def _tell(self, event: Json, now_ms: int) -> None:
        self.told_ms = max(self.told_ms, now_ms)
        self._sink(event, now_ms)

    def _tell_balances(self, now_ms: int) -> None:
        if not self._touched:
            return
        assets, self._touched = list(self._touched), {}
        self.updated_ms = now_ms
        rows = [
            {"a": asset, "f": text(self.balances[asset].free), "l": text(self.balances[asset].locked)}
            for asset in assets
        ]
        self._tell({"e": "outboundAccountPosition", "E": now_ms, "u": now_ms, "B": rows}, now_ms)

    def _balance(self, asset: str) -> Balance:
        return self.balances.setdefault(asset, Balance())

    def _reserved(self, asset: str) -> Decimal:
        held = {id(o.reserve): o.reserve for o in self._open.values() if o.reserve is not None}
        return sum((reserve.amount for reserve in held.values() if reserve.asset == asset), ZERO)


def _need(terms: Terms, order: Order) -> tuple[str, Decimal]:
    """Return what an order has to lock for what is left of it."""
    if order.side == "SELL":
        return terms.base, order.remaining
    if order.type in LIMITS:
        return terms.quote, nearest(order.price * order.remaining)
    return terms.quote, nearest(order.stop_price * order.remaining)


def _triggers(order: Order, price: Decimal) -> bool:
    if order.trailing_delta is None:
        return _stop_reached(order, price)
    if order.extreme is None:
        return False
    step = order.extreme * order.trailing_delta / 10_000
    return price >= order.extreme + step if order.side == "BUY" else price <= order.extreme - step


def _stop_reached(order: Order, price: Decimal) -> bool:
    upwards = (order.side == "BUY") == order.type.startswith("STOP_LOSS")
    return price >= order.stop_price if upwards else price <= order.stop_price


def _affordable(terms: Terms, levels: Iterable[tuple[Decimal, Decimal]], quote: Decimal) -> Decimal:
    """Return how much of the base a market order over ``quote`` trades, in whole steps."""
    bought, left = ZERO, quote
    for price, quantity in levels:
        possible = min(quantity, left / price // terms.step * terms.step)
        bought += possible
        left -= possible * price
        if possible < quantity:
            break
    return bought
