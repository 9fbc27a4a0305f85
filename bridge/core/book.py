"""An order book: absolute quantities by price, as the exchange's snapshot and its changes give them.

A side is a dict of quantities by price, and its prices in a sorted list; both are unscaled integers, whatever the
text they came in (``1.0`` and ``1.00`` are one price). ADR 8 has the figures of other containers.

Beyond the last level of a snapshot that was cut off at its limit nothing is known until it is touched: that price
is the side's edge, and a best price outside of it proves nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from bridge.core.decimals import LIMIT, ONE
from bridge.core.levels import levels_bytes, read_levels
from bridge.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHALLOW = 4
_MOST_BEYOND = 10_000


class DepthAnswer(msgspec.Struct, frozen=True):
    """What is read of the exchange's answer to a depth request."""

    lastUpdateId: int  # noqa: N815 - the exchange's own name
    bids: msgspec.Raw
    asks: msgspec.Raw


_decode_answer = msgspec.json.Decoder(DepthAnswer).decode


class Level(NamedTuple):
    """A price and the quantity there, both unscaled (times 10**18)."""

    price: int
    amount: int


class Side:
    """One side of a book.

    Attributes:
        levels: quantity by price.
        prices: the prices, ascending.
        edge: the last price of a snapshot that was cut off; None where the whole side is known.
        span: how far the edge was from the best price.
    """

    __slots__ = ("edge", "levels", "prices", "span")

    def __init__(self, numbers: Sequence[int], limit: int) -> None:
        prices, amounts = numbers[::2], numbers[1::2]
        self.levels: dict[int, int] = dict(zip(prices, amounts, strict=True))
        self.prices = sorted(self.levels)
        for price, amount in zip(prices, amounts, strict=True):
            if not (0 < price < LIMIT and 0 < amount < LIMIT):
                raise UnexpectedMessage(f"a level of {shown(amount)} at {shown(price)} in a snapshot")
        if len(self.levels) < len(prices):
            raise UnexpectedMessage("a price is in a snapshot twice")
        self.edge: int | None = None
        self.span = 0
        if len(prices) >= limit:
            self.edge = prices[-1]
            self.span = abs(prices[0] - self.edge)

    def apply(self, numbers: Iterable[int]) -> None:
        """Set each price's quantity; 0 takes the level away.

        Raises:
            UnexpectedMessage: a price that is not positive, a quantity below zero.
        """
        levels, prices = self.levels, self.prices
        each = iter(numbers)
        for price, amount in zip(each, each, strict=True):
            if not amount:
                if levels.pop(price, None) is not None:
                    del prices[bisect_left(prices, price)]
                continue
            if price <= 0 or amount < 0:
                raise UnexpectedMessage(f"a level of {shown(amount)} at {shown(price)}")
            if price not in levels:
                insort(prices, price)
            levels[price] = amount

    def differences(self, other: Side) -> list[int]:
        """Return the prices whose levels differ."""
        return [price for price, _ in self.levels.items() ^ other.levels.items()]

    def encoded(self, prices: Iterable[int]) -> bytes:
        """Return the levels at ``prices``, which has each price once, as an Avro array of ``Level``."""
        levels = self.levels
        return levels_bytes(list(chain.from_iterable([(price, levels[price]) for price in prices])))


class Book:
    """Both sides. Whoever applies a change throws the book away when something is wrong with it.

    Args:
        bids: price, quantity, price, quantity …, best first; unscaled (see :func:`~bridge.core.levels.read_levels`).
        asks: the same.
        limit: how many levels a side were asked for.

    Raises:
        UnexpectedMessage: a level is not positive, or there twice.
    """

    __slots__ = ("asks", "bids", "limit")

    def __init__(self, bids: Sequence[int], asks: Sequence[int], limit: int = 1 << 30) -> None:
        self.bids, self.asks = Side(bids, limit), Side(asks, limit)
        self.limit = limit

    @property
    def best_bid(self) -> int | None:
        """The highest bid, unscaled."""
        prices = self.bids.prices
        return prices[-1] if prices else None

    @property
    def best_ask(self) -> int | None:
        """The lowest ask, unscaled."""
        prices = self.asks.prices
        return prices[0] if prices else None

    def apply(self, bids: Iterable[int], asks: Iterable[int]) -> str | None:
        """Apply a whole change; return what is wrong with the book after it, None when it is sound.

        Wrong are: crossed or locked, a side that has just become empty, a best price beyond the side's edge.

        Raises:
            UnexpectedMessage: see :meth:`Side.apply`.
        """
        had_bids, had_asks = bool(self.bids.prices), bool(self.asks.prices)
        self.bids.apply(bids)
        self.asks.apply(asks)
        if had_bids and not self.bids.prices:
            return "no bids are left"
        if had_asks and not self.asks.prices:
            return "no asks are left"
        return self.fault()

    def fault(self) -> str | None:
        """Return why the book cannot be the exchange's, or cannot be proven to be; None when it is sound."""
        bid, ask = self.best_bid, self.best_ask
        if bid is not None and ask is not None and bid >= ask:
            return f"{'locked' if bid == ask else 'crossed'}: bid {shown(bid)}, ask {shown(ask)}"
        if self.bids.edge is not None and (bid is None or bid < self.bids.edge):
            return "the best bid is beyond the depth of the snapshot"
        if self.asks.edge is not None and (ask is None or ask > self.asks.edge):
            return "the best ask is beyond the depth of the snapshot"
        return None

    def shallow(self) -> str | None:
        """Return why a new snapshot should be asked for though the book is sound; None while it is deep enough."""
        bid, ask = self.bids.prices[-1:], self.asks.prices[:1]
        if self.bids.edge is not None and (bid[0] - self.bids.edge) * _SHALLOW < self.bids.span:
            return "bids come near the depth of the snapshot"
        if self.asks.edge is not None and (self.asks.edge - ask[0]) * _SHALLOW < self.asks.span:
            return "asks come near the depth of the snapshot"
        if max(len(self.bids.prices), len(self.asks.prices)) > self.limit + _MOST_BEYOND:
            return "many levels are beyond the depth of the snapshot"
        return None

    def differs(self, other: Book) -> str | None:
        """Return the best price where two books of the same moment differ, as far as both are known; else None."""
        bids = self.bids.differences(other.bids)
        lowest = max((e for e in (self.bids.edge, other.bids.edge) if e is not None), default=0)
        bids = [price for price in bids if price >= lowest]
        if bids:
            return f"bid {shown(max(bids))}"
        asks = self.asks.differences(other.asks)
        edges = [e for e in (self.asks.edge, other.asks.edge) if e is not None]
        asks = [price for price in asks if not edges or price <= min(edges)]
        return f"ask {shown(min(asks))}" if asks else None

    def top(self, count: int) -> tuple[list[Level], list[Level]]:
        """Return up to ``count`` bids and asks, best first."""
        bids, asks = self.bids, self.asks
        return (
            [Level(price, bids.levels[price]) for price in bids.prices[: -count - 1 : -1]],
            [Level(price, asks.levels[price]) for price in asks.prices[:count]],
        )

    def encoded(self) -> bytes:
        """Return both sides as Avro arrays of ``Level``, best first: bids, then asks."""
        return self.bids.encoded(reversed(self.bids.prices)) + self.asks.encoded(self.asks.prices)


def read_answer(body: bytes, limit: int) -> tuple[Book, int]:
    """Return the book in the exchange's answer to a request for ``limit`` levels a side, and its last update.

    Raises:
        msgspec.MsgspecError: it is no such answer.
        UnexpectedMessage: a level is malformed, not positive, or there twice.
    """
    found = _decode_answer(body)
    return Book(read_levels(found.bids), read_levels(found.asks), limit), found.lastUpdateId


def shown(price: int) -> str:
    """Return an unscaled number as people write it."""
    whole, fraction = divmod(abs(price), ONE)
    return f"{'-' * (price < 0)}{whole}.{fraction:018d}".rstrip("0").rstrip(".")
