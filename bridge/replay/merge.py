"""Puts what several writers left in several partitions into one order, as far as it is known yet."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

Place = TypeVar("Place")
Item = TypeVar("Item")
Order = tuple[int, ...]
Line = list[tuple[Order, Place, Item]]

WINDOW = 5_000_000
"""How much later than another's record, with a later time, a writer's may come in a partition (microseconds)."""


_order = itemgetter(0)


def _time(entry: tuple[Order, Any, Any]) -> int:
    return entry[0][0]


class Written(msgspec.Struct, Generic[Item], frozen=True, gc=False):
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
        self._waiting: dict[Place, dict[int, Line[Place, Item]]] = {}
        self._counts: dict[Place, int] = {}
        self._newest: dict[Place, int] = {}

    def push(self, place: Place, items: Iterable[Written[Item]]) -> None:
        """Take more items of a place, in its order."""
        lines = self._waiting.setdefault(place, {})
        newest, count = self._newest.get(place, 0), 0
        for written in items:
            order = written.order
            newest, count = max(newest, order[0]), count + 1
            line = lines.get(written.writer)
            if line is None:
                line = lines[written.writer] = []
            elif line and order < line[-1][0]:
                order = line[-1][0]  # it goes right behind what its writer wrote before
            line.append((order, place, written.item))
        self._newest[place] = newest
        self._counts[place] = self._counts.get(place, 0) + count

    def waiting(self, place: Place) -> int:
        """Return how many items of a place wait."""
        return self._counts.get(place, 0)

    def oldest(self, place: Place) -> Iterator[Item]:
        """Yield, of each writer, the item of a place that waits longest."""
        for line in self._waiting.get(place, {}).values():
            yield line[0][2]

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
        due: Line[Place, Item] = []
        for place, lines in self._waiting.items():
            before = len(due)
            for writer in sorted(lines):
                line = lines[writer]
                if until is None:
                    due += lines.pop(writer)
                elif line[0][0][0] <= until:
                    count = bisect_right(line, until, key=_time)
                    due += line[:count]
                    del line[:count]
                    if not line:
                        del lines[writer]
            self._counts[place] -= len(due) - before
        # Equals stay as they are: by their place's number, then by the writer's. Items are never compared.
        due.sort(key=_order)
        for _, place, item in due:
            yield place, item
