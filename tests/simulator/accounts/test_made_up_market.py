"""Accounts on the made-up market: orders fill by its trades, never move it, and the same seed repeats everything."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal

import pytest

from bridge.simulator.accounts.made_up_venue import MadeUpVenue
from bridge.simulator.accounts.registry import Registry, UserEvent
from bridge.simulator.market import MarketExchange
from tests.simulator.accounts.stage import NOW, limit, market

SYMBOLS = {"spot": "BTCUSDT", "usdm": "BTCUSDT", "coinm": "BTCUSD_PERP"}
TRADES = {"spot": "/api/v3/trades", "usdm": "/fapi/v1/trades", "coinm": "/dapi/v1/trades"}


class Trading:
    """An account that buys at the best bid and sells at the market, step by step."""

    def __init__(self, *, trades: bool = True) -> None:
        self.exchange = MarketExchange(5, 2, 400, NOW)
        self.told: list[UserEvent] = []
        venue = MadeUpVenue(self.exchange.world)
        self.account = Registry(venue, 5, self.told.append).open("main")
        self.public = [self.exchange.track(m, f"{s.lower()}@trade") for m, s in SYMBOLS.items()]
        self.made: list[bytes] = []
        self.account.spot.deposit("USDT", Decimal(10**6), NOW)
        self.account.spot.deposit("BTC", Decimal(10), NOW)
        self.account.usdm.credit("USDT", Decimal(10**6), "DEPOSIT", NOW)
        self.account.coinm.credit("BTC", Decimal(10), "DEPOSIT", NOW)
        for step in range(10):
            now = NOW + 500 * (step + 1)
            self.made += [emission.data for emission in self.exchange.advance(now)]
            self.account.match(now)
            if trades:
                self._trade(venue, now)

    def _trade(self, venue: MadeUpVenue, now: int) -> None:
        for of, symbol in SYMBOLS.items():
            side = self.account.spot if of == "spot" else self.account.futures(of)
            terms = side.terms(symbol)
            bids, _ = venue.book(of, symbol)
            quantity = f"{terms.step * 40:f}"
            side.place(limit("BUY", f"{terms.step * 1000:f}", f"{bids[0].price:f}", symbol=symbol), now)
            side.place(market("SELL", quantity, symbol=symbol), now)


def test_private_orders_do_not_move_the_market() -> None:
    """The public events are the same, byte for byte, whether or not an account trades."""
    assert Trading().made == Trading(trades=False).made


def test_the_same_seed_makes_the_same_history() -> None:
    """Ids, times, fills: two runs tell the same events."""
    assert Trading().told == Trading().told


@pytest.mark.parametrize("of", list(SYMBOLS))
def test_resting_orders_fill_where_the_market_trades(of: str) -> None:
    """Each fill of a resting order is at its price, at the time of a public trade at that price or a lower one."""
    trading = Trading()
    query = {"symbol": SYMBOLS[of], "limit": "1000"}
    answer = trading.exchange.rest(of, "GET", TRADES[of], query, NOW)
    public = [(t["time"], Decimal(t["price"])) for t in json.loads(answer.body)]
    side = trading.account.spot if of == "spot" else trading.account.futures(of)
    made = [trade for trade in side.trades if trade.maker]
    assert made
    for trade in made:
        assert any(time == trade.time_ms and price <= trade.price for time, price in public), trade
    assert max(Counter(trade.order_id for trade in made).values()) > 1, "some orders fill in parts"


def test_events_never_go_back_in_time() -> None:
    """Each side's events are in the order of their times, whatever happened within a tick."""
    told = Trading().told
    for of in SYMBOLS:
        times = [event.event_time_ms for event in told if event.market == of]
        assert times == sorted(times)
