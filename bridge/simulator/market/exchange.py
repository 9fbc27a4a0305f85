"""The made-up exchange: three markets from one seed, moved on by simulated time."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from bridge.simulator.market.bars import MINUTE
from bridge.simulator.market.occasions import Occasions
from bridge.simulator.market.rest import Rest
from bridge.simulator.market.streams import well_formed
from bridge.simulator.market.subscriptions import Subscriptions
from bridge.simulator.market.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bridge.model import Market
    from bridge.simulator.exchange import Answer, Emission

_PULSE = 50
"""All paces are multiples of this many milliseconds."""
_BEFORE_START = 120_000
_MOST_BEFORE_START = 20_000


class MarketExchange:
    """A coherent market of any size and pace; implements :class:`bridge.simulator.exchange.Exchange`.

    The same seed, sizes and start, and the same calls of ``track`` at the same times, give the same bytes.

    Args:
        seed: decides everything.
        symbols: names listed in each market (never fewer than those always listed, see
            :func:`~bridge.simulator.market.instruments.listed`).
        rate: orders placed, withdrawn and taken per second, over all symbols of all markets.
        start_ms: exchange time to begin at; about two minutes of trading lie before it.
        rest_retention: how many trades and aggregate trades REST remembers of each symbol.

    Attributes:
        world: the markets' state, for tests to look at.
    """

    def __init__(
        self, seed: int, symbols: int, rate: float, start_ms: int, *, rest_retention: int = 20_000
    ) -> None:
        if rate <= 0:
            raise ValueError(f"rate must be positive, not {rate}")
        if rest_retention < 1:
            raise ValueError(f"rest_retention must be at least 1, not {rest_retention}")
        random = Random(f"market {seed}")  # noqa: S311 - a market, not a secret
        begin = (start_ms - _BEFORE_START) // MINUTE * MINUTE
        self._draw = random.getrandbits
        self._out: list[Emission] = []
        self.world = World(random, symbols, begin, rest_retention, self._out)
        self._occasions = Occasions(random, self.world)
        self._subscriptions = Subscriptions(self.world, self._occasions)
        self._rest = Rest(self.world)
        self._deck = self.world.deck()
        self._next_us, self._next_pulse = begin * 1000, begin
        # the past is thinner than what follows where the rate is high, so that starting stays quick
        self._mean_us = _mean_us(min(rate, _MOST_BEFORE_START * 1000 / (start_ms - begin)))
        for _ in self.advance(start_ms):
            raise AssertionError("an event of a stream that nobody asked for")
        self._mean_us = _mean_us(rate)

    def advance(self, until_ms: int) -> Iterator[Emission]:
        """Yield every event of every tracked stream up to and including ``until_ms``, in order."""
        out, draw, deck, cards, mean = self._out, self._draw, self._deck, len(self._deck), self._mean_us
        end_us = until_ms * 1000 + 999
        next_us = self._next_us
        while True:
            stop_us = min(self._next_pulse * 1000, end_us + 1)
            while next_us < stop_us:
                bits = draw(96)
                listing = deck[(bits & 0xFFFFF) * cards >> 20]
                if listing.status == "TRADING":
                    listing.happen(bits >> 32, next_us // 1000)
                next_us += 1 + ((bits >> 20 & 0xFFF) * mean >> 11)
                if out:
                    yield from out
                    out.clear()
            self._next_us = next_us
            if self._next_pulse > until_ms:
                break
            self._pulse(self._next_pulse)
            self._next_pulse += _PULSE
            if out:
                yield from out
                out.clear()
        self.world.now = max(self.world.now, until_ms)

    def _pulse(self, now: int) -> None:
        """Do what is due at ``now``, before anything that happens at ``now`` itself."""
        if not now % 1000:
            self.world.each_second(now)
            self._occasions.each_second(now)
        if not now % 100:
            for listing in self.world.futures:
                listing.flush(now)
        self._subscriptions.publish(now)

    def track(self, market: Market, stream: str) -> bool:
        """Start making the events of ``stream``; False where the name is malformed."""
        if not well_formed(stream):
            return False
        self._subscriptions.start(market, stream)
        return True

    def rest(self, market: Market, method: str, path: str, params: Mapping[str, str], now_ms: int) -> Answer:
        """Answer a public REST request from the state of the last ``advance``."""
        return self._rest.answer(market, method, path, params, now_ms)


def _mean_us(rate: float) -> int:
    return max(1, round(1_000_000 / rate))
