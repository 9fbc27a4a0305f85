"""Index prices of pairs, mark prices and funding rates of contracts; renewed every second from the books."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.simulator.market.bars import HOUR, MINUTE, Bar, History
from bridge.simulator.market.instruments import PERPETUAL_DELIVERY_MS, power_of_ten
from bridge.simulator.market.payloads import Pricing

if TYPE_CHECKING:
    from bridge.simulator.market.listing import Listing

_INTEREST = 10_000  # 0.01 % per period, in 1e-8
_DAMPER = 50_000
_CAP = 300_000


class IndexPrice:
    """The index of one pair: follows the pair's most active contract.

    Attributes:
        pair: the pair.
        value: in units of 1e-8.
        history: its bars.
    """

    __slots__ = ("_source", "history", "pair", "value")

    def __init__(self, source: Listing) -> None:
        self._source = source
        self.pair = source.instrument.pair
        self.value = _middle(source)
        self.history = History(lambda: _sampled(source))

    def renew(self, now: int) -> None:
        """Take the next sample."""
        self.value += (_middle(self._source) - self.value) // 4
        self.history.add(now, self.value, 0, 0, item=now, update_id=-1, taker_buys=False)


class ContractPrice:
    """Mark price and funding of one contract.

    Attributes:
        listing: the contract.
        index: the index of its pair.
        now: its prices.
        history: bars of the mark price.
    """

    __slots__ = ("_premium", "history", "index", "listing", "now")

    def __init__(self, listing: Listing, index: IndexPrice) -> None:
        self.listing, self.index = listing, index
        middle = _middle(listing)
        self._premium = 0
        self.now = Pricing(middle, middle, middle, index.value, 0, 0)
        self.history = History(lambda: _sampled(listing))

    def renew(self, now: int) -> None:
        """Take the next sample."""
        mark, average, settle, _, _, _ = self.now
        index = self.index.value
        mark += (_middle(self.listing) - mark) // 2
        average += (mark - average) // 30
        settle += (index - settle) // 60
        if self.listing.instrument.delivery_ms == PERPETUAL_DELIVERY_MS:
            self._premium += ((mark - index) * 10**8 // index - self._premium) // 60
            rate = self._premium + max(-_DAMPER, min(_DAMPER, _INTEREST - self._premium))
            self.now = Pricing(mark, average, settle, index, max(-_CAP, min(_CAP, rate)), next_funding(now))
        else:
            self.now = Pricing(mark, average, settle, index, None, 0)
        self.history.add(now, mark, 0, 0, item=now, update_id=-1, taker_buys=False)


def next_funding(now: int) -> int:
    """Return the next funding time after ``now``: 00:00, 08:00 or 16:00 UTC."""
    return (now // (8 * HOUR) + 1) * 8 * HOUR


def unit_of(listing: Listing) -> int:
    """Return a tick in units of 1e-8."""
    instrument = listing.instrument
    return instrument.tick_units * power_of_ten(8 - instrument.price_digits)


def _middle(listing: Listing) -> int:
    bid, _, ask, _ = listing.book.best()
    return (bid + ask) * unit_of(listing) // 2


def _sampled(listing: Listing) -> tuple[list[Bar], list[Bar], list[Bar]]:
    """Return the contract's own past as if its prices had been sampled every second."""
    unit = unit_of(listing)

    def sampled(bars: list[Bar], length: int) -> list[Bar]:
        seconds = length // 1000
        return [
            Bar(
                bar.open_ms, bar.open * unit, bar.high * unit, bar.low * unit, bar.close * unit, 0, 0, seconds, 0, 0,
                bar.open_ms, bar.open_ms + length - 1000, -1, -1,
            )
            for bar in bars
        ]  # fmt: skip

    days, hours, minutes = listing.past()
    return sampled(days, 24 * HOUR), sampled(hours, HOUR), sampled(minutes, MINUTE)
