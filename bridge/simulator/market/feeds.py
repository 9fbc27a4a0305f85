"""Streams that speak at a pace: each feed looks at the market's state and says what is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from bridge.simulator.exchange import Emission
from bridge.simulator.market.bars import MINUTE, Bar, History, flat, merged, next_open, open_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.model import Market
    from bridge.simulator.market.book import Changes
    from bridge.simulator.market.listing import Listing


Row = tuple[Callable[[int], bytes], Callable[[], int] | None]
"""What makes a row, and what tells whether it changed (None: it is always told)."""


class Feed(Protocol):
    """One tracked stream."""

    def publish(self, now: int, out: list[Emission]) -> None:
        """Append what the stream says at ``now``, if anything."""


class DepthFeed:
    """Diff depth, or partial depth with ``levels``; silent while the book stands still."""

    def __init__(self, listing: Listing, stream: str, levels: int) -> None:
        self._listing, self._stream, self._levels = listing, stream, levels
        self._changes: Changes = listing.book.watch()

    def publish(self, now: int, out: list[Emission]) -> None:
        """Tell the levels changed since the last time (or the top of the book)."""
        changes, book = self._changes, self._listing.book
        first = changes.first
        if first is None:
            return
        market, payloads = self._listing.instrument.market, self._listing.payloads
        if self._levels:
            data = payloads.partial(now, book, self._levels, changes)
            if market == "spot":
                first = book.update_id
        else:
            data = payloads.diff(now, book, changes)
        out.append(Emission(market, self._stream, data, first, book.update_id, now))
        changes.restart(book.update_id)


class WriteKline(Protocol):
    """Makes the payload of one kline stream."""

    def __call__(self, now: int, interval: str, bar: Bar, close_ms: int, *, closed: bool) -> bytes:
        """Return the payload."""


class KlineFeed:
    """Klines of a minute or longer.

    The open bar is told when it changed, and once more when it closes. A bar without trades is told on spot
    (``empty_too``), with ids of -1; contracts pass over it in silence.
    """

    def __init__(
        self, market: Market, stream: str, history: History, write: WriteKline, *, interval: str, offset_ms: int,
        now: int, last_price: Callable[[], int], empty_too: bool,
    ) -> None:  # fmt: skip
        self._market, self._stream, self._history, self._write = market, stream, history, write
        self._interval, self._offset_ms, self._empty_too = interval, offset_ms, empty_too
        self._last_price = last_price
        self._open = open_of(interval, now, offset_ms)
        self._next = next_open(interval, self._open, offset_ms)
        self._minute = -1
        self._past: Bar | None = None
        self._told = -1

    def publish(self, now: int, out: list[Emission]) -> None:
        """Close the bar that ended, or tell the open one if it changed."""
        if now >= self._next:
            bar = self._bar(now)
            if bar.trades or self._empty_too:
                self._say(now, bar, out, closed=True)
            self._open, self._minute, self._told = self._next, -1, -1
            self._next = next_open(self._interval, self._open, self._offset_ms)
            return
        bar = self._bar(now)
        if bar.trades != self._told and (bar.trades or self._empty_too):
            self._told = bar.trades
            self._say(now, bar, out, closed=False)

    def _bar(self, now: int) -> Bar:
        history, opened, end = self._history, self._open, self._next
        minute = now - now % MINUTE
        if minute != self._minute:
            bars = [bar for bar in history.since(opened, now) if bar.open_ms < end]
            self._past = merged(opened, bars) if bars else None
            self._minute = minute
        parts = [] if self._past is None else [self._past]
        live = history.live
        if live is not None and live.open_ms < end:
            parts.append(live.bar())
        return merged(opened, parts) if parts else flat(opened, self._last_price())

    def _say(self, now: int, bar: Bar, out: list[Emission], *, closed: bool) -> None:
        data = self._write(now, self._interval, bar, self._next - 1, closed=closed)
        out.append(Emission(self._market, self._stream, data, None, None, now))


class SecondFeed:
    """``<symbol>@kline_1s`` (spot): each second's bar as it closes."""

    def __init__(self, listing: Listing, stream: str, now: int) -> None:
        self._listing, self._stream = listing, stream
        listing.watch_seconds(now)

    def publish(self, now: int, out: list[Emission]) -> None:
        """Tell the second that ended at ``now``."""
        listing, opened = self._listing, now - 1000
        second = listing.second
        ended = second is not None and second.open_ms == opened
        bar = second.bar() if second is not None and ended else flat(opened, listing.last_price)
        data = listing.payloads.kline(now, "1s", bar, now - 1, closed=True)
        out.append(Emission("spot", self._stream, data, None, None, now))


class RowFeed:
    """A stream that makes one payload of one symbol, when that symbol changed."""

    def __init__(
        self,
        market: Market,
        stream: str,
        row: Callable[[int], bytes | None],
        version: Callable[[], int] | None,
    ) -> None:
        self._market, self._stream, self._row, self._version = market, stream, row, version
        self._told = -1

    def publish(self, now: int, out: list[Emission]) -> None:
        """Tell the row if it changed."""
        if self._version is not None:
            version = self._version()
            if version == self._told:
                return
            self._told = version
        data = self._row(now)
        if data is not None:
            out.append(Emission(self._market, self._stream, data, None, None, now))


class ArrayFeed:
    """A stream of all symbols: an array of the rows that changed, in one frame per group of ``rows``."""

    def __init__(
        self,
        market: Market,
        stream: str,
        groups: Sequence[Sequence[Row]],
    ) -> None:
        self._market, self._stream, self._groups = market, stream, groups
        self._told: dict[tuple[int, int], int] = {}

    def publish(self, now: int, out: list[Emission]) -> None:
        """Tell the rows that changed."""
        for group, rows in enumerate(self._groups):
            changed = [
                row(now) for at, (row, version) in enumerate(rows) if self._changed((group, at), version)
            ]
            if changed:
                out.append(
                    Emission(self._market, self._stream, b"[" + b",".join(changed) + b"]", None, None, now)
                )

    def _changed(self, row: tuple[int, int], version: Callable[[], int] | None) -> bool:
        if version is None:
            return True
        current = version()
        changed = self._told.get(row) != current
        self._told[row] = current
        return changed


class EachFeed:
    """A stream of all symbols that has one payload per symbol: ``!bookTicker``, ``tradingSession``."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds

    def publish(self, now: int, out: list[Emission]) -> None:
        """Tell what each symbol has to say."""
        for feed in self._feeds:
            feed.publish(now, out)
