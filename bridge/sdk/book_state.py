"""An order book made from its records: a state machine without I/O and clock.

:mod:`bridge.sdk.book` shows it to users, :mod:`bridge.sdk.book_feed` keeps it current.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from bridge.sdk.record import as_text
from bridge.sdk.records import Gap, Level, Lifecycle, OrderBook

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from decimal import Decimal

_BACK_MICROS = 2_000_000
"""An id seen before, with a time that much later: the exchange counts anew."""
_NO_LEVELS: tuple[Level, ...] = ()


class Change(NamedTuple):
    """Something that happened to a book.

    Attributes:
        type: ``delta``: levels changed; ``snapshot``: the whole book anew; ``lost``: it is no longer in sync.
        bids: changed bids, amount 0 removes; of a snapshot all of them, best first.
        asks: the same for asks.
        sequence: the book's last update id after it.
        timestamp: the exchange's time of it, microseconds.
        receivedAt: when the bridge received it, microseconds.
        reason: of ``lost``: why.
    """

    type: Literal["delta", "snapshot", "lost"]
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    sequence: int | None
    timestamp: int | None
    receivedAt: int | None  # noqa: N815 - the records' own name
    reason: str | None = None


class Ladder:
    """One side of a book: amounts by price, and the prices in a list kept sorted, the best one last.

    Changes come mostly near the best price, so at the list's end little has to move; asks are sorted by the
    negated price for that. Measured by ``benchmarks/sdk_book.py`` against other containers.

    Args:
        descending: whether the highest price is the best, as of bids.
    """

    __slots__ = ("_amounts", "_descending", "_keys")

    def __init__(self, *, descending: bool) -> None:
        self._descending = descending
        self._amounts: dict[Decimal, Decimal] = {}
        self._keys: list[Decimal] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Level]:
        for key in reversed(self._keys):
            price = key if self._descending else key.copy_negate()
            yield Level(price, self._amounts[price])

    @property
    def best(self) -> Level | None:
        """The best level; None where the side is empty."""
        if not self._keys:
            return None
        price = self._keys[-1] if self._descending else self._keys[-1].copy_negate()
        return Level(price, self._amounts[price])

    def replace(self, levels: Iterable[Level]) -> None:
        """Forget everything and hold ``levels``."""
        self._amounts = {price: amount for price, amount in levels if amount}
        descending = self._descending
        self._keys = sorted(self._amounts if descending else (p.copy_negate() for p in self._amounts))

    def apply(self, levels: Iterable[Level]) -> None:
        """Set the amount at each price; 0 removes the level."""
        amounts, keys, descending = self._amounts, self._keys, self._descending
        for price, amount in levels:
            if amount:
                if price not in amounts:
                    insort(keys, price if descending else price.copy_negate())
                amounts[price] = amount
            elif amounts.pop(price, None) is not None:
                del keys[bisect_left(keys, price if descending else price.copy_negate())]

    def holds(self, levels: Iterable[Level]) -> bool:
        """Return whether it has exactly ``levels``."""
        return self._amounts == {price: amount for price, amount in levels if amount}

    def top(self, limit: int | None = None) -> tuple[Level, ...]:
        """Return the best levels, best first; all of them for None."""
        return self._levels(self._keys[::-1] if limit is None else self._keys[: -limit - 1 : -1])

    def between(self, low: Decimal | None, high: Decimal | None) -> tuple[Level, ...]:
        """Return the levels with a price from ``low`` to ``high``, both included, best first."""
        if not self._descending:
            low, high = (None if p is None else p.copy_negate() for p in (high, low))
        first = 0 if low is None else bisect_left(self._keys, low)
        last = len(self._keys) if high is None else bisect_right(self._keys, high)
        return self._levels(reversed(self._keys[first:last]))

    def _levels(self, keys: Iterable[Decimal]) -> tuple[Level, ...]:
        prices = keys if self._descending else (key.copy_negate() for key in keys)
        amounts = self._amounts
        return tuple(Level(price, amounts[price]) for price in prices)


@dataclass(slots=True)
class Seen:
    """What was read of a book's symbol.

    Attributes:
        snapshots: whole snapshots.
        deltas: changes.
        partial: snapshots limited to some levels, which are no part of the book.
        dropped: records of a writer that another had replaced (lower ``writerEpoch``).
        differing: whole snapshots that named the book's own sequence but held other levels.
        markets: other markets than the one wanted.
    """

    snapshots: int = 0
    deltas: int = 0
    partial: int = 0
    dropped: int = 0
    differing: int = 0
    markets: set[str] = field(default_factory=set)


class BookState:
    """The book of one symbol, made from its records in the topic's order.

    It is in sync from a whole snapshot on until something can't be right: then it says so and stays as it is
    until the next whole snapshot. A change has absolute amounts for all that lies between the update it follows
    (spot: ``firstSequence`` - 1, futures: ``previousSequence``) and its ``sequence``: it links where the first is
    not beyond the book and the second is; where the second is not, it brings nothing new.

    Args:
        symbol: unified symbol.
        market: its market; None takes that of the first record.
    """

    __slots__ = (
        "_epoch",
        "_live",
        "_snapshot_at",
        "_snapshot_sequence",
        "_time",
        "asks",
        "bids",
        "exchange_symbol",
        "in_sync",
        "market",
        "reason",
        "received_at",
        "seen",
        "sequence",
        "symbol",
        "timestamp",
    )

    def __init__(self, symbol: str, market: str | None = None) -> None:
        self.symbol, self.market = symbol, market
        self.exchange_symbol: str | None = None
        self.bids, self.asks = Ladder(descending=True), Ladder(descending=False)
        self.sequence: int | None = None
        self.timestamp: int | None = None
        self.received_at: int | None = None
        self.in_sync = False
        self.reason: str | None = "no whole snapshot has come yet"
        self.seen = Seen()
        self._epoch = self._snapshot_at = self._snapshot_sequence = self._time = 0
        self._live = False

    def take(self, record: OrderBook) -> Change | None:
        """Take the next record of the symbol; return what it changed, None where nothing."""
        if self.market is None:
            self.market = record.market
        if record.market != self.market:
            self.seen.markets.add(record.market)
            return None
        if not is_whole(record):
            self.seen.partial += 1
            return None
        if not self._timely(record):
            return None
        return self._snapshot(record) if record.type == "snapshot" else self._delta(record)

    def lose(self, reason: str) -> Change:
        """Note that the book is not to be trusted until the next whole snapshot."""
        self.in_sync, self.reason = False, reason
        return Change("lost", _NO_LEVELS, _NO_LEVELS, self.sequence, self.timestamp, self.received_at, reason)

    def told(self, news: Gap | Lifecycle) -> Change | None:
        """Heed a gap, or the bridge's own resynchronisation, where it is about what the book stands on.

        They come from other topics, early or late: what the book has left behind already is no news.
        """
        if not self.in_sync or news.market != self.market:
            return None
        if isinstance(news, Gap):
            return self._told_gap(news)
        streams = (stream.partition("@") for stream in news.streams)
        concerned = any(
            name.upper() == self.exchange_symbol and rest.startswith("depth") for name, _, rest in streams
        )
        if news.event != "book.resync" or not concerned or self._began_after(news):
            return None
        return self.lose(f"the bridge resynchronises its book: {news.reason or 'no reason given'}")

    def _began_after(self, news: Lifecycle) -> bool:
        """Return whether the newest snapshot was made after the bridge lost its book."""
        if news.lastSequence is not None:
            return self._snapshot_sequence > news.lastSequence
        return self._snapshot_at >= news.at

    def whole(self) -> Change:
        """Return the book as a change: a snapshot, or that it is lost."""
        if not self.in_sync:
            return self.lose(self.reason or "")
        return Change(
            "snapshot", self.bids.top(), self.asks.top(), self.sequence, self.timestamp, self.received_at
        )

    def _told_gap(self, gap: Gap) -> Change | None:
        """A change that links proves that nothing is missing before it, whatever a gap record says."""
        channel = gap.channel.partition("@")[0]
        if gap.symbol != self.symbol or channel != "depth" or gap.status == "filled":
            return None
        if gap.writerEpoch < self._epoch:
            return None
        if gap.lastSequence is not None:
            if gap.lastSequence <= (self.sequence or 0):
                return None
            return self.lose(f"changes {gap.firstSequence} to {gap.lastSequence} are missing ({gap.cause})")
        if gap.detectedAt <= (self.received_at or 0):
            return None
        since = as_text(gap.startTime) or "an unknown time"
        return self.lose(f"changes are missing since {since} ({gap.cause})")

    def _timely(self, record: OrderBook) -> bool:
        """Return whether a record is no late writer's, nor a replay's into the topic of a live book."""
        if record.origin == "replay":
            return not self._live
        self._live = True
        if record.writerEpoch < self._epoch:
            self.seen.dropped += 1
            return False
        self._epoch = record.writerEpoch
        return True

    def _snapshot(self, record: OrderBook) -> Change | None:
        self.seen.snapshots += 1
        sequence, last = record.sequence, self.sequence
        if sequence is None:
            return self.lose("a snapshot has no sequence")
        if self.in_sync and last is not None and self.received_at is not None:
            if sequence < last and record.receivedAt <= self.received_at:
                return None  # written twice: the book is beyond it
            if sequence == last and not (self.bids.holds(record.bids) and self.asks.holds(record.asks)):
                self.seen.differing += 1
        fault = _fault(record) or _crossed(
            max((level for level in record.bids if level.amount), default=None),
            min((level for level in record.asks if level.amount), default=None),
        )
        if fault is not None:
            return self.lose(f"the snapshot at {sequence} is wrong: {fault}")
        self.bids.replace(record.bids)
        self.asks.replace(record.asks)
        if record.timestamp is not None or sequence != last:
            self.timestamp = record.timestamp
        self.exchange_symbol = record.exchangeSymbol
        self._snapshot_at, self._snapshot_sequence = record.receivedAt, sequence
        self._moved(record)
        self.in_sync, self.reason = True, None
        return self.whole()

    def _delta(self, record: OrderBook) -> Change | None:
        self.seen.deltas += 1
        if not self.in_sync:
            return None
        sequence, last = record.sequence, self.sequence
        assert last is not None, "in sync it has a sequence"
        if sequence is not None and sequence <= last:
            if record.timestamp is not None and record.timestamp > self._time + _BACK_MICROS:
                return self.lose(f"the exchange counts anew: {sequence} came after {last}")
            return None
        fault = _unlinked(record, last) or _fault(record)
        if fault is not None:
            return self.lose(fault)
        fault = self._apply(record)
        if fault is not None:
            return self.lose(f"wrong after the change to {sequence}: {fault}")
        return Change("delta", record.bids, record.asks, sequence, record.timestamp, record.receivedAt)

    def _apply(self, record: OrderBook) -> str | None:
        """Apply a change; return what is wrong with the book after it."""
        had_bids, had_asks = len(self.bids), len(self.asks)
        self.bids.apply(record.bids)
        self.asks.apply(record.asks)
        self.timestamp = record.timestamp
        self._moved(record)
        if had_bids and not self.bids:
            return "no bids are left"
        if had_asks and not self.asks:
            return "no asks are left"
        return _crossed(self.bids.best, self.asks.best)

    def _moved(self, record: OrderBook) -> None:
        self.sequence, self.received_at = record.sequence, record.receivedAt
        self._time = record.receivedAt if record.timestamp is None else record.timestamp


def is_whole(record: OrderBook) -> bool:
    """Return whether a record is part of a whole book, be it a snapshot or a change."""
    return record.depth is None and record.channel != "partial-depth"


def _unlinked(record: OrderBook, last: int) -> str | None:
    """Return why a change that ends beyond ``last``, the book's sequence, does not link; None where it does."""
    first, previous = record.firstSequence, record.previousSequence
    if record.sequence is None or (first is None and previous is None):
        return f"the change after {last} does not say what it follows"
    if previous is not None and previous > last:
        return f"changes are missing: that to {record.sequence} follows {previous}, the book is at {last}"
    if previous is None and first is not None and first > last + 1:
        return f"changes {last + 1} to {first - 1} are missing"
    return None


def _fault(record: OrderBook) -> str | None:
    """Return what no level can be; amounts of 0 are for the ladder."""
    for levels in (record.bids, record.asks):
        for price, amount in levels:
            if amount < 0 or price <= 0:
                return f"amount {amount:f} at price {price:f}"
    return None


def _crossed(bid: Level | None, ask: Level | None) -> str | None:
    if bid is None or ask is None or bid.price < ask.price:
        return None
    return f"{'locked' if bid.price == ask.price else 'crossed'}, bid {bid.price:f}, ask {ask.price:f}"
