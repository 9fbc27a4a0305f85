"""Puts what several writers left in several partitions into one order, as far as it is known yet."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

Place = TypeVar("Place")
Item = TypeVar("Item")
Order = tuple[int, ...]

WINDOW = 5_000_000
"""How much later than another's record, with a later time, a writer's may come in a partition (microseconds)."""


class Written(NamedTuple, Generic[Item]):
    """An item with what orders it.

    Attributes:
        writer: who wrote it.
        order: a time in microseconds, and what decides between equal times.
        item: the item.
    """

    writer: int
    order: Order
    item: Item


class Merge(Generic[Place, Item]):
    """Each place gives the items of its writers, each writer's in order; out comes the order of all.

    Batches of two writers reach a partition in any order, so an item is due when every place that is not at its end has
    come :data:`WINDOW` further.
    """

    def __init__(self) -> None:
        self._waiting: dict[Place, dict[int, deque[tuple[Order, Item]]]] = {}
        self._counts: dict[Place, int] = {}
        self._newest: dict[Place, int] = {}
        self._heads: list[tuple[Order, int, int, Place]] = []
        self._numbers: dict[Place, int] = {}

    def push(self, place: Place, items: Iterable[Written[Item]]) -> None:
        """Take more items of a place, in its order."""
        lines = self._waiting.setdefault(place, {})
        newest, count = self._newest.get(place, 0), 0
        for writer, order, item in items:
            line = lines.setdefault(writer, deque())
            line.append((order, item))
            newest, count = max(newest, order[0]), count + 1
            if len(line) == 1:
                self._head(place, writer)
        self._newest[place] = newest
        self._counts[place] = self._counts.get(place, 0) + count

    def waiting(self, place: Place) -> int:
        """Return how many items of a place wait."""
        return self._counts.get(place, 0)

    def oldest(self, place: Place) -> Iterator[Item]:
        """Yield, of each writer, the item of a place that waits longest."""
        for line in self._waiting.get(place, {}).values():
            yield line[0][1]

    def due(
        self, unfinished: Collection[Place], held: Collection[Place] = ()
    ) -> Iterator[tuple[Place, Item]]:
        """Yield what is due.

        Args:
            unfinished: the places that may still give more.
            held: those among them that give nothing until some of what waits is taken: they have come as far as
                they have.
        """
        until = min(
            (self._newest.get(place, 0) - (0 if place in held else WINDOW) for place in unfinished),
            default=None,
        )
        while self._heads and (until is None or self._heads[0][0][0] <= until):
            _, _, writer, place = heappop(self._heads)
            lines = self._waiting[place]
            line = lines[writer]
            _, item = line.popleft()
            self._counts[place] -= 1
            if line:
                self._head(place, writer)
            else:
                del lines[writer]
            yield place, item

    def _head(self, place: Place, writer: int) -> None:
        # Items themselves are never compared: the place's number decides between equals, then the writer's.
        number = self._numbers.setdefault(place, len(self._numbers))
        heappush(self._heads, (self._waiting[place][writer][0][0], number, writer, place))
