"""Makes up the next step of an account's history: always one that the exchange takes, whatever came before."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from bridge.simulator.accounts.params import Params
from bridge.simulator.accounts.refusal import Refused, unknown_order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from bridge.model import Market
    from bridge.simulator.accounts.futures import FuturesAccount
    from bridge.simulator.accounts.futures_orders import Order as FuturesOrder
    from bridge.simulator.accounts.registry import Account
    from bridge.simulator.accounts.spot import SpotAccount
    from bridge.simulator.accounts.spot_orders import Order
    from bridge.simulator.accounts.venue import Terms


def improvise(random: Random, account: Account, market: Market, symbol: str, now_ms: int) -> None:
    """Take one step on one side of an account.

    Args:
        random: chooses.
        account: whose.
        market: of which side.
        symbol: the only symbol to touch; any of the first three where empty.
        now_ms: exchange time.
    """
    if market == "spot":
        _spot_step(random, account.spot, symbol, now_ms)
    else:
        _futures_step(random, account.futures(market), symbol, now_ms)


class _Spot(NamedTuple):
    """What a step on spot may use."""

    random: Random
    side: SpotAccount
    terms: Terms
    price: Decimal
    quantity: Decimal
    now_ms: int

    def any_order(self) -> Order:
        """Return an open order; there is none: the exchange does not know it."""
        found = [order for order in self.side.open_orders() if order.status != "PENDING_NEW"]
        if not found:
            raise unknown_order()
        return self.random.choice(found)

    def place(self) -> None:
        self.side.place(_order(self.random, self.terms, self.price, self.quantity), self.now_ms)

    def place_stop(self) -> None:
        self.side.place(_spot_stop(self.random, self.terms, self.price, self.quantity), self.now_ms)

    def place_list(self) -> None:
        last = self.side.last_price(self.terms.symbol)
        contingency, legs = _legs(self.random, self.terms, last, self.quantity)
        self.side.place_list(Params({}), contingency, legs, self.now_ms)

    def fill(self) -> None:
        order = self.any_order()
        part = _part(self.random, self.terms, order.remaining)
        self.side.fill(order, part, order.price or self.price, self.now_ms, maker=self.random.random() < 0.5)

    def cancel(self) -> None:
        self.side.cancel(self.any_order(), self.now_ms)

    def expire(self) -> None:
        self.side.expire(self.any_order(), self.now_ms, "EXCHANGE_CANCELED")

    def amend(self) -> None:
        order = self.any_order()
        self.side.amend(order, order.quantity - self.terms.step, self.now_ms, order.client_id)

    def trigger(self) -> None:
        self.side.trigger(self.any_order(), self.now_ms)

    def deposit(self) -> None:
        asset = self.random.choice((self.terms.base, self.terms.quote))
        self.side.deposit(asset, self.quantity * self.random.choice((1, 1, 1, -1)), self.now_ms)

    def lock(self) -> None:
        self.side.lock(self.terms.quote, self.terms.tick * self.random.choice((1, 2, -1)), self.now_ms)


class _Futures(NamedTuple):
    """What a step on futures may use."""

    random: Random
    side: FuturesAccount
    terms: Terms
    price: Decimal
    quantity: Decimal
    now_ms: int

    def any_order(self) -> FuturesOrder:
        """Return an open order; there is none: the exchange does not know it."""
        found = self.side.open_orders()
        if not found:
            raise unknown_order()
        return self.random.choice(found)

    def place(self) -> None:
        self.side.place(_order(self.random, self.terms, self.price, self.quantity), self.now_ms)

    def place_algo(self) -> None:
        stop = _futures_stop(self.random, self.terms, self.price, self.quantity)
        self.side.place_algo(stop, self.now_ms)

    def trigger(self) -> None:
        for algo in self.side.open_algos()[:1]:
            self.side.trigger_algo(algo, self.now_ms)

    def fill(self) -> None:
        order = self.any_order()
        part = _part(self.random, self.terms, order.remaining)
        self.side.fill(order, part, order.price or self.price, self.now_ms, maker=self.random.random() < 0.5)

    def cancel(self) -> None:
        self.side.cancel(self.any_order(), self.now_ms)

    def expire(self) -> None:
        self.side.expire(self.any_order(), self.now_ms, "0")

    def deposit(self) -> None:
        self.side.credit(self.terms.margin, Decimal(self.random.randrange(1, 1000)), "DEPOSIT", self.now_ms)

    def fund(self) -> None:
        rate = Decimal(self.random.randrange(-30, 30)) / 100_000
        self.side.fund(self.terms.symbol, rate, self.now_ms)

    def set_leverage(self) -> None:
        self.side.set_leverage(self.terms.symbol, self.random.randrange(1, 20), self.now_ms)

    def set_margin_type(self) -> None:
        symbol = self.terms.symbol
        self.side.set_margin_type(symbol, symbol not in self.side.isolated, self.now_ms)


# a move as often as it stands there
_SPOT_MOVES = (
    _Spot.place, _Spot.place, _Spot.place, _Spot.place_stop, _Spot.place_list, _Spot.fill, _Spot.fill, _Spot.fill,
    _Spot.cancel, _Spot.expire, _Spot.amend, _Spot.trigger, _Spot.deposit, _Spot.lock,
)  # fmt: skip
_FUTURES_MOVES = (
    _Futures.place, _Futures.place, _Futures.place, _Futures.place_algo, _Futures.trigger, _Futures.fill,
    _Futures.fill, _Futures.fill, _Futures.cancel, _Futures.expire, _Futures.deposit, _Futures.fund,
    _Futures.set_leverage, _Futures.set_margin_type,
)  # fmt: skip


def _spot_step(random: Random, spot: SpotAccount, symbol: str, now_ms: int) -> None:
    terms = spot.terms(symbol or random.choice(spot.symbols()[:3]))
    price = _ticked(terms, spot.last_price(terms.symbol) * random.randrange(900, 1100) / 1000)
    quantity = terms.step * random.randrange(1, 50)
    try:
        random.choice(_SPOT_MOVES)(_Spot(random, spot, terms, price, quantity, now_ms))
    except Refused:
        # what the account can't do does not happen; a step that always can takes its place
        spot.deposit(terms.quote, price * quantity, now_ms)


def _futures_step(random: Random, futures: FuturesAccount, symbol: str, now_ms: int) -> None:
    terms = futures.terms(symbol or random.choice(futures.symbols()[:3]))
    price = _ticked(terms, futures.mark(terms.symbol) * random.randrange(950, 1050) / 1000)
    quantity = terms.step * random.randrange(1, 50)
    try:
        random.choice(_FUTURES_MOVES)(_Futures(random, futures, terms, price, quantity, now_ms))
    except Refused:
        futures.credit(terms.margin, Decimal(random.randrange(1000, 9000)), "DEPOSIT", now_ms)


def _order(random: Random, terms: Terms, price: Decimal, quantity: Decimal) -> Params:
    side = random.choice(("BUY", "SELL"))
    fields = {"symbol": terms.symbol, "side": side, "quantity": f"{quantity:f}"}
    if random.randrange(4) == 0:
        return Params({**fields, "type": "MARKET"})
    return Params({**fields, "type": "LIMIT", "timeInForce": "GTC", "price": f"{price:f}"})


def _spot_stop(random: Random, terms: Terms, price: Decimal, quantity: Decimal) -> Params:
    fields = {"symbol": terms.symbol, "side": random.choice(("BUY", "SELL")), "quantity": f"{quantity:f}"}
    kind = random.choice(("STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"))
    fields |= {"type": kind, "stopPrice": f"{price:f}"}
    if kind.endswith("LIMIT"):
        fields |= {"timeInForce": "GTC", "price": f"{price:f}"}
    return Params(fields)


def _legs(
    random: Random, terms: Terms, last: Decimal, quantity: Decimal
) -> tuple[str, tuple[Params, Params]]:
    """Return an OCO around the price, or a purchase with a sale behind it."""
    above, below = _ticked(terms, last * Decimal("1.02")), _ticked(terms, last * Decimal("0.98"))
    common = {"symbol": terms.symbol, "quantity": f"{quantity:f}", "timeInForce": "GTC"}
    if random.randrange(2):
        buy = {**common, "side": "BUY", "type": "LIMIT", "price": f"{below:f}"}
        return "OTO", (
            Params(buy),
            Params({**common, "side": "SELL", "type": "LIMIT", "price": f"{above:f}"}),
        )
    side = random.choice(("BUY", "SELL"))
    best, worst = (below, above) if side == "BUY" else (above, below)
    stop = {"type": "STOP_LOSS_LIMIT", "stopPrice": f"{worst:f}", "price": f"{worst:f}"}
    maker = {"type": "LIMIT_MAKER", "price": f"{best:f}"}
    return "OCO", (Params({**common, "side": side, **maker}), Params({**common, "side": side, **stop}))


def _futures_stop(random: Random, terms: Terms, price: Decimal, quantity: Decimal) -> Params:
    fields = {"symbol": terms.symbol, "side": random.choice(("BUY", "SELL")), "quantity": f"{quantity:f}"}
    kind = random.choice(("STOP_MARKET", "TAKE_PROFIT_MARKET"))
    reduces = random.choice(("true", "false"))
    return Params({**fields, "type": kind, "triggerPrice": f"{price:f}", "reduceOnly": reduces})


def _part(random: Random, terms: Terms, remaining: Decimal) -> Decimal:
    steps: Sequence[int] = (1, 2, 3)
    return max(terms.step, remaining * random.choice(steps) // 3 // terms.step * terms.step)


def _ticked(terms: Terms, price: Decimal) -> Decimal:
    return max(terms.tick, price // terms.tick * terms.tick)
