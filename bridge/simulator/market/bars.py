"""Bars (klines) of any interval, made from the bars of a minute.

A history holds, oldest first, bars of a day, then of an hour, then of a minute; what happened before the
market's start is made up from the seed, on first use. Only bars with trades are held. Everything is integers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
_MONDAY = 4 * DAY  # the epoch was a Thursday
_MINUTES_KEPT, _HOURS_KEPT = 3_000, 1_500

INTERVALS: dict[str, int] = {
    "1s": SECOND, "1m": MINUTE, "3m": 3 * MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "30m": 30 * MINUTE,
    "1h": HOUR, "2h": 2 * HOUR, "4h": 4 * HOUR, "6h": 6 * HOUR, "8h": 8 * HOUR, "12h": 12 * HOUR,
    "1d": DAY, "3d": 3 * DAY, "1w": 7 * DAY, "1M": 0,
}  # fmt: skip
"""Milliseconds of each interval; 0 for the calendar month."""


class Bar(NamedTuple):
    """One bar. Prices in ticks, volume in lots, quote volume in the instrument's units.

    Attributes:
        open_ms: when it opens.
        open: first price.
        high: highest price.
        low: lowest price.
        close: last price.
        lots: volume.
        quote: quote volume (base volume on coinm).
        trades: number of trades (samples, of an index or mark price).
        buy_lots: volume of taker buys.
        buy_quote: quote volume of taker buys.
        first: first trade id (a time, of an index or mark price); -1 without trades.
        last: last trade id.
        first_update: book update id at the first trade; -1 where unknown.
        last_update: book update id at the last trade.
    """

    open_ms: int
    open: int
    high: int
    low: int
    close: int
    lots: int
    quote: int
    trades: int
    buy_lots: int
    buy_quote: int
    first: int
    last: int
    first_update: int
    last_update: int


Past = Callable[[], tuple[list[Bar], list[Bar], list[Bar]]]
"""Makes up the bars of days, hours and minutes before the market began."""


def flat(open_ms: int, price: int) -> Bar:
    """Return a bar without trades."""
    return Bar(open_ms, price, price, price, price, 0, 0, 0, 0, 0, -1, -1, -1, -1)


def merged(open_ms: int, bars: Sequence[Bar]) -> Bar:
    """Return the bar from ``open_ms`` that consecutive ``bars`` (at least one, all with trades) make up."""
    if len(bars) == 1:
        return bars[0] if bars[0].open_ms == open_ms else bars[0]._replace(open_ms=open_ms)
    columns = tuple(zip(*bars, strict=True))
    oldest, newest = bars[0], bars[-1]
    return Bar(
        open_ms, oldest.open, max(columns[2]), min(columns[3]), newest.close,
        sum(columns[5]), sum(columns[6]), sum(columns[7]), sum(columns[8]), sum(columns[9]),
        oldest.first, newest.last, oldest.first_update, newest.last_update,
    )  # fmt: skip


class OpenBar:
    """A bar that still changes."""

    __slots__ = (
        "buy_lots", "buy_quote", "close", "first", "first_update", "high", "last", "last_update",
        "lots", "low", "open", "open_ms", "quote", "trades",
    )  # fmt: skip

    def __init__(self, open_ms: int, price: int, first: int, first_update: int) -> None:
        self.open_ms = open_ms
        self.open = self.high = self.low = self.close = price
        self.lots = self.quote = self.trades = self.buy_lots = self.buy_quote = 0
        self.first = self.last = first
        self.first_update = self.last_update = first_update

    def add(
        self, price: int, lots: int, quote: int, last: int, last_update: int, *, taker_buys: bool
    ) -> None:
        """Take in a trade (or a sample, with no lots)."""
        self.close = price
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        self.lots += lots
        self.quote += quote
        self.trades += 1
        if taker_buys:
            self.buy_lots += lots
            self.buy_quote += quote
        self.last, self.last_update = last, last_update

    def bar(self) -> Bar:
        """Return it as it is now."""
        return Bar(
            self.open_ms, self.open, self.high, self.low, self.close, self.lots, self.quote, self.trades,
            self.buy_lots, self.buy_quote, self.first, self.last, self.first_update, self.last_update,
        )  # fmt: skip


def open_of(interval: str, time_ms: int, offset_ms: int = 0) -> int:
    """Return when the bar of ``interval`` that holds ``time_ms`` opens; ``offset_ms`` is the time zone's."""
    length = INTERVALS[interval]
    local = time_ms + offset_ms
    if interval == "1w":
        return (local - _MONDAY) // length * length + _MONDAY - offset_ms
    if length:
        return local // length * length - offset_ms
    month = datetime.fromtimestamp(local / 1000, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    return int(month.timestamp()) * 1000 - offset_ms


def next_open(interval: str, open_ms: int, offset_ms: int = 0) -> int:
    """Return when the bar after the one that opens at ``open_ms`` opens."""
    length = INTERVALS[interval]
    return open_ms + length if length else open_of(interval, open_ms + 32 * DAY, offset_ms)


class History:
    """All bars of one price: closed ones and the minute that is open.

    Args:
        before: makes up, on first use, the bars of days, hours and minutes before the market began.
    """

    __slots__ = ("_before", "_closed", "_days", "_hours", "live")

    def __init__(self, before: Past) -> None:
        self._before: Past | None = before
        self._days: list[Bar] = []
        self._hours: list[Bar] = []
        self._closed: list[Bar] = []
        self.live: OpenBar | None = None

    def add(
        self, time_ms: int, price: int, lots: int, quote: int, *, item: int, update_id: int, taker_buys: bool
    ) -> None:
        """Take in a trade (or a sample) with id ``item`` at ``time_ms``; times never go back."""
        live = self.live
        if live is None or time_ms - live.open_ms >= MINUTE:
            self.roll(time_ms)
            live = self.live = OpenBar(time_ms - time_ms % MINUTE, price, item, update_id)
        live.add(price, lots, quote, item, update_id, taker_buys=taker_buys)

    def roll(self, now_ms: int) -> None:
        """Close the open minute if it is over at ``now_ms``."""
        live = self.live
        if live is None or now_ms - live.open_ms < MINUTE:
            return
        self._closed.append(live.bar())
        self.live = None
        if len(self._closed) > _MINUTES_KEPT + 600:
            self._reach_back()
            self._fold()

    def since(self, time_ms: int, now_ms: int) -> Sequence[Bar]:
        """Return the closed bars that open at ``time_ms`` or later, oldest first."""
        self._reach_back()
        self.roll(now_ms)
        if time_ms >= self._minutes_from():
            return self._closed[bisect_left(self._closed, (time_ms,)) :]
        bars = self._days + self._hours + self._closed
        return bars[bisect_left(bars, (time_ms,)) :]

    def before(self, time_ms: int, now_ms: int) -> Bar | None:
        """Return the newest closed bar that opens before ``time_ms``."""
        self._reach_back()
        self.roll(now_ms)
        for bars in (self._closed, self._hours, self._days):
            at = bisect_left(bars, (time_ms,))
            if at:
                return bars[at - 1]
        return None

    def bars(
        self, interval: str, start_ms: int, end_ms: int, now_ms: int, offset_ms: int = 0
    ) -> Iterator[Bar]:
        """Yield the bars that open from ``start_ms`` to ``end_ms`` (inclusive), also those without trades.

        They begin where the history is fine enough for the interval, and end with the one open at ``now_ms``.
        """
        self._reach_back()
        length = INTERVALS[interval] or 28 * DAY
        known_from = (
            self._minutes_from()
            if length < HOUR
            else self._hours_from()
            if length < DAY
            else self._days_from()
        )
        open_ms = open_of(interval, max(start_ms, known_from), offset_ms)
        if open_ms < max(start_ms, known_from):
            open_ms = next_open(interval, open_ms, offset_ms)
        parts = list(self.since(open_ms, now_ms))
        if self.live is not None:
            parts.append(self.live.bar())
        prior = self.before(open_ms, now_ms)
        close = prior.close if prior else parts[0].open if parts else 0
        at = 0
        while open_ms <= min(end_ms, now_ms):
            following = next_open(interval, open_ms, offset_ms)
            end = bisect_left(parts, (following,), at)
            bar = merged(open_ms, parts[at:end]) if end > at else flat(open_ms, close)
            yield bar
            close, at, open_ms = bar.close, end, following

    def _minutes_from(self) -> int:
        return self._closed[0].open_ms if self._closed else self.live.open_ms if self.live else 0

    def _hours_from(self) -> int:
        return self._hours[0].open_ms if self._hours else self._minutes_from()

    def _days_from(self) -> int:
        return self._days[0].open_ms if self._days else self._hours_from()

    def _reach_back(self) -> None:
        if self._before is None:
            return
        self._days, self._hours, minutes = self._before()
        self._closed = minutes + self._closed
        self._before = None

    def _fold(self) -> None:
        """Turn the oldest minutes into hours, and hours into days, so that memory stays bounded."""
        self._closed, self._hours = _folded(self._closed, self._hours, "1h", _MINUTES_KEPT)
        if len(self._hours) > _HOURS_KEPT + 240:
            self._hours, self._days = _folded(self._hours, self._days, "1d", _HOURS_KEPT)
            del self._days[:-1500]


def _folded(fine: list[Bar], coarse: list[Bar], interval: str, keep: int) -> tuple[list[Bar], list[Bar]]:
    edge = bisect_left(fine, (open_of(interval, fine[-keep].open_ms),))
    made: list[Bar] = []
    at = 0
    while at < edge:
        open_ms = open_of(interval, fine[at].open_ms)
        end = bisect_left(fine, (next_open(interval, open_ms),), at)
        made.append(merged(open_ms, fine[at:end]))
        at = end
    return fine[edge:], coarse + made


class Rolling:
    """Statistics of the last ``window_ms``, in whole minutes: from the minute of ``now - window_ms`` to now."""

    __slots__ = ("_history", "_minute", "_past", "_prior", "window_ms")

    def __init__(self, history: History, window_ms: int) -> None:
        self._history, self.window_ms = history, window_ms
        self._minute = -1
        self._past: Bar | None = None
        self._prior: int | None = None

    def at(self, now_ms: int) -> tuple[Bar, int]:
        """Return the window's bar (``open_ms`` is the minute it starts at) and the last price before it."""
        history = self._history
        minute = now_ms - now_ms % MINUTE
        start = minute - self.window_ms
        if minute != self._minute:
            bars = history.since(start, now_ms)
            self._past = merged(start, bars) if bars else None
            prior = history.before(start, now_ms)
            self._prior = prior.close if prior else None
            self._minute = minute
        live = history.live
        parts = [] if self._past is None else [self._past]
        if live is not None:
            parts.append(live.bar())
        if not parts:
            return flat(start, self._prior or 0), self._prior or 0
        bar = merged(start, parts)
        return bar, bar.open if self._prior is None else self._prior
