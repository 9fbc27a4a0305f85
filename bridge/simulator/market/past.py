"""The time before the market began: a random walk backwards, bar by bar, from the first price."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from bridge.simulator.market.bars import DAY, HOUR, MINUTE, Bar

if TYPE_CHECKING:
    from bridge.simulator.market.instruments import Instrument

# how far back minutes, hours and days reach: of the head of a market, and of its tail
_HEAD = (25 * HOUR, 30 * DAY, 1_000 * DAY)
_TAIL = (3 * HOUR, 2 * DAY, 120 * DAY)


def made_up(
    seed: str,
    instrument: Instrument,
    *,
    end_ms: int,
    price: int,
    first_trade: int,
    usual_lots: int,
    head: bool,
) -> tuple[list[Bar], list[Bar], list[Bar]]:
    """Return bars of days, hours and minutes that end at ``end_ms`` (a whole minute) with ``price``.

    The tail of a market has a shorter past in coarser bars, so that many symbols take little time and memory.
    Trade ids count down from ``first_trade``, so the made-up past and the market's trades are one sequence.
    """
    walk = _Walk(Random(seed), instrument, price, first_trade, usual_lots)  # noqa: S311 - a market, not a secret
    minutes_back, hours_back, days_back = _HEAD if head else _TAIL
    minutes_from = (end_ms - minutes_back) // HOUR * HOUR
    hours_from = minutes_from // DAY * DAY - hours_back
    minutes = walk.back(end_ms, minutes_from, MINUTE)
    hours = walk.back(minutes_from, hours_from, HOUR)
    return walk.back(hours_from, hours_from - days_back, DAY), hours, minutes


class _Walk:
    def __init__(
        self, random: Random, instrument: Instrument, price: int, first_trade: int, usual_lots: int
    ) -> None:
        self._bits = random.getrandbits
        self._instrument, self._usual_lots = instrument, usual_lots
        self._anchor = self._price = price
        self._next_id = first_trade

    def back(self, end_ms: int, start_ms: int, length: int) -> list[Bar]:
        """Return the bars of ``length`` from ``start_ms`` to ``end_ms``, oldest first."""
        scale = self._anchor // {MINUTE: 4_000, HOUR: 500, DAY: 60}[length] + 1
        opens = range(end_ms - length, start_ms - 1, -length)
        bars = [self._bar(open_ms, scale, length // MINUTE) for open_ms in opens]
        bars.reverse()
        return bars

    def _bar(self, open_ms: int, scale: int, minutes: int) -> Bar:
        bits = self._bits(64)
        close = self._price
        pull = (self._anchor - close) // 40
        opened = max(self._anchor // 4 + 1, close + pull + (scale * ((bits & 0x3FF) - 512) >> 9))
        high = max(opened, close) + (scale * (bits >> 10 & 0xFF) >> 8)
        low = max(1, min(opened, close) - (scale * (bits >> 18 & 0xFF) >> 8))
        count = (1 + (bits >> 26 & 31)) * minutes
        lots = count * (1 + (self._usual_lots * (bits >> 31 & 0xFF) >> 8))
        buy_lots = lots * (90 + (bits >> 39 & 63)) >> 8
        middle = (high + low) // 2
        last, self._next_id = self._next_id - 1, self._next_id - count
        self._price = opened
        quote_of = self._instrument.quote_of
        return Bar(
            open_ms, opened, high, low, close, lots, quote_of(middle, lots), count,
            buy_lots, quote_of(middle, buy_lots), self._next_id, last, -1, -1,
        )  # fmt: skip
