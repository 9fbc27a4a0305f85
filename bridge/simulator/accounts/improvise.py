"""Makes up the next step of an account's history: always one that the exchange takes, whatever came before."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from bridge.simulator.accounts.params import Params
from bridge.simulator.accounts.refusal import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from bridge.model import Market
    from bridge.simulator.accounts.futures import FuturesAccount
    from bridge.simulator.accounts.registry import Account
    from bridge.simulator.accounts.spot import SpotAccount
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


def _spot_step(random: Random, spot: SpotAccount, symbol: str, now_ms: int) -> None:
    terms = spot.terms(symbol or random.choice(spot.symbols()[:3]))
    price = _ticked(terms, spot.last_price(terms.symbol) * random.randrange(900, 1100) / 1000)
    quantity = terms.step * random.randrange(1, 50)
    open_orders = [order for order in spot.open_orders() if order.status != "PENDING_NEW"]
    move = random.randrange(10)
    try:
        if move == 0:
            asset = random.choice((terms.base, terms.quote))
            spot.deposit(asset, quantity * random.choice((1, 1, 1, -1)), now_ms)
        elif move == 1:
            spot.lock(terms.quote, terms.tick * random.choice((1, 2, -1)), now_ms)
        elif move < 5 or not open_orders:
            spot.place(_order(random, terms, price, quantity), now_ms)
        else:
            order = random.choice(open_orders)
            if move == 5:
                spot.cancel(order, now_ms)
            elif move == 6:
                spot.expire(order, now_ms, "EXCHANGE_CANCELED")
            elif move == 7 and order.remaining > terms.step:
                spot.amend(order, order.quantity - terms.step, now_ms, order.client_id)
            else:
                part = _part(random, terms, order.remaining)
                spot.fill(order, part, order.price or price, now_ms, maker=random.random() < 0.5)
    except Refused:
        # what the account can't pay for does not happen; a step that always can takes its place
        spot.deposit(terms.quote, price * quantity, now_ms)


def _futures_step(random: Random, futures: FuturesAccount, symbol: str, now_ms: int) -> None:
    terms = futures.terms(symbol or random.choice(futures.symbols()[:3]))
    price = _ticked(terms, futures.mark(terms.symbol) * random.randrange(950, 1050) / 1000)
    quantity = terms.step * random.randrange(1, 50)
    open_orders = futures.open_orders()
    move = random.randrange(12)
    try:
        if move == 0:
            futures.credit(terms.margin, Decimal(random.randrange(1, 1000)), "DEPOSIT", now_ms)
        elif move == 1:
            futures.fund(terms.symbol, Decimal(random.randrange(-30, 30)) / 100_000, now_ms)
        elif move == 2:
            futures.set_leverage(terms.symbol, random.randrange(1, 20), now_ms)
        elif move == 3:
            futures.set_margin_type(terms.symbol, terms.symbol not in futures.isolated, now_ms)
        elif move < 7 or not open_orders:
            futures.place(_order(random, terms, price, quantity), now_ms)
        else:
            order = random.choice(open_orders)
            if move == 7:
                futures.cancel(order, now_ms)
            elif move == 8:
                futures.expire(order, now_ms, "0")
            else:
                part = _part(random, terms, order.remaining)
                futures.fill(order, part, order.price or price, now_ms, maker=random.random() < 0.5)
    except Refused:
        futures.credit(terms.margin, Decimal(random.randrange(1000, 9000)), "DEPOSIT", now_ms)


def _order(random: Random, terms: Terms, price: Decimal, quantity: Decimal) -> Params:
    side = random.choice(("BUY", "SELL"))
    fields = {"symbol": terms.symbol, "side": side, "quantity": f"{quantity:f}"}
    if random.randrange(4) == 0:
        return Params({**fields, "type": "MARKET"})
    return Params({**fields, "type": "LIMIT", "timeInForce": "GTC", "price": f"{price:f}"})


def _part(random: Random, terms: Terms, remaining: Decimal) -> Decimal:
    steps: Sequence[int] = (1, 2, 3)
    return max(terms.step, remaining * random.choice(steps) // 3 // terms.step * terms.step)


def _ticked(terms: Terms, price: Decimal) -> Decimal:
    return max(terms.tick, price // terms.tick * terms.tick)
