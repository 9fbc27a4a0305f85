"""Joins the changes of a stream with snapshots of REST to a book that is provably the exchange's. Pure.

Each change says which update it follows (``previous``) and which it ends with (``last``): on spot ``U - 1`` and
``u``, on futures ``pu`` and ``u``. With that, both markets have one rule. A snapshot of update L is joined to the
first change whose ``last`` is beyond L, and that change's ``previous`` must not be: nothing lies between them.

=============  =======================================  ===========================================
state          is                                       leaves it by
=============  =======================================  ===========================================
new            no change has come                       the first change: a snapshot is wanted → waiting
waiting        changes are kept, the newest ones        a snapshot that joins → synced;
                                                        one that is ahead of all changes → ahead
ahead          a snapshot waits for its first change    that change → synced, or it shows that the
                                                        snapshot was too old → waiting
synced         the book is the exchange's               a hole, a bad level, a crossed book → waiting
refreshing     synced, and a deeper snapshot is wanted  a snapshot that joins → synced
=============  =======================================  ===========================================

Time comes with the messages, and what is wanted is told, not asked for: fed the same changes and answers in the
same order, a replay finds the same books.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import parse_qs

import msgspec

from bridge.core.book import read_answer
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.core.book import Book
    from bridge.model import Stream

Urgency = Literal["resync", "first", "refresh"]

CHANNEL = "depth"
"""The channel whose streams make books; partial depth makes snapshots of its own, RPI depth is a book of its own."""

LEAST_LIMIT = 20
"""Answers with fewer levels were asked for other reasons (a look whether the market moves) and make no book."""

_MOST_CHANGES = 256
_MOST_LEVELS = 10_000
_MOST_BEHIND = 256


class Change(NamedTuple):
    """One message of the stream.

    Attributes:
        previous: the update it follows.
        last: its last update.
        bids: price, absolute quantity, price, quantity …, unscaled; a quantity of 0 removes the level.
        asks: the same.
    """

    previous: int
    last: int
    bids: Sequence[int]
    asks: Sequence[int]

    @property
    def levels(self) -> int:
        """How many levels change."""
        return (len(self.bids) + len(self.asks)) // 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """A snapshot is wanted of REST, until one has joined.

    Attributes:
        reason: why.
        urgency: ``resync`` where a book was lost, ``first`` where there never was one, ``refresh`` where the book is
            in sync but its known depth runs out.
    """

    reason: str
    urgency: Urgency


@dataclass(frozen=True, slots=True)
class Lost:
    """The book is no longer in sync.

    Attributes:
        reason: what showed it.
        sequence: its last update.
    """

    reason: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Synced:
    """The book is in sync.

    Attributes:
        sequence: its last update.
        bids: how many bid levels are known.
        asks: how many ask levels are known.
        changes: how many changes were applied to the snapshot.
        refreshed: whether it was in sync before, too.
    """

    sequence: int
    bids: int
    asks: int
    changes: int
    refreshed: bool


class Due(Enum):
    """The book as it is now is to be published, behind the newest change."""

    PUBLISH = "publish"


Happening = Wanted | Lost | Synced | Due


@dataclass(slots=True)
class _Ahead:
    """A snapshot that is newer than every change so far."""

    book: Book
    sequence: int
    behind: int = 0


class BookSync:
    """The book of one stream.

    Args:
        interval: microseconds between two publications.

    Attributes:
        book: the book while it is in sync, else None.
        sequence: the last update in it.
        awaiting: whether a snapshot is wanted and none has joined yet.
        changes: how many changes came: how busy the symbol is.
    """

    __slots__ = (
        "_ahead", "_buffer", "_buffered_levels", "_interval", "_lost", "_published_at", "_seen", "awaiting", "book",
        "changes", "sequence",
    )  # fmt: skip

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self.book: Book | None = None
        self.sequence = 0
        self.awaiting = False
        self.changes = 0
        self._ahead: _Ahead | None = None
        self._buffer: deque[Change] = deque()
        self._buffered_levels = 0
        self._lost = False
        self._seen: int | None = None
        self._published_at = 0

    def change(self, change: Change, at: int) -> Sequence[Happening]:
        """Take the next change of the stream, received at ``at`` (microseconds)."""
        happened = self._arrived(change.previous, change.last)
        if self.book is not None:
            happened += self._advance(self.book, change)
        if self._ahead is not None:
            happened += self._meet(self._ahead, change, at)
        if self.awaiting:
            self._keep(change)
        if self.book is not None and at - self._published_at >= self._interval:
            self._published_at = at
            happened.append(Due.PUBLISH)
        return happened

    def unusable(self, previous: int, last: int, reason: str) -> Sequence[Happening]:
        """Take note of a change that made no record: without it no book is the exchange's."""
        happened = self._arrived(previous, last)
        return happened + self._broken(reason)

    def answer(self, body: bytes, limit: int, at: int) -> Sequence[Happening]:
        """Take the exchange's answer to a request for ``limit`` levels a side, received at ``at`` (microseconds)."""
        seen = self._seen
        if not self.awaiting or seen is None:
            return ()
        try:
            book, last = read_answer(body, limit)
        except (msgspec.MsgspecError, UnexpectedMessage, UnicodeDecodeError, RecursionError) as error:
            return [self._again(f"the snapshot cannot be understood: {error}")]
        wrong = book.fault()
        if wrong is not None:
            return [self._again(f"the snapshot is {wrong}")]
        oldest = self._buffer[0].previous if self._buffer else seen
        if last < oldest:
            return [self._again(f"the snapshot of {last} is older than {oldest}")]
        if last > seen:
            self._ahead = _Ahead(book, last)
            return ()
        return self._join(book, last, at)

    # The exchange's order

    def _arrived(self, previous: int, last: int) -> list[Happening]:
        """Look whether a change follows the one before it."""
        seen, self._seen = self._seen, last
        self.changes += 1
        if seen == previous:
            return []
        if seen is None:
            self.awaiting = True
            return [Wanted("the stream has begun", "first")]
        if last <= seen:
            reason = f"the exchange counts anew: {last} after {seen}"
            unanswered, self._ahead = self._ahead is None, None
            return self._broken(reason) or ([] if unanswered else [self._again(reason)])
        return self._broken(f"updates {seen + 1} to {previous} are missing") if previous > seen else []

    def _broken(self, reason: str) -> list[Happening]:
        """Let go of the changes kept: what follows does not follow them."""
        self._forget_changes()
        return [] if self.book is None else self._lose(reason)

    # The book that is in sync

    def _advance(self, book: Book, change: Change) -> list[Happening]:
        wrong = _applied(book, change)
        if wrong is not None:
            return self._lose(wrong)
        self.sequence = change.last
        shallow = None if self.awaiting else book.shallow()
        if shallow is None:
            return []
        self.awaiting = True
        return [Wanted(shallow, "refresh")]

    def _lose(self, reason: str) -> list[Happening]:
        self.book, self.awaiting, self._lost = None, True, True
        return [Lost(reason, self.sequence), Wanted(reason, "resync")]

    # The snapshot that is wanted

    def _keep(self, change: Change) -> None:
        """Keep a change for the snapshot that is to come, and of all kept only the newest."""
        self._buffer.append(change)
        self._buffered_levels += change.levels
        while len(self._buffer) > _MOST_CHANGES or self._buffered_levels > _MOST_LEVELS:
            oldest = self._buffer.popleft()
            self._buffered_levels -= oldest.levels

    def _forget_changes(self) -> None:
        self._buffer.clear()
        self._buffered_levels = 0

    def _join(self, book: Book, snapshot: int, at: int) -> list[Happening]:
        """Apply the changes kept to a snapshot that one of them covers."""
        wanted = [change for change in self._buffer if change.last > snapshot]
        for change in wanted:
            wrong = _applied(book, change)
            if wrong is not None:
                return [self._again(wrong)]
        return self._adopt(book, len(wanted), at)

    def _meet(self, ahead: _Ahead, change: Change, at: int) -> list[Happening]:
        """Look whether a change is the one that a newer snapshot waits for."""
        if change.previous > ahead.sequence:
            return [self._again(f"the snapshot of {ahead.sequence} is older than {change.previous}")]
        if change.last < ahead.sequence:
            ahead.behind += 1
            if ahead.behind < _MOST_BEHIND:
                return []
            return [self._again(f"the snapshot of {ahead.sequence} is far ahead of the stream")]
        applied = change.last > ahead.sequence
        wrong = _applied(ahead.book, change) if applied else None
        return [self._again(wrong)] if wrong is not None else self._adopt(ahead.book, int(applied), at)

    def _adopt(self, book: Book, changes: int, at: int) -> list[Happening]:
        """Take over a book that has every change seen so far; it is to be published here."""
        before, self.book = self.book, book
        where = None if before is None else before.differs(book)
        happened: list[Happening] = []
        if where is not None:
            happened.append(Lost(f"it differs from the exchange's snapshot: {where}", self.sequence))
        assert self._seen is not None
        self.sequence, self.awaiting, self._ahead, self._published_at = self._seen, False, None, at
        self._forget_changes()
        bids, asks = len(book.bids.prices), len(book.asks.prices)
        refreshed = before is not None and where is None
        return [*happened, Synced(self.sequence, bids, asks, changes, refreshed), Due.PUBLISH]

    def _again(self, reason: str) -> Wanted:
        self._ahead = None
        return Wanted(reason, "refresh" if self.book is not None else "resync" if self._lost else "first")


def _applied(book: Book, change: Change) -> str | None:
    """Apply a change; return what is wrong, None when the book is sound."""
    try:
        return book.apply(change.bids, change.asks)
    except UnexpectedMessage as error:
        return str(error)


class DepthRequest(NamedTuple):
    """What a REST request for a book asked for: the exchange symbol and the levels a side."""

    symbol: str
    limit: int


def depth_request(path_with_query: str) -> DepthRequest | None:
    """Return what a REST request asked for; None where it is not for a book, or for one of too few levels."""
    path, _, query = path_with_query.partition("?")
    if not path.endswith("/depth"):
        return None
    given = parse_qs(query)
    symbol, limit = given.get("symbol", [""])[0], given.get("limit", [""])[0]
    if not symbol or not limit.isdecimal() or int(limit) < LEAST_LIMIT:
        return None
    return DepthRequest(symbol, int(limit))


def book_of(stream: Stream, interval: int | None) -> BookSync | None:
    """Return a new book for a stream of full-depth changes; None for other streams, or without an interval."""
    if interval is None or stream.channel != CHANNEL or stream.symbol is None:
        return None
    return BookSync(interval)
