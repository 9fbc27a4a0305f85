"""The made-up market as accounts see it."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from bridge.simulator.accounts.venue import Level, Print, Terms
from bridge.simulator.market.tape import NOT_EXECUTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bridge.model import Market
    from bridge.simulator.market.listing import Listing
    from bridge.simulator.market.world import World

_DEEP = 500


class MadeUpVenue:
    """Prices and trades of a :class:`World`.

    Args:
        world: the market's state; only looked at.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._terms: dict[tuple[Market, str], Terms] = {}

    def terms(self, market: Market, symbol: str) -> Terms | None:
        """See :class:`~bridge.simulator.accounts.venue.Venue`."""
        found = self._terms.get((market, symbol))
        if found is None and (listing := self._world.listings[market].get(symbol)) is not None:
            found = self._terms[market, symbol] = _terms_of(listing)
        return found

    def symbols(self, market: Market) -> Sequence[str]:
        """See :class:`~bridge.simulator.accounts.venue.Venue`."""
        return list(self._world.listings[market])

    def book(self, market: Market, symbol: str) -> tuple[Sequence[Level], Sequence[Level]]:
        """See :class:`~bridge.simulator.accounts.venue.Venue`."""
        terms = self._known(market, symbol)
        bids, asks = self._world.listings[market][symbol].book.top(_DEEP)
        return (
            [Level(price * terms.tick, lots * terms.step) for price, lots in bids],
            [Level(price * terms.tick, lots * terms.step) for price, lots in asks],
        )

    def position(self, market: Market, symbol: str) -> int:
        """See :class:`~bridge.simulator.accounts.venue.Venue`."""
        return self._world.listings[market][symbol].tape.trades.next_id

    def prints(self, market: Market, symbol: str, since: int) -> Iterator[Print]:
        """See :class:`~bridge.simulator.accounts.venue.Venue`."""
        terms, tape = self._known(market, symbol), self._world.listings[market][symbol].tape
        for trade in tape.read_trades(since, tape.trades.next_id):
            if not trade.flags & NOT_EXECUTED:
                yield Print(trade.price * terms.tick, trade.lots * terms.step, trade.time_ms)

    def last_price(self, market: Market, symbol: str) -> Decimal:
        """See :class:`~bridge.simulator.accounts.venue.Venue`."""
        return self._world.listings[market][symbol].last_price * self._known(market, symbol).tick

    def mark_price(self, symbol: str) -> Decimal:
        """See :class:`~bridge.simulator.accounts.venue.Venue`."""
        return Decimal(self._world.prices[symbol].now.mark).scaleb(-8)

    def _known(self, market: Market, symbol: str) -> Terms:
        terms = self.terms(market, symbol)
        assert terms is not None, symbol
        return terms


def _terms_of(listing: Listing) -> Terms:
    instrument = listing.instrument
    return Terms(
        instrument.market,
        instrument.symbol,
        instrument.base,
        instrument.quote,
        instrument.margin,
        instrument.pair,
        # a tick of 0.10 keeps its two decimals: the exchange prints as many
        Decimal(instrument.tick_units).scaleb(-instrument.price_digits),
        Decimal(1).scaleb(-instrument.quantity_digits),
        Decimal(instrument.contract_size),
    )
