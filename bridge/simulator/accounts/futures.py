"""A futures account (one product): wallets, positions, orders that rest, fill, trigger and end, and their events.

Orders fill against the market without moving it, as on spot. What positions cost is kept, not their average price,
so that gains, fees and what is left open add up to the last digit.

A coroutine-free state machine; time is an argument (epoch milliseconds, exchange time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bridge.simulator.accounts.amounts import ZERO, nearest, plain, text
from bridge.simulator.accounts.futures_orders import (
    LIMITS,
    STOPS,
    AlgoOrder,
    Income,
    Order,
    Position,
    Trade,
    value_of,
)
from bridge.simulator.accounts.futures_requests import read_order
from bridge.simulator.accounts.lookup import newest_named
from bridge.simulator.accounts.matching import best_levels, reached, take
from bridge.simulator.accounts.refusal import Refused, bad_symbol, no_order, unknown_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from decimal import Decimal

    from bridge.simulator.accounts.futures_orders import Json, PositionSide, Side
    from bridge.simulator.accounts.params import Params
    from bridge.simulator.accounts.sequences import Sequences
    from bridge.simulator.accounts.spot import Fees
    from bridge.simulator.accounts.venue import Print, Terms, Venue

REASONS = frozenset(
    {
        "DEPOSIT", "WITHDRAW", "ORDER", "FUNDING_FEE", "WITHDRAW_REJECT", "ADJUSTMENT", "INSURANCE_CLEAR",
        "ADMIN_DEPOSIT", "ADMIN_WITHDRAW", "MARGIN_TRANSFER", "MARGIN_TYPE_CHANGE", "ASSET_TRANSFER",
        "OPTIONS_PREMIUM_FEE", "OPTIONS_SETTLE_PROFIT", "AUTO_EXCHANGE", "COIN_SWAP_DEPOSIT", "COIN_SWAP_WITHDRAW",
    }
)  # fmt: skip
_INCOME_OF = {
    "INSURANCE_CLEAR": "INSURANCE_CLEAR",
    "AUTO_EXCHANGE": "AUTO_EXCHANGE",
    "FUNDING_FEE": "FUNDING_FEE",
}
_USUAL_LEVERAGE = 20


@dataclass(slots=True)
class Wallet:
    """An asset's wallet balance, with the margin of isolated positions in it."""

    balance: Decimal = ZERO
    updated_ms: int = 0


class FuturesAccount:
    """One account's side of usdm or coinm.

    Args:
        market: which of them.
        venue: the market.
        sequences: where ids come from.
        tell: called with each event and its time.
        fees: commission rates.
        alias: the account's alias, which coinm shows.
        scripted: nothing fills or triggers unless it is asked to.

    Attributes:
        wallets: by asset.
        positions: by symbol and position side; flat ones stay.
        orders: all plain orders by id, oldest first.
        algos: all conditional orders by id, oldest first.
        trades: all fills, oldest first.
        income: the ledger, oldest first.
        leverages: by symbol, where it was set.
        isolated: symbols with isolated margin.
        hedged: long and short positions are kept apart.
        multi_assets: margin in several assets.
        told_ms: time of the newest event; none is older than the one before.
    """

    def __init__(
        self,
        market: Literal["usdm", "coinm"],
        venue: Venue,
        sequences: Sequences,
        tell: Callable[[Json, int], None],
        fees: Fees,
        *,
        alias: str,
        scripted: bool = False,
    ) -> None:
        self.market: Literal["usdm", "coinm"] = market
        self.alias, self.fees = alias, fees
        self._venue, self._sequences, self._sink, self._scripted = venue, sequences, tell, scripted
        self.told_ms = 0
        self.wallets: dict[str, Wallet] = {}
        self.positions: dict[tuple[str, PositionSide], Position] = {}
        self.orders: dict[int, Order] = {}
        self.algos: dict[int, AlgoOrder] = {}
        self.trades: list[Trade] = []
        self.income: list[Income] = []
        self.leverages: dict[str, int] = {}
        self.isolated: set[str] = set()
        self.hedged = self.multi_assets = False
        self._open: dict[int, Order] = {}
        self._tape: dict[str, int] = {}

    # what the outside asks

    def terms(self, symbol: str) -> Terms:
        """Return a contract's terms.

        Raises:
            Refused: -1121, it is not listed.
        """
        found = self._venue.terms(self.market, symbol)
        if found is None:
            raise bad_symbol()
        return found

    def symbols(self) -> Sequence[str]:
        """Return what the market lists, most active first."""
        return self._venue.symbols(self.market)

    def last_price(self, symbol: str) -> Decimal:
        """Return the price of a contract's last trade.

        Raises:
            Refused: it is not listed.
        """
        self.terms(symbol)
        return self._venue.last_price(self.market, symbol)

    def open_orders(self, symbol: str = "") -> list[Order]:
        """Return plain orders that may still fill, oldest first; of one symbol or of all."""
        return [order for order in self._open.values() if symbol in ("", order.symbol)]

    def open_algos(self, symbol: str = "") -> list[AlgoOrder]:
        """Return conditional orders that may still trigger, oldest first."""
        return [algo for algo in self.algos.values() if algo.open and symbol in ("", algo.draft.symbol)]

    def find(self, symbol: str, order_id: int | None, client_id: str) -> Order:
        """Return an order by its id or its client id (the newest one that had it).

        Raises:
            Refused: there is none.
        """
        if order_id is not None:
            order = self.orders.get(order_id)
            if order is None or order.symbol != symbol:
                raise no_order()
            return order
        return newest_named(self.orders.values(), client_id, symbol)

    def by_client_id(self, client_id: str) -> Order:
        """Return the newest order of any contract with a client id.

        Raises:
            Refused: there is none.
        """
        return newest_named(self.orders.values(), client_id)

    def find_algo(self, algo_id: int | None, client_id: str) -> AlgoOrder:
        """Return a conditional order by its id or its client id.

        Raises:
            Refused: there is none.
        """
        for algo in reversed(self.algos.values()):
            if algo.algo_id == algo_id if algo_id is not None else algo.client_id == client_id:
                return algo
        raise no_order()

    def leverage(self, symbol: str) -> int:
        """Return a contract's leverage."""
        return self.leverages.get(symbol, _USUAL_LEVERAGE)

    def mark(self, symbol: str) -> Decimal:
        """Return a contract's mark price."""
        return self._venue.mark_price(symbol)

    def cross_wallet(self, asset: str) -> Decimal:
        """Return a wallet's balance without what isolated positions hold."""
        held = (p.wallet for p in self.positions.values() if p.terms.margin == asset)
        return self.wallets.get(asset, Wallet()).balance - sum(held, ZERO)

    def initial_margin(self, position: Position) -> Decimal:
        """Return the margin that opening the position at its mark price would need."""
        symbol = position.terms.symbol
        notional = value_of(position.terms, abs(position.amount), self.mark(symbol))
        return nearest(notional / self.leverage(symbol))

    def order_margin(self, order: Order) -> Decimal:
        """Return the margin that an open order holds back."""
        if order.reduce_only:
            return ZERO
        price = order.price or order.stop_price or self.mark(order.symbol)
        return nearest(value_of(order.terms, order.remaining, price) / self.leverage(order.symbol))

    def available(self, asset: str) -> Decimal:
        """Return what can be used for new positions."""
        crossed = [
            p for p in self.positions.values() if p.terms.margin == asset and not p.isolated and p.amount
        ]
        gains = sum((p.unrealised(self.mark(p.terms.symbol)) for p in crossed), ZERO)
        margins = sum((self.initial_margin(p) for p in crossed), ZERO)
        orders = (self.order_margin(o) for o in self._open.values() if o.terms.margin == asset)
        return self.cross_wallet(asset) + gains - margins - sum(orders, ZERO)

    # what a client does

    def place(self, params: Params, now_ms: int) -> Order:
        """Place a plain order (on coinm also a stop) from the parameters of ``POST …/order``.

        Raises:
            Refused: the exchange does not take it; nothing happened.
        """
        terms = self.terms(params.required("symbol"))
        order = read_order(terms, params, now_ms, hedged=self.hedged)
        if order.type in STOPS and self.market == "usdm":
            message = (
                "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead."
            )
            raise Refused(-4120, message)
        self.match(now_ms, order.symbol)
        self._admit(order)
        order.working = order.type not in STOPS
        self._enter(order, now_ms)
        return order

    def place_algo(self, params: Params, now_ms: int) -> AlgoOrder:
        """Place a conditional order from the parameters of ``POST …/algoOrder``.

        Raises:
            Refused: the exchange does not take it; nothing happened.
        """
        terms = self.terms(params.required("symbol"))
        draft = read_order(terms, params, now_ms, hedged=self.hedged)
        if draft.type not in STOPS:
            raise Refused(-4500, "Invalid algo type.")
        self.match(now_ms, draft.symbol)
        algo_id = self._sequences.next("algo", self.market)
        client_id = draft.client_id or self._sequences.client_id()
        algo = AlgoOrder(
            algo_id=algo_id, client_id=client_id, draft=draft, created_ms=now_ms, updated_ms=now_ms
        )
        self.algos[algo_id] = algo
        self._read_on(draft.symbol)
        self._start_trailing(draft)
        self._tell(algo.event(now_ms, self.alias), now_ms)
        return algo

    def cancel(self, order: Order, now_ms: int) -> None:
        """Cancel an order.

        Raises:
            Refused: -2011, it is not open.
        """
        self.match(now_ms, order.symbol)
        if not order.open:
            raise unknown_order()
        order.status = "CANCELED"
        self._close(order, now_ms)
        self._tell_order(order, "CANCELED", now_ms)

    def cancel_algo(self, algo: AlgoOrder, now_ms: int) -> None:
        """Cancel a conditional order.

        Raises:
            Refused: -2011, it is not open.
        """
        self.match(now_ms, algo.draft.symbol)
        if not algo.open:
            raise unknown_order()
        self._change_algo(algo, "CANCELED", now_ms)

    def amend(self, order: Order, quantity: Decimal, price: Decimal, now_ms: int) -> None:
        """Change quantity and price of an open limit order.

        Raises:
            Refused: it is not open, or the quantity is filled already.
        """
        if not order.open or order.type != "LIMIT":
            raise no_order()
        if quantity <= order.executed:
            raise Refused(-4003, "Quantity less than or equal to zero.")
        order.quantity, order.price, order.updated_ms = quantity, price, now_ms
        self._tell_order(order, "AMENDMENT", now_ms)
        if not self._scripted:
            self._take(order, now_ms)

    def set_leverage(self, symbol: str, leverage: int, now_ms: int) -> None:
        """Set a contract's leverage.

        Raises:
            Refused: it is not from 1 to 125, or the contract is not listed.
        """
        self.terms(symbol)
        if not 1 <= leverage <= 125:
            raise Refused(-4028, f"Leverage {leverage} is not valid")
        self.leverages[symbol] = leverage
        config = {"s": symbol, "l": leverage}
        self._tell({"e": "ACCOUNT_CONFIG_UPDATE", "E": now_ms, "T": now_ms, "ac": config}, now_ms)

    def set_multi_assets(self, on: bool, now_ms: int) -> None:
        """Turn margin in several assets on or off."""
        self.multi_assets = on
        self._tell({"e": "ACCOUNT_CONFIG_UPDATE", "E": now_ms, "T": now_ms, "ai": {"j": on}}, now_ms)

    def set_hedged(self, on: bool) -> None:
        """Keep long and short positions apart, or not.

        Raises:
            Refused: something is open.
        """
        if self._open or any(p.amount for p in self.positions.values()):
            raise Refused(-4068, "Position side cannot be changed if there exists position.")
        if self.hedged == on:
            raise Refused(-4059, "No need to change position side.")
        self.hedged = on

    def set_margin_type(self, symbol: str, isolated: bool, now_ms: int) -> None:
        """Give a contract isolated or cross margin.

        Raises:
            Refused: it has that already, or something is open.
        """
        terms = self.terms(symbol)
        if (symbol in self.isolated) == isolated:
            raise Refused(-4046, "No need to change margin type.")
        if self.open_orders(symbol):
            raise Refused(-4047, "Margin type cannot be changed if there exists open orders.")
        if any(p.amount for p in self.positions.values() if p.terms.symbol == symbol):
            raise Refused(-4048, "Margin type cannot be changed if there exists position.")
        (self.isolated.add if isolated else self.isolated.discard)(symbol)
        sides: tuple[PositionSide, ...] = ("LONG", "SHORT") if self.hedged else ("BOTH",)
        changed = [self._position(terms, side) for side in sides]
        for position in changed:
            position.isolated, position.updated_ms = isolated, now_ms
        self._tell_account("MARGIN_TYPE_CHANGE", {}, changed, now_ms)

    def move_margin(self, symbol: str, side: PositionSide, amount: Decimal, now_ms: int) -> None:
        """Add to (or with a negative amount take from) the margin of an isolated position.

        Raises:
            Refused: there is no such position, or not that much.
        """
        position = self.positions.get((symbol, side))
        if position is None or not position.isolated or not position.amount:
            raise Refused(-4051, "Isolated balance insufficient.")
        if position.wallet + amount < 0 or self.cross_wallet(position.terms.margin) - amount < 0:
            raise Refused(-4050, "Cross balance insufficient.")
        position.wallet += amount
        position.updated_ms = now_ms
        self._tell_account("MARGIN_TRANSFER", {position.terms.margin: ZERO}, [position], now_ms)

    # what the exchange does

    def match(self, now_ms: int, symbol: str = "") -> None:
        """Let the market's trades since the last time trigger and fill what is open."""
        if self._scripted:
            return
        for name in [symbol] if symbol else list(self._tape):
            if name not in self._tape:
                continue
            since, self._tape[name] = self._tape[name], self._venue.position(self.market, name)
            for traded in self._venue.prints(self.market, name, since):
                # an order may have come since, in the same tick
                self._match_print(name, traded._replace(time_ms=max(traded.time_ms, self.told_ms)))
            self._match_mark(name, now_ms)
            for order in self.open_orders(name):
                if order.good_till_ms and now_ms >= order.good_till_ms:
                    self.expire(order, now_ms, "0")
            if not self.open_orders(name) and not self.open_algos(name):
                self._tape.pop(name, None)

    def fill(
        self,
        order: Order,
        quantity: Decimal,
        price: Decimal,
        now_ms: int,
        *,
        maker: bool,
        commission: tuple[str, Decimal] | None = None,
        execution: str = "TRADE",
    ) -> None:
        """Fill an open order, partly or wholly.

        Args:
            order: which.
            quantity: how much, no more than remains.
            price: at what price.
            now_ms: when.
            maker: whether it rested.
            commission: asset and amount, in place of the account's rate in the margin asset.
            execution: ``TRADE``, or ``CALCULATED`` for a liquidation.

        Raises:
            Refused: it is not open or has less left.
        """
        if not order.open or not 0 < quantity <= order.remaining:
            raise Refused(-2010, f"Order {order.order_id} cannot fill {quantity}.")
        terms, position = order.terms, self._position(order.terms, order.position_side)
        realised, value = self._move(position, order.side, quantity, price, now_ms)
        rate = self.fees.maker if maker else self.fees.taker
        fee_asset, fee = commission or (terms.margin, nearest(value * rate))
        trade_id = self._sequences.next("trade", self.market, terms.symbol)
        trade = Trade(
            terms, trade_id, order.order_id, order.side, order.position_side, price, quantity, value, realised, fee,
            fee_asset, now_ms, maker,
        )  # fmt: skip
        self.trades.append(trade)
        self._book(terms.margin, realised, "REALIZED_PNL", terms.symbol, now_ms, trade_id)
        self._book(fee_asset, -fee, "COMMISSION", terms.symbol, now_ms, trade_id)
        if fee_asset == terms.margin and position.amount:
            position.paid += fee
        order.executed += quantity
        order.spent += value
        order.weighted += price * quantity
        order.updated_ms = now_ms
        order.status = "PARTIALLY_FILLED" if order.remaining else "FILLED"
        if not order.remaining:
            self._close(order, now_ms)
        if self.market == "usdm":
            self._tell(order.light(now_ms, trade), now_ms)
        self._tell_account("ORDER", dict.fromkeys((terms.margin, fee_asset), ZERO), [position], now_ms)
        self._tell_order(order, execution, now_ms, trade)
        self._finish_algo(order, now_ms)

    def trigger(self, order: Order, now_ms: int) -> None:
        """Let a stop order of coinm go to the book, as the plain order it becomes."""
        if order.working or not order.open:
            return
        order.status, order.expiry_reason = "EXPIRED", "8"
        self._tell_order(order, "EXPIRED", now_ms)
        order.status, order.expiry_reason = "NEW", "0"
        self._become_plain(order)
        order.working, order.updated_ms = True, now_ms
        self._tell_order(order, "NEW", now_ms)
        if not self._scripted:
            self._take(order, now_ms)

    def trigger_algo(self, algo: AlgoOrder, now_ms: int) -> None:
        """Let a conditional order become a plain one; where the account can't have that, it is rejected."""
        if not algo.open:
            return
        algo.triggered_ms = now_ms
        self._change_algo(algo, "TRIGGERING", now_ms)
        order = algo.draft
        order.client_id = algo.client_id
        self._become_plain(order)
        try:
            self._admit(order)
        except Refused as refused:
            algo.failure = refused.message
            self._change_algo(algo, "REJECTED", now_ms)
            return
        algo.order, order.created_ms = order, now_ms
        order.order_id = self._sequences.next("order", self.market, order.symbol)
        self._change_algo(algo, "TRIGGERED", now_ms)
        self._enter(order, now_ms)

    def reject_algo(self, algo: AlgoOrder, reason: str, now_ms: int) -> None:
        """Let a conditional order fail."""
        algo.failure = reason
        self._change_algo(algo, "REJECTED", now_ms)

    def expire(self, order: Order, now_ms: int, reason: str) -> None:
        """End an open order by the exchange's rules; ``reason`` is the number in ``er``.

        Raises:
            Refused: it is not open.
        """
        if not order.open:
            raise unknown_order()
        order.status, order.expiry_reason = "EXPIRED", reason
        self._close(order, now_ms)
        self._tell_order(order, "EXPIRED", now_ms)
        self._finish_algo(order, now_ms)

    def credit(self, asset: str, amount: Decimal, reason: str, now_ms: int) -> None:
        """Change a wallet for a reason other than a trade.

        Raises:
            Refused: the wallet does not have that much.
        """
        if self.available(asset) + amount < 0 and amount < 0:
            raise Refused(-2019, "Margin is insufficient.")
        self._book(asset, amount, _INCOME_OF.get(reason, "TRANSFER"), "", now_ms, None)
        self._tell_account(reason, {asset: amount}, [], now_ms)

    def fund(self, symbol: str, rate: Decimal, now_ms: int) -> Decimal:
        """Pay or take funding for every position of a contract; return the sum, positive where received."""
        total = ZERO
        mark = self.mark(symbol)
        for position in [p for p in self.positions.values() if p.terms.symbol == symbol and p.amount]:
            value = value_of(position.terms, abs(position.amount), mark)
            fee = nearest(-value * rate if position.amount > 0 else value * rate)
            total += fee
            asset = position.terms.margin
            self._book(asset, fee, "FUNDING_FEE", symbol, now_ms, None)
            if position.isolated:
                position.wallet += fee
                position.updated_ms = now_ms
            shown = [position] if position.isolated else []
            self._tell_account("FUNDING_FEE", {asset: fee}, shown, now_ms, symbol=symbol)
        return total

    def call_margin(self, now_ms: int) -> None:
        """Warn that positions are near liquidation."""
        held = [position for position in self.positions.values() if position.amount]
        rows = []
        for position in held:
            mark = self.mark(position.terms.symbol)
            maintenance = nearest(value_of(position.terms, abs(position.amount), mark) / 200)
            rows.append(
                {
                    "s": position.terms.symbol,
                    "ps": position.side,
                    "pa": plain(position.amount),
                    "mt": "ISOLATED" if position.isolated else "CROSSED",
                    "iw": text(position.wallet) if position.wallet else "0",
                    "mp": plain(mark),
                    "up": text(position.unrealised(mark)),
                    "mm": text(maintenance),
                }
            )
        crossed = next((p.terms.margin for p in held if not p.isolated), None)
        account: Json = {"i": self.alias} if self.market == "coinm" else {}
        cross: Json = {} if crossed is None else {"cw": text(self.cross_wallet(crossed))}
        self._tell({"e": "MARGIN_CALL", "E": now_ms, **account, **cross, "p": rows}, now_ms)

    def liquidate(self, symbol: str, price: Decimal, now_ms: int, *, prefix: str = "autoclose-") -> None:
        """Close every position of a contract by force, and cover what is lost beyond the wallet.

        Args:
            symbol: the contract.
            price: what it is closed at.
            now_ms: when.
            prefix: of the order's client id: ``autoclose-`` a liquidation, ``adl_autoclose`` deleveraging,
                ``settlement_autoclose-`` a settlement, ``delivery_autoclose-`` a delivery (coinm).
        """
        for order in self.open_orders(symbol):
            self.expire(order, now_ms, "5")
        terms = self.terms(symbol)
        for position in [p for p in self.positions.values() if p.terms.symbol == symbol and p.amount]:
            side: Side = "SELL" if position.amount > 0 else "BUY"
            order = Order(
                terms=terms,
                order_id=self._sequences.next("order", self.market, symbol),
                client_id=f"{prefix}{now_ms}",
                side=side,
                position_side=position.side,
                type="LIQUIDATION" if prefix == "autoclose-" else "LIMIT",
                original_type="LIMIT",
                time_in_force="IOC",
                quantity=abs(position.amount),
                price=price,
                created_ms=now_ms,
                updated_ms=now_ms,
            )
            self.orders[order.order_id] = self._open[order.order_id] = order
            self._tell_order(order, "NEW", now_ms)
            execution = "CALCULATED" if prefix == "autoclose-" else "TRADE"
            self.fill(order, order.quantity, price, now_ms, maker=False, execution=execution)
        lost = self.wallets.get(terms.margin, Wallet()).balance
        if lost < 0:
            self._book(terms.margin, -lost, "INSURANCE_CLEAR", symbol, now_ms, None)
            self._tell_account("INSURANCE_CLEAR", {terms.margin: -lost}, [], now_ms)

    def tell_bot(self, event: str, key: str, fields: Json, now_ms: int) -> None:
        """Tell of a trading bot or a rejected trigger, in the words given: the exchange keeps no state of these."""
        self._tell({"e": event, "T": now_ms, "E": now_ms, key: fields}, now_ms)

    # entering and matching

    def _admit(self, order: Order) -> None:
        """Refuse what the account has no margin for, or may not take."""
        held = self._position(order.terms, order.position_side).amount
        against = (order.side == "BUY") == (held < 0) and bool(held)
        if order.reduce_only or order.close_position:
            if not against:
                raise Refused(-2022, "ReduceOnly Order is rejected.")
            if order.close_position:
                order.quantity = abs(held)
            return
        closes = (order.position_side == "LONG") == (order.side == "SELL")
        if order.position_side != "BOTH" and closes and order.quantity > abs(held):
            raise Refused(-2022, "ReduceOnly Order is rejected.")
        if order.time_in_force == "GTX" and self.market == "usdm" and self._crossing(order):
            message = "Due to the order could not be executed as maker, the Post Only order will be rejected."
            raise Refused(-5022, message)
        opening = max(ZERO, order.quantity - abs(held)) if against else order.quantity
        price = order.price or order.stop_price or self.mark(order.symbol)
        needed = nearest(value_of(order.terms, opening, price) / self.leverage(order.symbol))
        if needed > self.available(order.terms.margin):
            raise Refused(-2019, "Margin is insufficient.")

    def _enter(self, order: Order, now_ms: int) -> None:
        if order.order_id < 0:
            order.order_id = self._sequences.next("order", self.market, order.symbol)
        order.client_id = order.client_id or self._sequences.client_id()
        self.orders[order.order_id] = self._open[order.order_id] = order
        self._read_on(order.symbol)
        self._start_trailing(order)
        crossing = order.time_in_force == "GTX" and bool(self._crossing(order))
        self._tell_order(order, "NEW", now_ms)
        if crossing:
            self.expire(order, now_ms, "11")
        elif order.working and not self._scripted:
            self._take(order, now_ms)

    def _crossing(self, order: Order) -> list[tuple[Decimal, Decimal]]:
        if self._scripted:
            return []
        levels = best_levels(order.side, *self._venue.book(self.market, order.symbol))
        return take(levels, order.side, order.price if order.type in LIMITS else None, order.remaining)

    def _take(self, order: Order, now_ms: int) -> None:
        """Fill what crosses the book, then let the rest do what its type and time in force say."""
        fills = self._crossing(order)
        if order.time_in_force == "FOK" and sum((q for _, q in fills), ZERO) < order.remaining:
            self.expire(order, now_ms, "10" if self.market == "coinm" else "2")
            return
        for price, quantity in fills:
            allowed = self._reducible(order, quantity, now_ms)
            if not allowed:
                return
            self.fill(order, allowed, price, now_ms, maker=False)
        if order.open and order.type not in LIMITS:
            self.expire(order, now_ms, "9")
        elif order.open and order.time_in_force == "IOC":
            self.expire(order, now_ms, "2")

    def _reducible(self, order: Order, quantity: Decimal, now_ms: int) -> Decimal:
        """Return how much may fill; a reduce-only order without a position to reduce ends."""
        if not order.reduce_only:
            return quantity
        held = self._position(order.terms, order.position_side).amount
        against = (order.side == "BUY") == (held < 0) and bool(held)
        if not against:
            self.expire(order, now_ms, "4")
            return ZERO
        return min(quantity, abs(held))

    def _match_print(self, symbol: str, traded: Print) -> None:
        left = traded.quantity
        for order in self.open_orders(symbol):
            if not order.open:  # an earlier one in this very loop ended it
                continue
            if not order.working:
                if order.working_type == "CONTRACT_PRICE" and _triggers(order, traded.price):
                    self.trigger(order, traded.time_ms)
            elif left and order.type in LIMITS and reached(order.side, order.price, traded.price):
                quantity = self._reducible(order, min(left, order.remaining), traded.time_ms)
                if quantity:
                    left -= quantity
                    self.fill(order, quantity, order.price, traded.time_ms, maker=True)
        for algo in self.open_algos(symbol):
            if algo.draft.working_type == "CONTRACT_PRICE":
                self._follow_algo(algo, traded.price, traded.time_ms)

    def _match_mark(self, symbol: str, now_ms: int) -> None:
        mark = self.mark(symbol)
        for order in self.open_orders(symbol):
            if not order.working and order.working_type == "MARK_PRICE" and _triggers(order, mark):
                self.trigger(order, now_ms)
        for algo in self.open_algos(symbol):
            if algo.draft.working_type == "MARK_PRICE":
                self._follow_algo(algo, mark, now_ms)

    def _follow_algo(self, algo: AlgoOrder, price: Decimal, now_ms: int) -> None:
        waited = algo.draft.callback_rate is not None and algo.draft.extreme is None
        triggers = _triggers(algo.draft, price)
        if waited and algo.draft.extreme is not None:
            algo.activated, algo.updated_ms = True, now_ms
            self._tell(algo.event(now_ms, self.alias), now_ms)
        if triggers:
            self.trigger_algo(algo, now_ms)

    def _start_trailing(self, order: Order) -> None:
        if order.callback_rate is not None and order.activation is None and not self._scripted:
            order.extreme = self._venue.last_price(self.market, order.symbol)

    def _read_on(self, symbol: str) -> None:
        self._tape.setdefault(symbol, self._venue.position(self.market, symbol))

    @staticmethod
    def _become_plain(order: Order) -> None:
        order.type = "LIMIT" if order.type in LIMITS else "MARKET"

    def _close(self, order: Order, now_ms: int) -> None:
        order.updated_ms = now_ms
        self._open.pop(order.order_id, None)

    def _change_algo(self, algo: AlgoOrder, status: str, now_ms: int) -> None:
        algo.status, algo.updated_ms = status, now_ms
        self._tell(algo.event(now_ms, self.alias), now_ms)

    def _finish_algo(self, order: Order, now_ms: int) -> None:
        if order.open or order.original_type not in STOPS:
            return
        for algo in self.algos.values():
            if algo.order is order and algo.status == "TRIGGERED":
                self._change_algo(algo, "FINISHED", now_ms)

    # money

    def _position(self, terms: Terms, side: PositionSide) -> Position:
        found = self.positions.get((terms.symbol, side))
        if found is None:
            found = Position(terms=terms, side=side, isolated=terms.symbol in self.isolated)
            self.positions[terms.symbol, side] = found
        return found

    def _move(
        self, position: Position, side: Side, quantity: Decimal, price: Decimal, now_ms: int
    ) -> tuple[Decimal, Decimal]:
        """Change a position by a fill; return what it gained and what the fill was worth."""
        terms, direction = position.terms, 1 if side == "BUY" else -1
        closing = min(quantity, abs(position.amount)) if position.amount * direction < 0 else ZERO
        opening = quantity - closing
        realised = value = ZERO
        if closing:
            value = value_of(terms, closing, price)
            realised, released = position.gain(closing, value)
            whole = closing == abs(position.amount)
            position.wallet -= (
                position.wallet if whole else nearest(position.wallet * closing / abs(position.amount))
            )
            position.cost -= released
            position.amount += closing * direction
            position.realised += realised
            if whole:
                position.paid = ZERO
        if opening:
            worth = value_of(terms, opening, price)
            value += worth
            position.cost += worth
            position.amount += opening * direction
            if position.isolated:
                position.wallet += nearest(worth / self.leverage(terms.symbol))
        position.updated_ms = now_ms
        return realised, value

    def _book(
        self, asset: str, amount: Decimal, kind: str, symbol: str, now_ms: int, trade_id: int | None
    ) -> None:
        """Change a wallet and write it into the ledger."""
        wallet = self.wallets.setdefault(asset, Wallet())
        wallet.updated_ms = now_ms
        if not amount:
            return
        wallet.balance += amount
        transaction = self._sequences.next("transaction", self.market)
        info = str(trade_id) if trade_id is not None else kind
        self.income.append(Income(symbol, kind, amount, asset, info, now_ms, transaction, trade_id))

    # telling

    def _tell(self, event: Json, now_ms: int) -> None:
        self.told_ms = max(self.told_ms, now_ms)
        self._sink(event, now_ms)

    def _tell_account(
        self,
        reason: str,
        changes: dict[str, Decimal],
        positions: Iterable[Position],
        now_ms: int,
        *,
        symbol: str = "",
    ) -> None:
        balances = [
            {
                "a": asset,
                "wb": text(self.wallets.setdefault(asset, Wallet()).balance),
                "cw": text(self.cross_wallet(asset)),
                "bc": text(change) if change else "0",
            }
            for asset, change in changes.items()
        ]
        rows = [position.event_row(self.mark(position.terms.symbol)) for position in positions]
        inner: Json = {"m": reason, "B": balances, "P": rows}
        if symbol:
            inner["S"] = symbol
        account: Json = {"i": self.alias} if self.market == "coinm" else {}
        self._tell({"e": "ACCOUNT_UPDATE", "E": now_ms, "T": now_ms, **account, "a": inner}, now_ms)

    def _tell_order(self, order: Order, execution: str, now_ms: int, trade: Trade | None = None) -> None:
        bids, asks = (self._notional(order.symbol, side) for side in ("BUY", "SELL"))
        self._tell(order.event(execution, now_ms, (bids, asks), self.alias, trade), now_ms)

    def _notional(self, symbol: str, side: str) -> Decimal:
        found = (o for o in self._open.values() if o.symbol == symbol and o.side == side and o.price)
        return sum((value_of(o.terms, o.remaining, o.price) for o in found), ZERO)


def _triggers(order: Order, price: Decimal) -> bool:
    """Tell whether ``price`` triggers a stop; a trailing one is moved along."""
    if order.callback_rate is None:
        upwards = (order.side == "BUY") == order.original_type.startswith("STOP")
        return price >= order.stop_price if upwards else price <= order.stop_price
    buys = order.side == "BUY"
    if order.extreme is None:
        assert order.activation is not None
        if not (price <= order.activation if buys else price >= order.activation):
            return False
        order.extreme = price
    order.extreme = min(order.extreme, price) if buys else max(order.extreme, price)
    back = order.extreme * order.callback_rate / 100
    return price >= order.extreme + back if buys else price <= order.extreme - back
