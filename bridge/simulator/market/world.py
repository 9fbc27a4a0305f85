"""Everything the made-up exchange knows: the symbols of three markets, and the prices derived from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.market.book import UpdateIds
from bridge.simulator.market.instruments import listed
from bridge.simulator.market.listing import Listing
from bridge.simulator.market.pricing import ContractPrice, IndexPrice

if TYPE_CHECKING:
    from random import Random

    from bridge.model import Market
    from bridge.simulator.exchange import Emission

_SHARES: dict[Market, float] = {"spot": 1.0, "usdm": 1.2, "coinm": 0.6}
_CARDS = 64
"""Cards in the deck per symbol, on average."""


class World:
    """The markets' state.

    Attributes:
        now: exchange time up to which everything happened.
        listings: each market's symbols, most active first.
        futures: all contracts, usdm first.
        indexes: index prices by pair.
        prices: mark prices by contract symbol.
        out: events of tracked streams, as they happen.
    """

    def __init__(self, random: Random, symbols: int, begin: int, retention: int, out: list[Emission]) -> None:
        self.now = begin
        self.out = out
        self._random = random
        self.listings: dict[Market, dict[str, Listing]] = {}
        contract_ids = UpdateIds(9_000_000_000_000 + random.getrandbits(40), jumping=True)
        for market in _SHARES:
            of_market = self.listings[market] = {}
            for rank, instrument in enumerate(listed(market, symbols, begin)):
                ids = contract_ids
                if market == "spot":
                    ids = UpdateIds(10_000_000_000 + random.getrandbits(36), jumping=False)
                of_market[instrument.symbol] = Listing(
                    instrument, random, ids, out, rank=rank, start_ms=begin, retention=retention
                )
        self._lower = {
            market: {symbol.lower(): listing for symbol, listing in of_market.items()}
            for market, of_market in self.listings.items()
        }
        self.futures = [*self.listings["usdm"].values(), *self.listings["coinm"].values()]
        self.indexes: dict[str, IndexPrice] = {}
        for listing in self.futures:
            if listing.instrument.pair not in self.indexes:
                self.indexes[listing.instrument.pair] = IndexPrice(listing)
        self.prices = {
            listing.instrument.symbol: ContractPrice(listing, self.indexes[listing.instrument.pair])
            for listing in self.futures
        }

    def deck(self) -> list[Listing]:
        """Return all symbols, each as often as it is active: most often the first of a market."""
        cards: list[Listing] = []
        count = _CARDS * sum(len(of_market) for of_market in self.listings.values())
        for market, share in _SHARES.items():
            of_market = self.listings[market].values()
            weights = [1 / (rank + 1) ** 0.7 for rank in range(len(of_market))]
            unit = share / sum(_SHARES.values()) * count / sum(weights)
            for listing, weight in zip(of_market, weights, strict=True):
                cards += [listing] * max(1, round(weight * unit))
        return cards

    def streamed(self, market: Market, symbol: str) -> Listing | None:
        """Return the symbol that a stream name's lower-case ``symbol`` means."""
        return self._lower[market].get(symbol)

    def contract(self, symbol: str) -> Listing | None:
        """Return the contract of either product that a stream name means."""
        return self.streamed("usdm", symbol) or self.streamed("coinm", symbol)

    def contract_of(self, pair: str, contract_type: str) -> Listing | None:
        """Return a pair's contract of a type (both in any case)."""
        for listing in self.futures:
            instrument = listing.instrument
            if instrument.pair == pair.upper() and instrument.contract_type == contract_type.upper():
                return listing
        return None

    def each_second(self, now: int) -> None:
        """Renew what is renewed every second."""
        for of_market in self.listings.values():
            for listing in of_market.values():
                listing.drift(self._random)
        for index in self.indexes.values():
            index.renew(now)
        for price in self.prices.values():
            price.renew(now)
        for listing in self.futures:
            listing.told_liquidation, listing.liquidation = listing.liquidation, None
