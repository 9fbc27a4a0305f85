"""An order book of price levels, and the diffs it leaves behind.

Only absolute quantities per price are kept, as Binance publishes them. Every change of a level takes one
update id.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class UpdateIds:
    """A sequence of update ids: contiguous for one spot symbol, or jumping and shared by all contracts.

    Attributes:
        last: the newest id taken.
    """

    __slots__ = ("_jumping", "last")

    def __init__(self, last: int, *, jumping: bool) -> None:
        self.last, self._jumping = last, jumping

    def take(self) -> int:
        """Return the next id."""
        # Fibonacci hashing makes jumps of 1 to 128 look random without drawing from the market's randomness
        self.last += 1 + (self.last * 2654435761 >> 12 & 127) if self._jumping else 1
        return self.last


class Changes:
    """What changed since the last diff of one stream.

    Attributes:
        first: id of the first change (``U``), None while nothing changed.
        previous: last id of the previous diff (``pu``).
        bids: new quantity by price, 0 where the level went.
        asks: the same for the other side.
    """

    __slots__ = ("asks", "bids", "first", "previous")

    def __init__(self, previous: int) -> None:
        self.first: int | None = None
        self.previous = previous
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}

    def restart(self, last: int) -> None:
        """Begin the next diff after update ``last``."""
        self.first, self.previous = None, last
        self.bids.clear()
        self.asks.clear()


class Book:
    """Price levels in ticks and lots. Neither side is ever empty once filled, and bids stay below asks.

    Attributes:
        bids: quantity by price.
        asks: quantity by price.
        bid_keys: bid prices, ascending: the best is the last.
        ask_keys: negated ask prices, ascending: the best is the last.
        update_id: id of the newest change.
        time_ms: when it happened.
        watchers: diffs being collected.
    """

    __slots__ = ("_ids", "ask_keys", "asks", "bid_keys", "bids", "time_ms", "update_id", "watchers")

    def __init__(self, ids: UpdateIds) -> None:
        self._ids = ids
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}
        self.bid_keys: list[int] = []
        self.ask_keys: list[int] = []
        self.update_id = ids.last
        self.time_ms = 0
        self.watchers: list[Changes] = []

    def fill(self, bids: Iterable[tuple[int, int]], asks: Iterable[tuple[int, int]]) -> None:
        """Set the levels that are there from the start."""
        self.bids.update(bids)
        self.asks.update(asks)
        self.bid_keys = sorted(self.bids)
        self.ask_keys = sorted(-price for price in self.asks)

    def set_bid(self, price: int, lots: int) -> None:
        """Give the bid level at ``price`` the quantity ``lots``; 0 removes it."""
        levels, keys = self.bids, self.bid_keys
        if lots:
            if price not in levels:
                insort(keys, price)
            levels[price] = lots
        else:
            del levels[price]
            del keys[-1 if keys[-1] == price else bisect_left(keys, price)]
        self.update_id = update_id = self._ids.take()
        for changes in self.watchers:
            if changes.first is None:
                changes.first = update_id
            changes.bids[price] = lots

    def set_ask(self, price: int, lots: int) -> None:
        """Give the ask level at ``price`` the quantity ``lots``; 0 removes it."""
        levels, keys, key = self.asks, self.ask_keys, -price
        if lots:
            if price not in levels:
                insort(keys, key)
            levels[price] = lots
        else:
            del levels[price]
            del keys[-1 if keys[-1] == key else bisect_left(keys, key)]
        self.update_id = update_id = self._ids.take()
        for changes in self.watchers:
            if changes.first is None:
                changes.first = update_id
            changes.asks[price] = lots

    def watch(self) -> Changes:
        """Start collecting the diffs of one more stream."""
        changes = Changes(self.update_id)
        self.watchers.append(changes)
        return changes

    def best(self) -> tuple[int, int, int, int]:
        """Return best bid and its quantity, best ask and its quantity."""
        bid, ask = self.bid_keys[-1], -self.ask_keys[-1]
        return bid, self.bids[bid], ask, self.asks[ask]

    def top(self, levels: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return up to ``levels`` bids and asks, best first."""
        bids, asks = self.bids, self.asks
        return (
            [(price, bids[price]) for price in self.bid_keys[: -levels - 1 : -1]],
            [(-key, asks[-key]) for key in self.ask_keys[: -levels - 1 : -1]],
        )
