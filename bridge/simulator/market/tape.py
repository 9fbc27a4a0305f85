"""What was traded: raw trades and aggregate trades of one symbol, kept for REST as long as retention says."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

BUYER_IS_MAKER = 1
RETAIL = 2
"""The trade involves an RPI order (usdm)."""
NOT_EXECUTED = 4
"""A row that took an id but traded nothing (futures ``X: "NA"``)."""


class Trade(NamedTuple):
    """A raw trade; price in ticks, quantity in lots, ``flags`` an or of the constants of this module."""

    trade_id: int
    price: int
    lots: int
    time_ms: int
    flags: int


class AggregateTrade(NamedTuple):
    """Trades ``first`` to ``last`` of one taker side at one price; ``normal_lots`` leaves RPI trades out."""

    aggregate_id: int
    price: int
    lots: int
    normal_lots: int
    first: int
    last: int
    time_ms: int
    flags: int


class Rows:
    """Rows with contiguous ids, in little memory: the newest ``retention`` (at least) can be read again.

    Args:
        width: how many numbers a row has, without its id.
        time_column: which of them is the time.
        next_id: id of the first row to come.
        retention: rows kept; older ones go.
    """

    __slots__ = ("_numbers", "_retention", "_time_column", "_width", "next_id")

    def __init__(self, width: int, time_column: int, next_id: int, retention: int) -> None:
        self._width, self._time_column, self._retention = width, time_column, retention
        self._numbers = array("q")
        self.next_id = next_id

    def append(self, row: tuple[int, ...]) -> None:
        """Add the row with id ``next_id``."""
        self._numbers.extend(row)
        self.next_id += 1
        # cutting the front of an array moves the rest, so it is done rarely
        if len(self._numbers) >= self._width * (self._retention + self._retention // 4 + 64):
            del self._numbers[: -self._width * self._retention]

    def __len__(self) -> int:
        return min(len(self._numbers) // self._width, self._retention)

    @property
    def first_id(self) -> int:
        """Id of the oldest row that can still be read."""
        return self.next_id - len(self)

    def read(self, first_id: int, end_id: int) -> Iterator[tuple[int, ...]]:
        """Yield ``(id, *row)`` of the rows kept with ``first_id <= id < end_id``."""
        width, numbers = self._width, self._numbers
        oldest = self.next_id - len(numbers) // width
        for row_id in range(max(first_id, self.first_id), min(end_id, self.next_id)):
            at = (row_id - oldest) * width
            yield (row_id, *numbers[at : at + width])

    def first_at(self, time_ms: int) -> int:
        """Return the id of the first row kept at ``time_ms`` or later (``next_id`` where there is none)."""
        width, numbers = self._width, self._numbers
        skipped = len(numbers) // width - len(self)
        at = self._time_column + skipped * width
        return self.first_id + bisect_left(
            range(len(self)), time_ms, key=lambda row: numbers[at + row * width]
        )


class Tape:
    """Trades and aggregate trades of one symbol.

    Attributes:
        trades: rows of :class:`Trade`.
        aggregates: rows of :class:`AggregateTrade`.
    """

    __slots__ = ("aggregates", "trades")

    def __init__(self, next_trade: int, next_aggregate: int, retention: int) -> None:
        self.trades = Rows(4, 2, next_trade, retention)
        self.aggregates = Rows(7, 5, next_aggregate, retention)

    def read_trades(self, first_id: int, end_id: int) -> Iterator[Trade]:
        """Yield the trades kept with ``first_id <= id < end_id``."""
        return map(Trade._make, self.trades.read(first_id, end_id))

    def read_aggregates(self, first_id: int, end_id: int) -> Iterator[AggregateTrade]:
        """Yield the aggregate trades kept with ``first_id <= id < end_id``."""
        return map(AggregateTrade._make, self.aggregates.read(first_id, end_id))
