"""Puts what several writers left in several partitions into one order, as far as it is known yet."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Place = TypeVar("Place")
Item = TypeVar("Item")
Order = tuple[int, ...]

WINDOW = 5_000_000
"""How much later than another's record, with a later time, a writer's may come in a partition (microseconds)."""


class Written(msgspec.Struct, Generic[Place, Item], frozen=True, gc=False):
    """An item with where it stands and what orders it.

    No tuple: the garbage collector would look at all that wait their turn.

    Attributes:
        place: where it stands.
        offset: how far in there.
        writer: who wrote it.
        order: a time in microseconds, and what decides between equal times.
        item: the item.
    """

    place: Place
    offset: int
    writer: int
    order: Order
    item: Item


_order = attrgetter("order")


def _time(written: Written[Any, Any]) -> int:
    return written.order[0]


class Merge(Generic[Place, Item]):
    """Each place gives the items of its writers, each writer's in order; out comes the order of all.

    Batches of two writers reach a partition in any order, so an item is due when every place that is not at its end has
    come :data:`WINDOW` further.

    Attributes:
        reached: of each place the offset behind the furthest item that was due.
    """

    def __init__(self) -> None:
        self.reached: dict[Place, int] = {}
        self._waiting: dict[Place, dict[int, list[Written[Place, Item]]]] = {}
        self._counts: dict[Place, int] = {}
        self._newest: dict[Place, int] = {}

    def push(self, place: Place, items: Iterable[Written[Place, Item]]) -> None:
        """Take more items of a place, in its order."""
        lines = self._waiting.setdefault(place, {})
        newest, count = self._newest.get(place, 0), 0
        for written in items:
            order, count = written.order, count + 1
            newest = max(newest, order[0])
            line = lines.get(written.writer)
            if line is None:
                lines[written.writer] = [written]
            elif order < line[-1].order:  # it goes right behind what its writer wrote before
                line.append(msgspec.structs.replace(written, order=line[-1].order))
            else:
                line.append(written)
        self._newest[place] = newest
        self._counts[place] = self._counts.get(place, 0) + count

    def waiting(self, place: Place) -> int:
        """Return how many items of a place wait."""
        return self._counts.get(place, 0)

    def behind(self, place: Place) -> int:
        """Return the offset before which everything of a place was due: writers take turns behind it."""
        waiting = (line[0].offset for line in self._waiting.get(place, {}).values())
        return min(waiting, default=self.reached.get(place, 0))

    def due(self, unfinished: Collection[Place], held: Collection[Place] = ()) -> list[Written[Place, Item]]:
        """Return what is due.

        Args:
            unfinished: the places that may still give more.
            held: those among them that give nothing until some of what waits is taken: they have come as far as
                they have.
        """
        until = min(
            (self._newest.get(place, 0) - (0 if place in held else WINDOW) for place in unfinished),
            default=None,
        )
        due: list[Written[Place, Item]] = []
        for place, lines in self._waiting.items():
            before = len(due)
            for writer in sorted(lines):
                line = lines[writer]
                count = len(line) if until is None else bisect_right(line, until, key=_time)
                if count:
                    self.reached[place] = max(self.reached.get(place, 0), line[count - 1].offset + 1)
                    due += line[:count]
                    del line[:count]
                if not line:
                    del lines[writer]
            self._counts[place] -= len(due) - before
        # Equals stay as they are: by their place's number, then by the writer's. Items are never compared.
        due.sort(key=_order)
        return due
