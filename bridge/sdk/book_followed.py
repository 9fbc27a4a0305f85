"""A book that is followed: its state as records bring it on, and those who wait for its changes."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Self

from bridge.errors import DecodeError
from bridge.sdk.book_state import BookState, Change, is_whole
from bridge.sdk.watched import Watched

if TYPE_CHECKING:
    from bridge.sdk.book_feed import Feed
    from bridge.sdk.records import Gap, Lifecycle, OrderBook

_QUEUED = 10_000
CLOSED = "it was closed"
"""Why a book ended that its owner let go of."""


class Wish(NamedTuple):
    """How a book is to be followed.

    Attributes:
        interval: seconds from one whole snapshot to the next, while the book changes.
        timeout: seconds it may take until it is in sync.
        max_silence: seconds without any record after which it is lost.
    """

    interval: float
    timeout: float | None
    max_silence: float | None


class Followed(Watched):
    """A book that is kept current, and those who wait for its changes.

    Args:
        symbol: unified symbol.
        market: its market; None takes that of the first record.
        wish: how it is to be followed.
        feed: the reader of its partition.
    """

    def __init__(self, symbol: str, market: str | None, wish: Wish, feed: Feed) -> None:
        super().__init__(f"the order book of {symbol}")
        self.state = BookState(symbol, market)
        self.wish, self.heard = wish, 0.0
        self.snapshot_came = asyncio.Event()
        self._feed: Feed | None = feed
        self._pending: list[tuple[int, OrderBook | DecodeError]] | None = []
        self._news: list[Gap | Lifecycle] = []
        self._updates: weakref.WeakSet[Updates] = weakref.WeakSet()

    def updates(self) -> Updates:
        """Return an iterator of the changes from now on."""
        updates = Updates(self)
        self._updates.add(updates)
        return updates

    def begin(self, state: BookState, after: int) -> None:
        """Go on from ``state`` with what was put by and lies behind the offset ``after``."""
        pending, self._pending = self._pending, None
        news, self._news = self._news, []
        self.state = state
        if state.sequence is not None:
            self._note(state.whole())
        for offset, record in pending or ():
            if offset > after:
                self._take(record)
        for item in news:
            self.tell(item)

    def give(self, offset: int, record: OrderBook | DecodeError, now: float) -> None:
        """Take the next record of the symbol, or that a value was none, at the loop's time ``now``."""
        self.heard = now
        if self._pending is None:
            self._take(record)
            return
        self._pending.append((offset, record))
        if self._is_snapshot(record):
            self.snapshot_came.set()

    def tell(self, news: Gap | Lifecycle) -> None:
        """Take a gap or a resynchronisation."""
        if self._pending is not None:
            self._news.append(news)
            return
        change = self.state.told(news)
        if change is not None:
            self._note(change)

    def listen(self, now: float) -> None:
        """Lose the book where nothing has come for longer than it may be silent."""
        silent, most = now - self.heard, self.wish.max_silence
        if (
            most is not None
            and silent > most
            and self._pending is None
            and self.state.in_sync
            and not self.over
        ):
            self._note(self.state.lose(f"nothing has come for {silent:.0f} s; is the bridge running?"))

    def end(self, reason: str | None = None, error: BaseException | None = None) -> None:
        """Take no more: for a reason, or, at a source's end, with the book as it is."""
        if self.over:
            return
        self.over, self.error = True, error
        if reason is not None:
            self._note(self.state.lose(reason))
        self.wake()

    async def aclose(self) -> None:
        """Leave the feed."""
        self.end(CLOSED)
        feed, self._feed = self._feed, None
        if feed is not None:
            await feed.leave(self)

    def _is_snapshot(self, record: OrderBook | DecodeError) -> bool:
        if isinstance(record, DecodeError) or record.type != "snapshot" or not is_whole(record):
            return False
        return self.state.market in {None, record.market}

    def _take(self, record: OrderBook | DecodeError) -> None:
        change: Change | None = None
        if not isinstance(record, DecodeError):
            change = self.state.take(record)
        elif self.state.in_sync:
            change = self.state.lose(f"a value is no record: {record}")
        if change is not None:
            self._note(change)

    def _note(self, change: Change) -> None:
        self.version += 1
        for updates in self._updates:
            updates.put(change)
        self.wake()


class Updates:
    """An asynchronous iterator of a book's changes; it ends with the book."""

    def __init__(self, followed: Followed) -> None:
        self._followed = followed
        self._queue: deque[Change] = deque()
        self._behind = False

    def put(self, change: Change) -> None:
        """Queue a change."""
        if len(self._queue) >= _QUEUED:
            self._queue.clear()
            self._behind = True
        if not self._behind:
            self._queue.append(change)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        followed = self._followed
        while True:
            if self._behind:
                self._behind = False
                return followed.state.whole()
            if self._queue:
                return self._queue.popleft()
            if followed.over:
                if followed.error is not None:
                    raise followed.error
                raise StopAsyncIteration
            await followed.wait()
